"""Children: messages, limits, the group, and the sentence that says how one ended."""

import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from dicomguard import child
from dicomguard.child import Child, ChildEnded, ChildSilent
from dicomguard.errors import Broken, Unavailable

_ECHO = """
from dicomguard import child
print("a library that prints")
pipe = child.parent()
while True:
    message = pipe.receive(None)
    pipe.send({"echo": message})
"""


def start(code: str, *, memory_bytes: int | None = None, cpu_s: float | None = None, nice: int = 0) -> Child:
    return Child.start([sys.executable, "-c", code], memory_bytes=memory_bytes, cpu_s=cpu_s, nice=nice)


def test_messages_pass_and_printing_does_not_disturb_them() -> None:
    with start(_ECHO) as echo:
        for number in range(3):
            echo.send({"number": number, "text": "ä\n"})
            assert echo.receive(10) == {"echo": {"number": number, "text": "ä\n"}}
        assert os.getpgid(echo.pid) == echo.pid
    assert not echo.alive()


def test_silence_is_told_apart_from_an_end() -> None:
    with start("import time; time.sleep(60)") as sleeper, pytest.raises(ChildSilent, match=r"nothing for 0\.05 s"):
        sleeper.receive(0.05)
    with start("import sys; sys.exit(7)") as ending, pytest.raises(ChildEnded, match="ended with status 7"):
        ending.receive(10)


def test_what_is_no_json_is_broken() -> None:
    code = "import os; os.write(0, b'not json' + bytes([10]))"
    with start(code) as babbler, pytest.raises(Broken, match="no JSON"):
        babbler.receive(10)


def test_an_endless_line_is_cut_off() -> None:
    code = "import os\nwhile True: os.write(0, b'x' * 65536)"
    with start(code) as babbler, pytest.raises(Broken, match="longer than"):
        babbler.receive(10)


def test_memory_is_limited_before_the_program_begins() -> None:
    code = """
from dicomguard import child
pipe = child.parent()
try:
    bytearray(1 << 30)
except MemoryError:
    pipe.send({"refused": True})
"""
    with start(code, memory_bytes=512 << 20) as greedy:
        assert greedy.receive(10) == {"refused": True}


def test_processor_time_is_limited_and_said() -> None:
    with (
        start("while True: pass", cpu_s=1) as busy,
        pytest.raises(ChildEnded, match="used up its 1 s of processor time"),
    ):
        busy.receive(20)


def test_niceness_is_added_to_ours() -> None:
    code = "import os; from dicomguard import child; child.parent().send({'nice': os.nice(0)})"
    with start(code, nice=3) as modest:
        assert modest.receive(10) == {"nice": min(19, os.nice(0) + 3)}


def test_killing_takes_the_grandchildren_along(tmp_path: Path) -> None:
    code = """
import subprocess, sys, pathlib
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
from dicomguard import child
child.parent().send({"pid": grandchild.pid})
grandchild.wait()
"""
    with start(code) as family:
        grandchild = family.receive(10)["pid"]
    assert _gone(grandchild)


def test_a_child_dies_with_its_parent() -> None:
    code = """
import sys
from dicomguard import child
inner = child.Child.start([sys.executable, "-c", "import time; time.sleep(60)"], memory_bytes=None, cpu_s=None)
child.parent().send({"pid": inner.pid})
import time; time.sleep(60)
"""
    with start(code) as middle:
        inner = middle.receive(10)["pid"]
        os.kill(middle.pid, signal.SIGKILL)
        assert _gone(inner)


def test_a_child_outlives_the_thread_that_asked_for_it() -> None:
    """PR_SET_PDEATHSIG fires when the spawning thread ends, so the thread that asks must not be the one that spawns."""
    started: list[Child] = []
    thread = threading.Thread(target=lambda: started.append(start(_ECHO)))
    thread.start()
    thread.join()
    with started[0] as echo:
        time.sleep(0.3)
        echo.send({"still": "here"})
        assert echo.receive(10) == {"echo": {"still": "here"}}


def test_a_program_that_does_not_exist_says_so() -> None:
    with (
        Child.start(["/nonexistent/program"], memory_bytes=None, cpu_s=None) as nobody,
        pytest.raises(Unavailable, match="program ended with status"),
    ):
        nobody.receive(10)


def test_asking_first_lets_a_child_end_in_order() -> None:
    code = """
import signal, sys, time
from dicomguard import child
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
child.parent().send({"ready": True})
time.sleep(60)
"""
    orderly = start(code)
    orderly.receive(10)
    orderly.terminate(10)
    assert orderly.exit_status == 0
    orderly.kill()


@pytest.mark.parametrize(
    ("status", "stopped", "sentence"),
    [
        (None, "", "is running"),
        (0, "", "ended without an answer"),
        (3, "", "ended with status 3"),
        (-9, "", "was killed (SIGKILL), most likely by the kernel for want of memory"),
        (-11, "", "crashed (SIGSEGV)"),
        (-24, "", "used up its 2 s of processor time"),
        (-9, "its deadline was over", "was stopped because its deadline was over"),
    ],
)
def test_exits_are_sentences(status: int | None, stopped: str, sentence: str) -> None:
    assert child.describe_exit(status, stopped_because=stopped, cpu_s=2) == sentence


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # A process that ended and was not reaped by its new parent yet is gone as well.
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_without_a_free_descriptor_none_is_started_for_now() -> None:
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, usual[1]))
        with pytest.raises(Unavailable, match="could not be started: Too many open files"):
            start("pass")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
