"""What a receiver flushes between the first byte of an image and its Success, as the kernel sees it (strace).

A flush that runs behind the answer is counted apart: it makes nothing durable that was acknowledged.
"""

import collections
import re
import subprocess
import time
from pathlib import Path

from benchmarks.ingest import sender
from benchmarks.ingest.images import Kind
from benchmarks.ingest.receivers import Running, program
from tests.peers import wait_for

_CALLS = "fsync,fdatasync,syncfs,sync_file_range,sync,msync"
_IMAGES = 20
# Long enough for what runs behind an answer to be over before the next image.
_PAUSE_S = 0.25
# `1234 1700000000.123456 fdatasync(7</path>) = 0 <0.001>` or its unfinished half.
_LINE = re.compile(r"^\d+\s+(?P<at>[\d.]+) (?P<call>\w+)\((?:\d+<(?P<path>[^>]*)>)?")


def flushes(running: Running, kind: Kind, *, run: int, scratch: Path) -> dict[str, float]:
    """Calls an image, named "fdatasync of an image file, before Success" and the like."""
    trace = scratch / f"trace-{running.name}.txt"
    command = [program("strace"), "-f", "-y", "-ttt", "-e", f"trace={_CALLS}", "-o", str(trace)]
    for pid in running.pids:
        command += ["-p", str(pid)]
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: all(map(_traced, running.pids)), what="strace")
        sent = sender.send(
            running.port, running.ae_title, kind, run=run, associations=1, images=_IMAGES, pause_s=_PAUSE_S
        )
        time.sleep(1.0)
    finally:
        tracer.terminate()
        tracer.wait(20)
    found: collections.Counter[str] = collections.Counter()
    for line in trace.read_text().splitlines():
        match = _LINE.match(line)
        if match is None or float(match["at"]) < sent.spans[0][0]:
            continue
        before = any(begin <= float(match["at"]) <= end for begin, end in sent.spans)
        found[f"{match['call']} of {_sort(match['path'])}, {'before' if before else 'after'} Success"] += 1
    return {name: count / sent.images for name, count in sorted(found.items())}


def _traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0" not in status


def _sort(path: str | None) -> str:
    if path is None:
        return "everything"
    if Path(path).is_dir():
        return "a folder"
    name = Path(path).name
    if "sqlite" in name or name.startswith("index"):
        return "the database"
    if any("log" in part for part in Path(path).parts[-4:-1]):
        return "the receive log"
    return "an image file"
