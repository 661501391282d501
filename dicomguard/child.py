"""The only starter of child processes: limits before the first instruction, a pipe of JSON lines, one group to kill.

It knows nothing of what the child does. Two rules of Linux shape it. A fork in a threaded process may copy a lock
that nobody will release, so a child is only ever exec'ed, never forked to run Python; the limits are therefore set by
a small launcher (this module's `main`) that then becomes the program. And PR_SET_PDEATHSIG, which takes the child down
with us, fires when the *thread* that spawned ends (prctl(2)), so one thread that lives as long as the process spawns
all of them.
"""

import contextlib
import ctypes
import json
import os
import queue
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from dicomguard.errors import Broken, Unavailable

Message = dict[str, Any]

# A message names files, numbers and hashes; whatever is larger belongs into a file.
MAX_MESSAGE_BYTES = 1 << 20
# The kernel ends a child that ignores SIGXCPU this much later.
_CPU_GRACE_S = 5
_PR_SET_PDEATHSIG = 1


class ChildSilent(Unavailable):
    """The child lives and has said nothing within the time that the caller allowed."""


class ChildEnded(Unavailable):
    """The child ended before it answered; the message says how."""


class Channel:
    """JSON lines over one connected socket; each side of the wall holds one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        # Progress may be sent by a helper thread of the child while the main thread answers.
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; raise `ChildEnded` when the other side is gone."""
        line = json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_MESSAGE_BYTES:
            raise Broken(f"A message of {len(line)} bytes is over {MAX_MESSAGE_BYTES}. Put the bulk into a file.")
        try:
            with self._sending:
                self._connection.sendall(line)
        except OSError as error:
            raise ChildEnded(f"The other side of the pipe is gone ({error.strerror}). Start it again.") from error

    def receive(self, timeout_s: float | None) -> Message:
        """The next message; `ChildSilent` after `timeout_s` (None: never), `ChildEnded` at the end of the pipe."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_MESSAGE_BYTES:
                raise Broken(
                    f"A message is longer than {MAX_MESSAGE_BYTES} bytes. The child does not follow the contract."
                )
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._connection], [], [], left)[0]:
                raise ChildSilent(f"Nothing was said for {timeout_s} s. Wait longer or stop the child.")
            self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except ValueError as error:
            raise Broken(
                f"A message of {len(line)} bytes is no JSON. The child does not follow the contract."
            ) from error
        if not isinstance(message, dict):
            raise Broken(
                f"A message is a {type(message).__name__}, not an object. The child does not follow the contract."
            )
        return message

    def _fill(self) -> None:
        try:
            chunk = self._connection.recv(65536)
        except ConnectionError:
            chunk = b""
        if not chunk:
            raise ChildEnded("The other side closed the pipe. Start it again.")
        self._buffer += chunk

    def close(self) -> None:
        """Close our end; the other side reads the end of the pipe."""
        self._connection.close()


def parent() -> Channel:
    """The child's end of the pipe, once: it arrives as standard input, which then reads as empty.

    Standard output is standard error in a child, so a library that prints cannot end up between two messages.
    """
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return Channel(connection)


class Child:
    """A running child process in its own session and process group. Use it in a `with`: leaving kills the group."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel, *, name: str, cpu_s: float | None) -> None:
        self._process = process
        self._channel = channel
        self._cpu_s = cpu_s
        self._stopped_because = ""
        # Short words for logs and sentences: the module or program.
        self.name = name

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        memory_bytes: int | None,
        cpu_s: float | None,
        nice: int = 0,
        oom_score_adj: int | None = None,
        env_extra: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: str | None = None,
    ) -> Self:
        """Start `argv` (a full path first) under limits; raises `Unavailable` when the system refuses.

        `memory_bytes` limits the address space (RLIMIT_AS; None for CUDA, which reserves far more than it uses),
        `cpu_s` processor seconds of the process, `nice` is added to ours, `oom_score_adj` tells the kernel
        whom to end first. `pass_fds` stay open under their numbers.
        """
        limits = {
            "memory_bytes": memory_bytes,
            "cpu_s": None if cpu_s is None else max(1, round(cpu_s)),
            "nice": nice,
            "oom_score_adj": oom_score_adj,
            "parent": os.getpid(),
        }
        command = [sys.executable, "-m", "dicomguard.child", json.dumps(limits), *argv]
        environment = {**os.environ, **(env_extra or {})}
        with contextlib.ExitStack() as undo:
            try:
                ours, theirs = socket.socketpair()
                undo.callback(ours.close)
                with theirs:
                    process = _spawner().spawn(
                        command, environment=environment, stdin=theirs.fileno(), pass_fds=tuple(pass_fds), cwd=cwd
                    )
            except OSError as error:
                raise Unavailable(
                    f"{argv[0]} could not be started: {error.strerror}. Try again with less load."
                ) from error
            undo.pop_all()
        return cls(process, Channel(ours), name=_name(argv), cpu_s=cpu_s)

    @property
    def pid(self) -> int:
        """Process id, also the id of its group."""
        return self._process.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; `ChildEnded` with the exit reason when it is gone."""
        try:
            self._channel.send(message)
        except ChildEnded as error:
            raise self._ended() from error

    def receive(self, timeout_s: float | None) -> Message:
        """The next message; `ChildSilent` after `timeout_s`, `ChildEnded` with the reason, `Broken` for no JSON."""
        try:
            return self._channel.receive(timeout_s)
        except ChildSilent as error:
            raise ChildSilent(
                f"The child {self.name} said nothing for {timeout_s} s. Wait longer or stop it."
            ) from error
        except ChildEnded as error:
            raise self._ended() from error

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; False when it still runs."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask_to_reload(self) -> None:
        """SIGHUP to the child alone; it waits until the child lets it in."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGHUP)

    def ask_to_stop(self) -> None:
        """SIGTERM to the group; `terminate` waits for the end."""
        self._signal(signal.SIGTERM, "it was asked to stop")

    def terminate(self, grace_s: float) -> None:
        """Ask the group to end (SIGTERM), kill it after `grace_s`."""
        self.ask_to_stop()
        if not self.wait(grace_s):
            self.kill()

    def kill(self, because: str = "it was stopped") -> None:
        """Kill the whole group and reap the child."""
        self._signal(signal.SIGKILL, because)
        self._process.wait()
        # Grandchildren may outlive a leader that ended by itself.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._channel.close()

    def _signal(self, number: signal.Signals, because: str) -> None:
        if self._process.poll() is None:
            self._stopped_because = self._stopped_because or because
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    @property
    def exit_status(self) -> int | None:
        """Status of the ended process, minus the signal when one ended it; None while it runs."""
        return self._process.poll()

    def exit_reason(self) -> str:
        """How it ended, as the predicate of a sentence: "was killed (SIGKILL), most likely for want of memory"."""
        return describe_exit(self._process.poll(), stopped_because=self._stopped_because, cpu_s=self._cpu_s)

    def _ended(self) -> ChildEnded:
        # The pipe closes a moment before the process can be reaped.
        if not self.wait(5.0):
            self.kill("it closed its pipe and did not end")
        return ChildEnded(f"The child {self.name} {self.exit_reason()}. Look at its lines in the log.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def describe_exit(status: int | None, *, stopped_because: str = "", cpu_s: float | None = None) -> str:
    """The predicate for a `returncode` of subprocess (negative: the signal)."""
    if status is None:
        return "is running"
    if stopped_because:
        return f"was stopped because {stopped_because}"
    if status == -signal.SIGXCPU:
        return f"used up its {cpu_s} s of processor time"
    if status == -signal.SIGKILL:
        return "was killed (SIGKILL), most likely by the kernel for want of memory"
    if status < 0:
        return f"crashed ({signal.Signals(-status).name})"
    if status == 0:
        return "ended without an answer"
    return f"ended with status {status}"


def _name(argv: Sequence[str]) -> str:
    if "-m" in argv[:-1]:
        return argv[argv.index("-m") + 1]
    return argv[0].rsplit("/", 1)[-1]


class _Spawner:
    """The one thread that spawns."""

    def __init__(self) -> None:
        self._asked: queue.Queue[tuple[dict[str, Any], Future[subprocess.Popen[bytes]]]] = queue.Queue(maxsize=64)
        threading.Thread(target=self._run, name="child-spawner", daemon=True).start()

    def spawn(
        self,
        command: list[str],
        *,
        environment: Mapping[str, str],
        stdin: int,
        pass_fds: tuple[int, ...],
        cwd: str | None,
    ) -> subprocess.Popen[bytes]:
        answer: Future[subprocess.Popen[bytes]] = Future()
        options = {"args": command, "env": dict(environment), "stdin": stdin, "pass_fds": pass_fds, "cwd": cwd}
        self._asked.put((options, answer))
        return answer.result(timeout=60)

    def _run(self) -> None:
        # Children inherit it: who knows what to do at SIGHUP lets it in once it is ready, the others do not die of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        while True:
            options, answer = self._asked.get()
            try:
                # Standard output goes where standard error goes: only messages pass the pipe.
                process = subprocess.Popen(**options, stdout=2, start_new_session=True, close_fds=True)
            except OSError as error:
                answer.set_exception(error)
            else:
                answer.set_result(process)


_spawner_lock = threading.Lock()
_spawners: list[_Spawner] = []


def _spawner() -> _Spawner:
    """The process-wide spawner, made at the first child (the reason for this one global: see the module)."""
    with _spawner_lock:
        if not _spawners:
            _spawners.append(_Spawner())
        return _spawners[0]


def main(arguments: Sequence[str]) -> None:
    """The launcher: set the limits of `arguments[0]`, then become the program of the rest."""
    limits = json.loads(arguments[0])
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != limits["parent"]:
        # The parent died before the line above could watch it.
        sys.exit(75)
    if limits["oom_score_adj"] is not None:
        # Lowering needs a privilege that a container may lack; raising always works.
        with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(limits["oom_score_adj"]))
    os.nice(limits["nice"])
    if limits["cpu_s"] is not None:
        _limit(resource.RLIMIT_CPU, limits["cpu_s"], limits["cpu_s"] + _CPU_GRACE_S)
    # A core file of a child would hold pixels.
    _limit(resource.RLIMIT_CORE, 0, 0)
    if limits["memory_bytes"] is not None:
        _limit(resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"])
    os.execv(arguments[1], list(arguments[1:]))


def _limit(kind: int, soft: int, hard: int) -> None:
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        hard = min(hard, ceiling)
    resource.setrlimit(kind, (min(soft, hard), hard))


if __name__ == "__main__":
    main(sys.argv[1:])
