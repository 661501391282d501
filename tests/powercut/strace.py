"""The text that strace writes about a run, as system calls: the kernel's own view, whoever made the call.

Wanted of strace: `-f` (threads and children), `-y` (paths of descriptors), `-xx` (every text as hex, so that no quote
or parenthesis of the data can be mistaken), `-v` and a long `-s` (nothing shortened).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "openat,open,creat,close,dup,dup2,dup3,fcntl,write,writev,pwrite64,pwritev,pwritev2,lseek,ftruncate,truncate,"
    "fallocate,rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir,fsync,"
    "fdatasync,sync,syncfs,mmap,copy_file_range,sendfile,sendto,sendmsg,clone,clone3,fork,vfork,execve,io_uring_setup"
)
_LONGEST = 100_000_000
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))\Z", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_DIED = " <unfinished ...>) = ?"
_RETURN = re.compile(r"\) += (-?\d+|\?)([^=]*)\Z")
_DESCRIPTOR = re.compile(r"(-?\d+|AT_FDCWD)(?:<([^>]*)>(\(deleted\))?)?\Z")


def command(strace: str, output: Path) -> list[str]:
    """Put before the command to record."""
    options = ["-f", "--seccomp-bpf", "-y", "-xx", "-v", "-s", str(_LONGEST), "-e", f"trace={CALLS}"]
    return [strace, *options, "-e", "signal=none", "-o", str(output)]


class Unsupported(Exception):
    """The run did something to the folder that the record does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call that returned; `result` is None when the process died in it."""

    thread: int
    name: str
    arguments: str
    result: int | None
    # Lines of entry and return.
    at: int
    done: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor argument: its number (None for the working folder) and the path that it had."""

    number: int | None
    path: str


def read(lines: Iterable[str]) -> Iterator[Call]:
    """The calls in order of their return."""
    entered: dict[int, tuple[str, str, int]] = {}
    for place, line in enumerate(lines):
        match = _LINE.match(line.rstrip("\n"))
        if match is None:
            continue
        thread = int(match[1])
        if match[2]:
            name, begun, at = entered.pop(thread)
            text = begun + match[3]
        else:
            name, text, at = match[4], match[5], place
            if text.endswith(_DIED):
                yield Call(thread=thread, name=name, arguments=text.removesuffix(_DIED), result=None, at=at, done=at)
                continue
            if text.endswith(_UNFINISHED):
                entered[thread] = (name, text.removesuffix(_UNFINISHED), at)
                continue
        returned = _RETURN.search(text)
        if returned is None:
            # As where a kill came between the call and its line; the end says which.
            raise Unsupported(f"A line of strace is not understood: {line[:80]!r} … {line[-80:]!r}.")
        result = None if returned[1] == "?" else int(returned[1])
        yield Call(thread=thread, name=name, arguments=text[: returned.start()], result=result, at=at, done=place)
    for thread, (name, text, at) in entered.items():
        yield Call(thread=thread, name=name, arguments=text, result=None, at=at, done=at)


def unhex(text: str) -> bytes:
    r"""The bytes of `\x61\x62`."""
    return bytes.fromhex(text.replace("\\x", ""))


def texts(arguments: str) -> list[bytes]:
    """The quoted arguments, in order."""
    return [unhex(part) for part in arguments.split('"')[1::2]]


def after_texts(arguments: str) -> list[str]:
    """The arguments behind the last quoted one."""
    return arguments.rsplit('"', 1)[-1].lstrip("]} ").removeprefix(", ").split(", ")


def plain(arguments: str) -> list[str]:
    """All arguments, of a call without quoted ones or structures."""
    return arguments.split(", ")


def descriptor(argument: str) -> Descriptor | None:
    """Of `7<\\x2f\\x61>`; None when the argument is none."""
    match = _DESCRIPTOR.match(argument.strip())
    if match is None:
        return None
    path = match[2] or ""
    if path.startswith("\\x"):
        path = unhex(path).decode("utf-8", "surrogateescape")
    return Descriptor(None if match[1] == "AT_FDCWD" else int(match[1]), path)
