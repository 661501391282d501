"""Lines of strace as events, and what must not be overheard."""

import struct
from pathlib import Path

import pytest

from tests.powercut import choices, dimse, strace
from tests.powercut.disk import Disk
from tests.powercut.recorder import Recorder
from tests.powercut.strace import Unsupported
from tests.powercut.trace import Event, Link, Mark, Rename, Resize, Sync, Trace, Unlink, Write


def hexed(text: str | bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in (text.encode() if isinstance(text, str) else text))


class Script:
    """Writes lines as strace does; `{}` stands for the watched folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lines: list[str] = []

    def fd(self, number: int, name: str) -> str:
        return f"{number}<{hexed(f'{self.root}/{name}')}>"

    def path(self, name: str) -> str:
        return f'"{hexed(f"{self.root}/{name}")}"'

    def open(self, number: int, name: str, flags: str, *, thread: int = 7) -> None:
        self.lines.append(
            f"{thread}  openat(AT_FDCWD<{hexed('/')}>, {self.path(name)}, {flags}, 0600) = {self.fd(number, name)}"
        )

    def trace(self) -> Trace:
        recorder = Recorder(self.root, before={})
        recorder.read(lambda: self.lines)
        return recorder.trace()

    def events(self) -> list[Event]:
        """Without the one that makes the folder itself durable."""
        return list(self.trace().events[1:])


def command(field: int, status: int | None, uid: str) -> bytes:
    """A P-DATA-TF with one command fragment."""
    value = uid.encode() + b"\0" * (len(uid) % 2)
    content = struct.pack("<HHLH", 0, 0x0100, 2, field)
    content += struct.pack("<HHL", 0, 0x1000, len(value)) + value
    if status is not None:
        content += struct.pack("<HHLH", 0, 0x0900, 2, status)
    return struct.pack(">BxLLBB", 4, len(content) + 6, len(content) + 2, 1, 3) + content


def test_the_literal_order(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.open(5, "a.part", "O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC")
    script.lines += [
        f'7  write({script.fd(5, "a.part")}, "{hexed("abc")}", 3) = 3',
        f'7  write({script.fd(5, "a.part")}, "{hexed("def")}", 3) = 2',
        f"7  fdatasync({script.fd(5, 'a.part')} <unfinished ...>",
        "8  +++ exited with 0 +++",
        "7  <... fdatasync resumed>)          = 0",
        f"7  close({script.fd(5, 'a.part')}) = 0",
        f"7  rename({script.path('a.part')}, {script.path('a')}) = 0",
    ]
    script.open(5, "", "O_RDONLY|O_DIRECTORY|O_CLOEXEC")
    script.lines += [
        f"7  fsync({script.fd(5, '')}) = 0",
        f'7  sendto(9<{hexed("socket:[4]")}>, "{hexed(command(0x8001, 0, "1.2.3"))}", 64, 0, NULL, 0) = 64',
        f"7  unlink({script.path('a')}) = 0",
    ]
    events = script.events()
    assert [event.op for event in events] == [
        Link(folder=0, name="a.part", inode=1),
        Write(inode=1, offset=0, data=b"abc"),
        Write(inode=1, offset=3, data=b"de"),
        Sync(inode=1),
        Rename(source=0, old="a.part", target=0, new="a", inode=1),
        Sync(inode=0),
        Mark(kind="acknowledged", sop_instance_uid="1.2.3"),
        Unlink(folder=0, name="a"),
    ]
    assert events[3].done - events[3].at == 2
    assert events[4].path == "a"


def test_vectors_offsets_and_sizes(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.open(5, "log", "O_RDWR|O_CREAT|O_CLOEXEC")
    log = script.fd(5, "log")
    vector = f'[{{iov_base="{hexed("ab")}", iov_len=2}}, {{iov_base="{hexed("cd")}", iov_len=2}}], 2'
    script.lines += [
        f"7  fallocate({log}, 0, 0, 4096) = 0",
        f"7  pwritev({log}, {vector}, 512) = 4",
        f"7  pwritev2({log}, {vector}, 1024, RWF_DSYNC) = 4",
        f'7  pwrite64({log}, "{hexed("x")}", 1, 4096) = 1',
        f"7  ftruncate({log}, 100) = 0",
        f"7  syncfs({log}) = 0",
        f"7  fdatasync({log}) = -1 EIO (Input/output error)",
    ]
    assert [event.op for event in script.events()[1:]] == [
        Resize(inode=1, size=4096),
        Write(inode=1, offset=512, data=b"abcd"),
        Write(inode=1, offset=1024, data=b"abcd"),
        Sync(inode=1),
        Write(inode=1, offset=4096, data=b"x"),
        Resize(inode=1, size=100),
        Sync(inode=None),
    ]


def test_threads_share_descriptors_and_children_inherit_them(tmp_path: Path) -> None:
    """1. a thread opens; 2. its sibling writes before the birth of the sibling has returned; 3. a child writes."""
    script = Script(tmp_path)
    script.lines.append("7  clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD, stack=0x1}, 88 <unfinished ...>")
    script.open(5, "a", "O_WRONLY|O_CREAT|O_CLOEXEC")
    script.lines += [
        f'8  write({script.fd(5, "a")}, "{hexed("ab")}", 2) = 2',
        "7  <... clone3 resumed> => {parent_tid=[8]}, 88) = 8",
        "8  clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD) = 9",
        f'9  write({script.fd(5, "a")}, "{hexed("cd")}", 2) = 2',
        f"9  close({script.fd(5, 'a')}) = 0",
        f'7  write({script.fd(5, "a")}, "{hexed("ef")}", 2) = 2',
    ]
    writes = [event.op for event in script.events() if isinstance(event.op, Write)]
    assert [(write.offset, write.data) for write in writes] == [(0, b"ab"), (2, b"cd"), (4, b"ef")]


def test_a_number_is_free_before_its_close_has_returned(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.lines.append("7  clone(flags=CLONE_FILES) = 8")
    script.open(5, "a", "O_WRONLY|O_CREAT|O_CLOEXEC")
    script.lines.append(f"7  close({script.fd(5, 'a')} <unfinished ...>")
    script.open(5, "b", "O_WRONLY|O_CREAT|O_CLOEXEC", thread=8)
    script.lines += ["7  <... close resumed>) = 0", f'8  write({script.fd(5, "b")}, "{hexed("x")}", 1) = 1']
    assert script.events()[-1].op == Write(inode=2, offset=0, data=b"x")


def test_a_nameless_file_gets_a_name(tmp_path: Path) -> None:
    script = Script(tmp_path)
    nameless = f"6<{hexed(f'{tmp_path}/#12')}>(deleted)"
    script.lines += [
        f"7  openat(AT_FDCWD<{hexed('/')}>, {script.path('')}, O_RDWR|O_CLOEXEC|O_TMPFILE, 0600) = {nameless}",
        f'7  write({nameless}, "{hexed("x")}", 1) = 1',
        f'7  linkat(AT_FDCWD<{hexed("/")}>, "{hexed("/proc/self/fd/6")}", AT_FDCWD<{hexed("/")}>, '
        f"{script.path('a')}, AT_SYMLINK_FOLLOW) = 0",
    ]
    assert [event.op for event in script.events()] == [
        Write(inode=1, offset=0, data=b"x"),
        Link(folder=0, name="a", inode=1),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, {}, 0) = 0x7f00",
        "copy_file_range(3<\\x2f\\x61>, NULL, {}, NULL, 10, 0) = 10",
        "sendfile({}, 3<\\x2f\\x61>, NULL, 10) = 10",
        'write({}, "\\x61", 1 <unfinished ...>) = ?',
        'write(6<\\x2f\\x61>, "\\x61", 1) = 1',
    ],
)
def test_what_cannot_be_followed_is_refused(line: str, tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.open(5, "a", "O_RDWR|O_CREAT|O_CLOEXEC")
    script.lines.append("7  " + line.replace("{}", script.fd(5, "a")).replace("6<\\x2f\\x61>", script.fd(6, "a")))
    with pytest.raises(Unsupported):
        script.trace()


def test_a_record_that_misses_a_write_is_refused(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.open(5, "a", "O_RDWR|O_CREAT|O_CLOEXEC")
    recorder = Recorder(tmp_path, before={})
    recorder.read(lambda: script.lines)
    (tmp_path / "a").touch()
    recorder.verify()
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(Unsupported, match=r"\['a'\]"):
        recorder.verify()


def test_what_lay_there_before_is_durable(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, before={"f": None, "f/a": b"old", "n-shm": b"x"})
    script = Script(tmp_path)
    script.open(5, "f/a", "O_RDWR|O_CLOEXEC")
    script.lines.append(f'7  pwrite64({script.fd(5, "f/a")}, "{hexed("n")}", 1, 0) = 1')
    recorder.read(lambda: script.lines)
    disk = Disk(recorder.trace())
    assert disk.after(recorder.trace().end, choices.nothing()) == {"f": None, "f/a": b"old"}
    assert disk.after(recorder.trace().end, choices.everything()) == {"f": None, "f/a": b"nld"}


def test_shared_memory_of_the_database_is_left_out(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.open(5, "n-shm", "O_RDWR|O_CREAT|O_CLOEXEC")
    script.lines += [
        f"7  ftruncate({script.fd(5, 'n-shm')}, 3) = 0",
        f"7  mmap(NULL, 9, PROT_READ|PROT_WRITE, MAP_SHARED, {script.fd(5, 'n-shm')}, 0) = 0x7f",
        f"7  unlink({script.path('n-shm')}) = 0",
    ]
    assert script.events() == []


@pytest.mark.parametrize(
    ("field", "status", "acknowledges", "announces"),
    [
        (0x8001, 0x0000, True, False),
        (0x8001, 0xB000, True, False),
        (0x8001, 0xA700, False, False),
        (0x8001, 0xC000, False, False),
        (0x0001, None, False, True),
        (0x8030, 0x0000, False, False),
    ],
)
def test_words_given_on_the_wire(field: int, status: int | None, acknowledges: bool, announces: bool) -> None:
    (message,) = dimse.messages(command(field, status, "1.2.840.1"))
    assert (message.acknowledges, message.announces) == (acknowledges, announces)
    assert message.sop_instance_uid == "1.2.840.1"


@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0\0\4abcd", b"HTTP/1.1 200", command(1, None, "1.2")[:9]])
def test_other_bytes_give_no_word(content: bytes) -> None:
    assert not any(message.announces or message.acknowledges for message in dimse.messages(content))


def test_a_line_that_is_not_understood_is_refused() -> None:
    with pytest.raises(Unsupported, match="not understood"):
        list(strace.read(["7  write(1, strange"]))
