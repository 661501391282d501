"""What replays that died leave for the next one: a record at which two died is condemned, and no other."""

from pathlib import Path

import pytest

from dicomguard.errors import Unavailable
from dicomguard.store.disk import Died, FakeDisk
from dicomguard.store.log_records import Logged
from dicomguard.store.trial import NAME, Trial


def record(number: int) -> Logged:
    sha256 = f"{number:02x}" * 32
    return Logged(row={}, sha256=sha256, sequence=1, segment=Path(), offset=0, size_bytes=0, head_bytes=0)


def die(folder: Path, *at: int) -> None:
    """A replay that notes these and dies at the last."""
    with pytest.raises(Died), Trial(FakeDisk(), folder) as trial:
        for number in at:
            trial.note(record(number))
        raise Died


def condemned(folder: Path) -> list[int]:
    trial = Trial(FakeDisk(), folder)
    return [number for number in range(1, 6) if trial.condemns(record(number))]


def test_two_deaths_at_one_record_condemn_it(tmp_path: Path) -> None:
    die(tmp_path)
    assert Trial(FakeDisk(), tmp_path).deaths == 1
    die(tmp_path, 1, 2)
    assert condemned(tmp_path) == []
    die(tmp_path, 1, 2)
    assert condemned(tmp_path) == [2]
    # It is not forgotten when others are filed before it, or when something else ends the next replay early.
    die(tmp_path, 1)
    assert Trial(FakeDisk(), tmp_path).deaths == 4


def test_deaths_at_other_records_condemn_none(tmp_path: Path) -> None:
    for at in (1, 2, 3, 1, 2, 3):
        die(tmp_path, at)
    assert condemned(tmp_path) == []


def test_an_exception_is_no_death(tmp_path: Path) -> None:
    die(tmp_path, 2)
    for _ in range(3):
        with pytest.raises(Unavailable), Trial(FakeDisk(), tmp_path) as trial:
            trial.note(record(2))
            raise Unavailable("The database is away.")
    assert Trial(FakeDisk(), tmp_path).deaths == 1
    assert condemned(tmp_path) == []
    die(tmp_path, 2)
    assert condemned(tmp_path) == [2]


def test_an_end_leaves_nothing(tmp_path: Path) -> None:
    die(tmp_path, 2)
    with Trial(FakeDisk(), tmp_path) as trial:
        trial.note(record(2))
    assert not (tmp_path / NAME).exists()


def test_a_torn_note_is_none(tmp_path: Path) -> None:
    die(tmp_path, 2)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:50])
    assert Trial(FakeDisk(), tmp_path).deaths == 0
