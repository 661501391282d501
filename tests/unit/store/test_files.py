import errno
import shutil
from pathlib import Path

import pytest

from dicomguard.errors import Refused, Unavailable
from dicomguard.store.files import Died, FakeDisk, lock_folder, remove_leftovers, write_durably, write_loosely


def test_a_whole_file_or_none(tmp_path: Path) -> None:
    disk = FakeDisk()
    path = write_durably(disk, tmp_path, "a/b/c.bin", [b"one", b"two"])
    assert path.read_bytes() == b"onetwo"
    assert disk.steps[-4:-2] == ["sync_folder", "sync_folder"]
    assert disk.steps[-2:] == ["rename", "sync_folder"]
    assert disk.steps.index("sync") > disk.steps.index("write")


@pytest.mark.parametrize("step", ["write", "sync", "rename"])
def test_a_writer_that_dies_before_the_rename_leaves_no_final_file(tmp_path: Path, step: str) -> None:
    disk = FakeDisk()
    write_durably(disk, tmp_path, "a/first", [b"1"])
    disk.die_before = step
    with pytest.raises(Died):
        write_durably(disk, tmp_path, "a/second", [b"2"])
    assert not (tmp_path / "a/second").exists()


def test_an_existing_file_is_replaced_whole(tmp_path: Path) -> None:
    disk = FakeDisk()
    write_durably(disk, tmp_path, "f", [b"old"])
    disk.die_before = "rename"
    with pytest.raises(Died):
        write_durably(disk, tmp_path, "f", [b"new"])
    assert (tmp_path / "f").read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failed_flush_is_an_error_and_not_tried_again(tmp_path: Path, number: int) -> None:
    disk = FakeDisk()
    disk.sync_fails = number
    with pytest.raises(Unavailable, match="try again"):
        write_durably(disk, tmp_path, "f", [b"x"])
    assert disk.steps.count("sync") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_leftovers_of_dead_writers_go_and_young_ones_stay(tmp_path: Path) -> None:
    incoming = tmp_path / "store/incoming/receiver-1"
    incoming.mkdir(parents=True)
    (incoming / "a.part").write_bytes(b"x")
    written = (incoming / "a.part").stat().st_mtime
    assert remove_leftovers(tmp_path, older_than=written - 1) == 0
    assert remove_leftovers(tmp_path, older_than=written + 1) == 1


def test_a_file_that_another_process_finishes_meanwhile_is_no_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed, and renamed to its place before it is looked at, as happens at a start under load."""
    incoming = tmp_path / "store/incoming"
    incoming.mkdir(parents=True)
    (incoming / "old.part").write_bytes(b"x")
    listed = [incoming / "gone.part", incoming / "old.part"]
    monkeypatch.setattr(Path, "rglob", lambda *_: iter(listed))
    # `is_file` of 3.11 answers from a moment before the look at its time.
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert remove_leftovers(tmp_path, older_than=(incoming / "old.part").stat().st_mtime + 1) == 1
    assert not (incoming / "old.part").exists()


def test_a_state_folder_has_one_owner(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "state"), pytest.raises(Refused, match="in use"), lock_folder(tmp_path / "state"):
        pass
    with lock_folder(tmp_path / "state"):
        pass


def test_a_folder_that_is_there_is_flushed_before_a_file_in_it_counts(tmp_path: Path) -> None:
    """The filer makes folders without a flush, and so does a process that dies before its own."""
    disk = FakeDisk()
    write_loosely(disk, tmp_path, "a/b/first", [b"1"])
    assert "sync_folder" not in disk.steps
    disk.steps.clear()
    write_durably(disk, tmp_path, "a/b/second", [b"2"])
    # The names store, incoming, a and b, and the file's.
    assert disk.steps.count("sync_folder") == 5
    disk.steps.clear()
    write_durably(disk, tmp_path, "a/b/third", [b"3"])
    assert disk.steps.count("sync_folder") == 1
    shutil.rmtree(tmp_path / "a")
    write_loosely(disk, tmp_path, "a/b/again", [b"4"])
    disk.steps.clear()
    write_durably(disk, tmp_path, "a/b/fifth", [b"5"])
    assert disk.steps.count("sync_folder") == 3


def test_a_state_folder_that_cannot_be_made_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Refused, match=r"cannot be used: .* state in"), lock_folder(place):
            pass
