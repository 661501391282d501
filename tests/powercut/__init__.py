"""Power cuts, proven: record what the node asked of the disk, build what a cut may leave, start the node on it.

`strace` reads the system calls of a real run, `recorder` makes `trace.Event`s of them, `disk` builds the states that
are legal after a cut, `choices` samples them, `node` recovers and holds the node to its word, `prover` counts.
After ALICE (Pillai et al., OSDI 2014) and CrashMonkey (Mohan et al., OSDI 2018).
"""
