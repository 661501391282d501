"""System calls of a run as events below one folder: which inode was meant, at which offset, and what was promised.

It follows descriptors through threads, forks and duplicates, as the kernel does. What it cannot follow (a shared
mapping, a copy inside the kernel) raises `Unsupported` instead of being left out, and `verify` compares the end of the
record with the real folder byte for byte: a record that misses a write proves nothing.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.powercut import dimse, strace
from tests.powercut.strace import Call, Unsupported, after_texts, descriptor, plain, texts
from tests.powercut.trace import ROOT, Event, Link, Mark, Op, Rename, Resize, Sync, Trace, Tree, Unlink, Write

# SQLite rebuilds its shared memory at the first open; nothing of it has to be durable.
_VOLATILE = ("-shm",)
_SEND = frozenset({"write", "writev", "sendto", "sendmsg"})
_SYNCHRONOUS = ("O_SYNC", "O_DSYNC", "RWF_SYNC", "RWF_DSYNC")
# Two lines before the first stand for what lay there before, and its sync.
_BEGIN = 2
_PROC_FD = re.compile(r"/proc/(?:self|\d+)/fd/(\d+)\Z")


@dataclass
class _Open:
    """An open file description."""

    inode: int
    # Line of its opening: the number of a descriptor is free for others before close has returned.
    since: int
    append: bool = False
    synchronous: bool = False
    position: int = 0


@dataclass
class _Inode:
    """As the running machine sees it."""

    # None for a folder.
    content: bytearray | None
    names: dict[str, int] = field(default_factory=dict)


def look(root: Path) -> Tree:
    """What lies below a folder now, parents before children, without what need not be durable."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if not path.name.endswith(_VOLATILE)
    }


class Recorder:
    """Takes calls in the order of their return; `trace` is what they did below `root`.

    `before` is what lay there at first, all of it durable.
    """

    def __init__(self, root: Path, *, before: Tree) -> None:
        self._root = str(root.resolve())
        self._hex = "".join(f"\\x{byte:02x}" for byte in os.fsencode(self._root))
        self._inodes: dict[int, _Inode] = {ROOT: _Inode(None)}
        # One table a process; threads share it.
        self._tables: dict[int, dict[int, _Open]] = {}
        # Thread → its creator, and whether they share the table.
        self._born: dict[int, tuple[int, bool]] = {}
        self._events: list[Event] = []
        for name, content in before.items():
            self._install(name, content)
        self._events.append(Event(at=1, done=1, op=Sync(inode=None)))
        self._end = _BEGIN

    def _install(self, name: str, content: bytes | None) -> None:
        place = self._place(f"{self._root}/{name}")
        if place is None:
            return
        number = self._new(content=None if content is None else bytearray(content))
        self._inodes[place[0]].names[place[1]] = number
        self._events.append(Event(at=0, done=0, op=Link(folder=place[0], name=place[1], inode=number), path=name))
        if content:
            self._events.append(Event(at=0, done=0, op=Write(inode=number, offset=0, data=content), path=name))

    def read(self, lines: Callable[[], Iterable[str]]) -> None:
        """A record of strace; `lines` is called twice, because a child's calls may come before its birth returns."""
        first = self._end
        for call in strace.read(line for line in lines() if "clone" in line or "fork" in line):
            if call.name in ("clone", "clone3", "fork", "vfork") and call.result and call.result > 0:
                self._born[call.result] = (call.thread, "CLONE_FILES" in call.arguments)
        last = 0
        for call in strace.read(lines()):
            self._take(
                Call(
                    thread=call.thread,
                    name=call.name,
                    arguments=call.arguments,
                    result=call.result,
                    at=first + call.at,
                    done=first + call.done,
                )
            )
            last = max(last, call.done)
        self._end = first + last + 1

    def trace(self) -> Trace:
        """All events so far."""
        folders = frozenset(number for number, inode in self._inodes.items() if inode.content is None)
        return Trace(events=tuple(self._events), end=self._end, begin=_BEGIN, folders=folders)

    def verify(self) -> None:
        """Raise `Unsupported` when the real folder is not what the record says."""
        real, told = look(Path(self._root)), dict(self._walk(ROOT, ""))
        if real != told:
            different = sorted(
                name for name in real.keys() | told.keys() if name not in real or name not in told
                or real[name] != told[name]
            )  # fmt: skip
            raise Unsupported(f"The record differs from the folder in {different[:5]}. Look at what touched them.")

    def _walk(self, folder: int, prefix: str) -> Iterable[tuple[str, bytes | None]]:
        for name, number in self._inodes[folder].names.items():
            content = self._inodes[number].content
            if name.endswith(_VOLATILE):
                continue
            yield prefix + name, None if content is None else bytes(content)
            if content is None:
                yield from self._walk(number, f"{prefix}{name}/")

    # ---- names and descriptors ------------------------------------------------------------------------------------

    def _table(self, thread: int) -> dict[int, _Open]:
        if thread not in self._tables:
            parent, shared = self._born.get(thread, (None, False))
            inherited = {} if parent is None else self._table(parent)
            self._tables[thread] = inherited if shared else dict(inherited)
        return self._tables[thread]

    def _relative(self, path: str) -> str | None:
        """Below the root, "" for the root itself; None when it is elsewhere."""
        path = os.path.normpath(path)
        if path == self._root:
            return ""
        return path[len(self._root) + 1 :] if path.startswith(self._root + "/") else None

    def _absolute(self, base: strace.Descriptor | None, name: bytes) -> str:
        text = os.fsdecode(name)
        return text if base is None or text.startswith("/") else os.path.join(base.path, text)  # noqa: PTH118

    def _place(self, path: str) -> tuple[int, str] | None:
        """Folder inode and last name of a path below the root, without those that need not be durable."""
        relative = self._relative(path)
        if not relative or relative.endswith(_VOLATILE):
            return None
        *folders, name = relative.split("/")
        number = ROOT
        for part in folders:
            number = self._inodes[number].names[part]
        return number, name

    def _find(self, path: str) -> int | None:
        relative = self._relative(path)
        if relative is None:
            return None
        if relative == "":
            return ROOT
        place = self._place(path)
        return None if place is None else self._inodes[place[0]].names.get(place[1])

    def _opened(self, call: Call, argument: str) -> _Open | None:
        """The description behind a descriptor argument; None when it is not below the root."""
        meant = descriptor(argument)
        if meant is None or meant.number is None:
            return None
        known = self._table(call.thread).get(meant.number)
        relative = self._relative(meant.path) if meant.path.startswith("/") else None
        if known is None and relative is not None and not relative.endswith(_VOLATILE):
            raise Unsupported(f"{call.name} of {relative} through a descriptor whose opening was not seen.")
        return known if relative is not None else None

    def _note(self, call: Call, op: Op, path: str = "") -> None:
        relative = self._relative(path) if path.startswith("/") else path
        self._events.append(Event(at=call.at, done=call.done, op=op, path=relative or ""))

    # ---- calls ----------------------------------------------------------------------------------------------------

    def _take(self, call: Call) -> None:
        if call.name in _SEND and self._promised(call):
            return
        if call.result is None:
            self._died_in(call)
        elif call.result >= 0:
            handler = getattr(self, f"_on_{call.name}", None)
            if handler is not None:
                handler(call)

    def _died_in(self, call: Call) -> None:
        """A process died in a call: whether it had its effect is known only when it had none that counts."""
        reads = ("openat", "close", "fcntl", "mmap", "lseek", "fsync", "fdatasync", "syncfs", "execve", "clone3")
        if call.name not in reads and self._hex in call.arguments:
            raise Unsupported(f"The process died in {call.name}. Record again.")

    def _promised(self, call: Call) -> bool:
        """Whether the call was on a socket; what DIMSE says in it becomes marks."""
        meant = descriptor(call.arguments.split(", ", 1)[0])
        if meant is None or not meant.path.startswith("socket:"):
            return False
        content = b"".join(texts(call.arguments))
        for message in dimse.messages(content):
            if message.acknowledges:
                self._note(call, Mark(kind="acknowledged", sop_instance_uid=message.sop_instance_uid))
            elif message.announces:
                self._note(call, Mark(kind="announced", sop_instance_uid=message.sop_instance_uid))
        return True

    def _on_openat(self, call: Call) -> None:
        base = descriptor(call.arguments.split(", ", 1)[0])
        (name,) = texts(call.arguments)
        path = self._absolute(base, name)
        if self._relative(path) is None:
            return
        if path.endswith(_VOLATILE):
            return
        flags = after_texts(call.arguments)[0].split("|")
        if "O_TMPFILE" in flags:
            number = self._new(content=bytearray())
        else:
            found = self._find(path)
            number = self._create(call, path) if found is None else found
        if "O_TRUNC" in flags and self._inodes[number].content:
            self._resize(call, number, 0, path)
        self._table(call.thread)[call.result or 0] = _Open(
            number,
            since=call.done,
            append="O_APPEND" in flags,
            synchronous=any(flag in _SYNCHRONOUS for flag in flags),
        )

    def _on_open(self, call: Call) -> None:
        if self._relative(os.fsdecode(texts(call.arguments)[0])) is not None:
            raise Unsupported(f"{call.name}(2) is not read, only openat(2).")

    _on_creat = _on_open

    def _new(self, *, content: bytearray | None) -> int:
        number = len(self._inodes)
        self._inodes[number] = _Inode(content)
        return number

    def _create(self, call: Call, path: str, *, folder: bool = False) -> int:
        place = self._place(path)
        assert place is not None
        number = self._new(content=None if folder else bytearray())
        self._link(call, place, number, path)
        return number

    def _link(self, call: Call, place: tuple[int, str], number: int, path: str) -> None:
        self._inodes[place[0]].names[place[1]] = number
        self._note(call, Link(folder=place[0], name=place[1], inode=number), path)

    def _on_close(self, call: Call) -> None:
        meant = descriptor(plain(call.arguments)[0])
        if meant is None or meant.number is None:
            return
        opened = self._table(call.thread).get(meant.number)
        if opened is not None and opened.since < call.at:
            del self._table(call.thread)[meant.number]

    def _duplicate(self, call: Call) -> None:
        meant = descriptor(plain(call.arguments)[0])
        if meant is None or meant.number is None:
            return
        table = self._table(call.thread)
        if meant.number in table:
            table[call.result or 0] = table[meant.number]
        else:
            table.pop(call.result or 0, None)

    _on_dup = _on_dup2 = _on_dup3 = _duplicate

    def _on_fcntl(self, call: Call) -> None:
        if "F_DUPFD" in call.arguments:
            self._duplicate(call)

    def _on_execve(self, call: Call) -> None:
        # Python and SQLite open everything with O_CLOEXEC; a descriptor that outlives this is seen as unknown.
        self._tables[call.thread] = {}

    def _write(self, call: Call, opened: _Open, offset: int | None) -> None:
        data = b"".join(texts(call.arguments))[: call.result]
        content = self._inodes[opened.inode].content
        if content is None:
            raise Unsupported(f"{call.name} to a folder.")
        if opened.append:
            offset = len(content)
        place = opened.position if offset is None else offset
        if offset is None or opened.append:
            opened.position = place + len(data)
        if len(content) < place:
            content.extend(bytes(place - len(content)))
        content[place : place + len(data)] = data
        path = self._path_of(call)
        self._note(call, Write(inode=opened.inode, offset=place, data=data), path)
        if opened.synchronous or any(flag in call.arguments.rsplit("]", 1)[-1] for flag in _SYNCHRONOUS):
            self._note(call, Sync(inode=opened.inode), path)

    def _path_of(self, call: Call) -> str:
        meant = descriptor(call.arguments.split(", ", 1)[0])
        return "" if meant is None else meant.path

    def _written(self, call: Call) -> None:
        opened = self._opened(call, call.arguments.split(", ", 1)[0])
        if opened is not None:
            self._write(call, opened, None)

    _on_write = _on_writev = _written

    def _on_pwrite64(self, call: Call) -> None:
        opened = self._opened(call, call.arguments.split(", ", 1)[0])
        if opened is not None:
            self._write(call, opened, int(after_texts(call.arguments)[1]))

    def _on_pwritev(self, call: Call) -> None:
        opened = self._opened(call, call.arguments.split(", ", 1)[0])
        if opened is not None:
            # Behind the vector: its length, then the offset.
            offset = int(call.arguments.rsplit("]", 1)[1].removeprefix(", ").split(", ")[1])
            self._write(call, opened, None if offset < 0 else offset)

    _on_pwritev2 = _on_pwritev

    def _on_lseek(self, call: Call) -> None:
        opened = self._opened(call, plain(call.arguments)[0])
        if opened is not None:
            opened.position = call.result or 0

    def _resize(self, call: Call, number: int, size: int, path: str) -> None:
        content = self._inodes[number].content
        assert content is not None
        del content[size:]
        content.extend(bytes(size - len(content)))
        self._note(call, Resize(inode=number, size=size), path)

    def _on_ftruncate(self, call: Call) -> None:
        opened = self._opened(call, plain(call.arguments)[0])
        if opened is not None:
            self._resize(call, opened.inode, int(plain(call.arguments)[1]), self._path_of(call))

    def _on_truncate(self, call: Call) -> None:
        path = os.fsdecode(texts(call.arguments)[0])
        number = self._find(path)
        if number is not None:
            self._resize(call, number, int(after_texts(call.arguments)[0]), path)

    def _on_fallocate(self, call: Call) -> None:
        first, mode, offset, length = plain(call.arguments)
        opened = self._opened(call, first)
        if opened is None or ("KEEP_SIZE" in mode and "PUNCH" not in mode):
            return
        if mode != "0":
            raise Unsupported(f"fallocate with {mode}.")
        content = self._inodes[opened.inode].content
        if content is not None and int(offset) + int(length) > len(content):
            self._resize(call, opened.inode, int(offset) + int(length), self._path_of(call))

    def _on_rename(self, call: Call) -> None:
        old, new = texts(call.arguments)
        self._rename(call, os.fsdecode(old), os.fsdecode(new))

    def _on_renameat(self, call: Call) -> None:
        old, new = texts(call.arguments)
        bases = re.split(r'"[^"]*"', call.arguments)
        one, other = descriptor(bases[0].rstrip(", ")), descriptor(bases[1].strip(", "))
        if "RENAME_EXCHANGE" in call.arguments:
            raise Unsupported("renameat2 with RENAME_EXCHANGE.")
        self._rename(call, self._absolute(one, old), self._absolute(other, new))

    _on_renameat2 = _on_renameat

    def _rename(self, call: Call, old: str, new: str) -> None:
        source, target = self._place(old), self._place(new)
        if source is None and target is None:
            return
        if source is None or target is None:
            raise Unsupported(f"A rename across the folder's border: {old} to {new}.")
        number = self._inodes[source[0]].names.pop(source[1])
        self._inodes[target[0]].names[target[1]] = number
        self._note(call, Rename(source=source[0], old=source[1], target=target[0], new=target[1], inode=number), new)

    def _on_unlink(self, call: Call) -> None:
        self._unlink(call, os.fsdecode(texts(call.arguments)[0]))

    _on_rmdir = _on_unlink

    def _on_unlinkat(self, call: Call) -> None:
        base = descriptor(call.arguments.split(", ", 1)[0])
        self._unlink(call, self._absolute(base, texts(call.arguments)[0]))

    def _unlink(self, call: Call, path: str) -> None:
        place = self._place(path)
        if place is not None:
            del self._inodes[place[0]].names[place[1]]
            self._note(call, Unlink(folder=place[0], name=place[1]), path)

    def _on_link(self, call: Call) -> None:
        old, new = texts(call.arguments)
        self._hard_link(call, os.fsdecode(old), os.fsdecode(new))

    def _on_linkat(self, call: Call) -> None:
        old, new = texts(call.arguments)
        bases = re.split(r'"[^"]*"', call.arguments)
        one, other = descriptor(bases[0].rstrip(", ")), descriptor(bases[1].strip(", "))
        if old == b"" and one is not None:
            old = os.fsencode(f"/proc/self/fd/{one.number}")
        self._hard_link(call, self._absolute(one, old), self._absolute(other, new))

    def _hard_link(self, call: Call, old: str, new: str) -> None:
        place = self._place(new)
        if place is None:
            return
        behind = _PROC_FD.match(old)
        number = self._table(call.thread)[int(behind[1])].inode if behind else self._find(old)
        if number is None:
            raise Unsupported(f"A link to {old}, outside the folder.")
        self._link(call, place, number, new)

    def _on_symlink(self, call: Call) -> None:
        if self._relative(self._absolute(None, texts(call.arguments)[1])) is not None:
            raise Unsupported("A symbolic link in the folder.")

    _on_symlinkat = _on_symlink

    def _on_mkdir(self, call: Call) -> None:
        path = os.fsdecode(texts(call.arguments)[0])
        if self._relative(path):
            self._create(call, path, folder=True)

    def _on_mkdirat(self, call: Call) -> None:
        path = self._absolute(descriptor(call.arguments.split(", ", 1)[0]), texts(call.arguments)[0])
        if self._relative(path):
            self._create(call, path, folder=True)

    def _synced(self, call: Call) -> None:
        opened = self._opened(call, plain(call.arguments)[0])
        if opened is not None:
            self._note(call, Sync(inode=opened.inode), self._path_of(call))

    _on_fsync = _on_fdatasync = _synced

    def _on_syncfs(self, call: Call) -> None:
        if self._opened(call, plain(call.arguments)[0]) is not None:
            self._note(call, Sync(inode=None), self._path_of(call))

    def _on_sync(self, call: Call) -> None:
        self._note(call, Sync(inode=None))

    def _on_mmap(self, call: Call) -> None:
        arguments = plain(call.arguments)
        if "MAP_SHARED" in arguments[3] and "PROT_WRITE" in arguments[2]:
            self._forbid(call, arguments[4])

    def _on_copy_file_range(self, call: Call) -> None:
        self._forbid(call, plain(call.arguments)[2])

    def _on_sendfile(self, call: Call) -> None:
        self._forbid(call, plain(call.arguments)[0])

    def _forbid(self, call: Call, argument: str) -> None:
        meant = descriptor(argument)
        if meant is not None and self._relative(meant.path) and not meant.path.endswith(_VOLATILE):
            raise Unsupported(f"{call.name} changes {meant.path} past the record.")
