"""A campaign: draw cuts and states, lay each out, start the node on it, and count what it does not keep."""

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.powercut import choices
from tests.powercut.disk import Disk
from tests.powercut.node import Promise, faults
from tests.powercut.trace import Event, Mark, Trace, Tree

# SOP Instance UID → SHA-256 of its datasets, in the order in which they were sent.
Sent = Mapping[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A legal state in which the node does not keep its word."""

    cut: int
    kind: str
    # The last event before the cut, for people.
    where: str
    faults: list[str]


@dataclass(kw_only=True)
class Verdict:
    """What a campaign saw."""

    # Power cuts that were replayed, and how many of their states differed from all others.
    cuts: int = 0
    states: int = 0
    # Most instances acknowledged before a cut, and results announced.
    acknowledged: int = 0
    announced: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def say(self) -> str:
        """One line, and the first findings."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        lines = [
            f"{self.cuts} power cuts, {self.states} distinct states, up to {self.acknowledged} acknowledged and "
            f"{self.announced} announced; broken promises {len(self.findings)} ({kinds})"
        ]
        lines += [
            f"  line {item.cut}, {item.kind}, after {item.where}: {item.faults[:3]}" for item in self.findings[:5]
        ]
        return "\n".join(lines)


def promise(trace: Trace, sent: Sent, cut: int) -> Promise:
    """The k-th acknowledgement of a UID stands for the k-th dataset sent under it."""
    acknowledged = Counter(trace.marks("acknowledged", before=cut))
    return Promise(
        acknowledged=[(uid, sha256) for uid, count in acknowledged.items() for sha256 in sent[uid][:count]],
        announced=sorted(set(trace.marks("announced", before=cut))),
    )


def cuts(trace: Trace, count: int, rng: np.random.Generator) -> list[int]:
    """Ascending: a third just after a word was given, the others after any event."""
    after_words = [event.at + 1 for event in trace.events if isinstance(event.op, Mark)]
    after_events = [event.done + 1 for event in trace.events if event.at >= trace.begin]
    words = rng.choice(after_words, count // 3) if after_words else np.array([], int)
    return sorted(int(cut) for cut in (*words, *rng.choice(after_events, count - len(words))))


def prove(
    trace: Trace,
    sent: Sent,
    folder: Path,
    *,
    count: int,
    rng: np.random.Generator,
    given: Promise | None = None,
    until_found: bool = False,
) -> Verdict:
    """Replay `count` cuts below `folder`; `given` is a promise from before the trace.

    The state folder of the node is `state` in the watched folder.
    """
    disk, verdict, seen = Disk(trace), Verdict(), set[int]()
    for cut in cuts(trace, count, rng):
        pending = disk.pending(cut)
        choice = choices.draw(pending, rng)
        tree = disk.after(cut, choice)
        word = promise(trace, sent, cut) if given is None else given
        verdict.cuts += 1
        verdict.kinds[choice.kind] += 1
        verdict.acknowledged = max(verdict.acknowledged, len(word.acknowledged))
        verdict.announced = max(verdict.announced, len(word.announced))
        key = hash((tuple(tree.items()), tuple(word.acknowledged), tuple(word.announced)))
        if key in seen:
            continue
        seen.add(key)
        verdict.states += 1
        found = _try(tree, word, folder / "disk")
        if found:
            verdict.findings.append(Finding(cut=cut, kind=choice.kind, where=_where(trace, cut), faults=found))
            if until_found:
                break
    return verdict


def _try(tree: Tree, word: Promise, folder: Path) -> list[str]:
    lay_out(tree, folder)
    try:
        if not (folder / "state").is_dir():
            return ["the state folder is gone"] if word.acknowledged or word.announced else []
        return faults(folder / "state", word)
    finally:
        shutil.rmtree(folder)


def lay_out(tree: Tree, folder: Path) -> None:
    """Write a state into a new folder."""
    folder.mkdir(parents=True)
    for name, content in tree.items():
        if content is None:
            (folder / name).mkdir()
        else:
            with (folder / name).open("wb") as file:
                # Segments written full with zeros stay cheap.
                file.write(content.rstrip(b"\0"))
                file.truncate(len(content))


def _where(trace: Trace, cut: int) -> str:
    last: Event | None = None
    for event in trace.events:
        if event.at < cut:
            last = event
    return "the begin" if last is None else f"{type(last.op).__name__} {last.path}"
