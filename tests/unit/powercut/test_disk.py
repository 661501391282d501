"""The states that the model of the disk allows, on traces written by hand."""

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.powercut import choices
from tests.powercut.disk import SECTOR, Disk
from tests.powercut.trace import ROOT, Event, Link, Op, Rename, Resize, Sync, Trace, Unlink, Write

A, B, FOLDER = 1, 2, 3


def trace(*ops: Op) -> Trace:
    """One operation a line; a cut at n comes after the first n."""
    events = tuple(Event(at=line, done=line, op=op, path=str(line)) for line, op in enumerate(ops))
    return Trace(events=events, end=len(ops), folders=frozenset({ROOT, FOLDER}))


def states(made: Trace, cut: int, *, draws: int = 300) -> set[frozenset[tuple[str, bytes | None]]]:
    """Those that some draws reach."""
    rng = np.random.default_rng(0)
    disk = Disk(made)
    pending = disk.pending(cut)
    return {frozenset(disk.after(cut, choices.draw(pending, rng)).items()) for _ in range(draws)}


CREATE = Link(folder=ROOT, name="a", inode=A)


def test_what_was_synced_is_there_in_every_state() -> None:
    made = trace(CREATE, Write(inode=A, offset=0, data=b"x" * 600), Sync(inode=A), Sync(inode=ROOT))
    assert states(made, 4) == {frozenset({("a", b"x" * 600)})}


def test_a_sync_counts_once_it_has_returned() -> None:
    sync = Event(at=2, done=9, op=Sync(inode=A))
    events = (
        *trace(CREATE, Write(inode=A, offset=0, data=b"x")).events,
        sync,
        Event(at=3, done=3, op=Sync(inode=ROOT)),
    )
    made = Trace(events=tuple(sorted(events, key=lambda event: event.done)), end=10)
    assert {dict(state)["a"] for state in states(made, 9)} == {b"", b"\0", b"x"}
    assert states(made, 10) == {frozenset({("a", b"x")})}


def test_a_sync_covers_nothing_that_had_not_returned_when_it_was_entered() -> None:
    write = Event(at=1, done=5, op=Write(inode=A, offset=0, data=b"x"))
    events = (Event(at=0, done=0, op=CREATE), Event(at=2, done=3, op=Sync(inode=None)), write)
    assert len(states(Trace(events=events, end=9), 9)) == 3


def test_a_name_may_stand_before_its_content_and_content_never_without_its_name() -> None:
    made = trace(CREATE, Write(inode=A, offset=0, data=b"x"))
    # The size may be there before the byte.
    assert states(made, 2) == {frozenset(), *(frozenset({("a", content)}) for content in (b"", b"\0", b"x"))}


def test_two_writes_may_arrive_in_any_order() -> None:
    old, new = b"o" * 1024, b"n" * SECTOR
    made = trace(
        CREATE,
        Write(inode=A, offset=0, data=old),
        Sync(inode=None),
        Write(inode=A, offset=0, data=new),
        Write(inode=A, offset=SECTOR, data=new),
    )
    contents = {dict(state)["a"] for state in states(made, 5)}
    o, n = b"o" * SECTOR, b"n" * SECTOR
    assert contents == {o + o, n + o, o + n, n + n}


def test_a_write_may_be_torn_between_sectors_only() -> None:
    made = trace(
        CREATE,
        Write(inode=A, offset=0, data=bytes(4 * SECTOR)),
        Sync(inode=None),
        Write(inode=A, offset=100, data=b"n" * (3 * SECTOR)),
    )
    contents = [dict(state)["a"] or b"" for state in states(made, 4, draws=2000)]
    assert len(contents) == 16
    for content in contents:
        assert content[:100] == bytes(100)
        assert content[100:SECTOR] in (bytes(SECTOR - 100), b"n" * (SECTOR - 100))


def test_a_sector_written_twice_is_old_or_new_or_between_but_never_goes_back() -> None:
    made = trace(
        CREATE,
        Write(inode=A, offset=0, data=b"aa"),
        Sync(inode=None),
        Write(inode=A, offset=0, data=b"b"),
        Write(inode=A, offset=1, data=b"c"),
    )
    # "ac" never was in the page.
    assert {dict(state)["a"] for state in states(made, 5)} == {b"aa", b"ba", b"bc"}


def test_a_rename_is_there_or_not_and_its_content_may_be_missing() -> None:
    made = trace(
        CREATE, Sync(inode=ROOT), Write(inode=A, offset=0, data=b"x"),
        Rename(source=ROOT, old="a", target=ROOT, new="b", inode=A),
    )  # fmt: skip
    names = {frozenset(dict(state)) for state in states(made, 4)}
    # Never without both names.
    assert names == {frozenset("a"), frozenset("b"), frozenset("ab")}
    assert {dict(state).get("b") for state in states(made, 4)} == {None, b"", b"\0", b"x"}


def test_a_rename_across_folders_is_durable_by_the_sync_of_its_target() -> None:
    move = Rename(source=ROOT, old="a", target=FOLDER, new="b", inode=A)
    made = trace(Link(folder=ROOT, name="f", inode=FOLDER), CREATE, Sync(inode=ROOT), move, Sync(inode=FOLDER))
    assert {frozenset(dict(state)) for state in states(made, 5)} == {
        frozenset({"f", "f/b"}),
        frozenset({"f", "f/b", "a"}),
    }
    # A folder whose own name is lost takes all with it.
    lost = made.without(lambda event: event.path == "2")
    assert frozenset() in states(lost, 5)


def test_a_rename_over_a_file_leaves_the_old_or_the_new_one() -> None:
    made = trace(
        CREATE, Write(inode=A, offset=0, data=b"old"), Link(folder=ROOT, name="b", inode=B),
        Write(inode=B, offset=0, data=b"new"), Sync(inode=None),
        Rename(source=ROOT, old="b", target=ROOT, new="a", inode=B),
    )  # fmt: skip
    assert {dict(state)["a"] for state in states(made, 6)} == {b"old", b"new"}


def test_an_unlinked_file_may_come_back() -> None:
    made = trace(CREATE, Write(inode=A, offset=0, data=b"x"), Sync(inode=None), Unlink(folder=ROOT, name="a"))
    assert states(made, 4) == {frozenset(), frozenset({("a", b"x")})}
    assert states(trace(*(event.op for event in made.events), Sync(inode=ROOT)), 5) == {frozenset()}


def test_a_truncation_may_be_lost_and_what_it_uncovers_is_zero() -> None:
    made = trace(
        CREATE,
        Write(inode=A, offset=0, data=b"x" * 1000),
        Sync(inode=None),
        Resize(inode=A, size=10),
        Resize(inode=A, size=1500),
    )
    contents = {dict(state)["a"] or b"" for state in states(made, 5)}
    assert {len(content) for content in contents} == {10, 1000, 1500}
    assert b"x" * 10 + bytes(1490) in contents
    assert b"x" * 1000 in contents


DATA = st.tuples(st.just(A), st.integers(0, 3000), st.binary(min_size=1, max_size=900))


@given(
    ops=st.lists(
        st.one_of(
            DATA.map(lambda value: Write(inode=value[0], offset=value[1], data=value[2])),
            st.integers(0, 3000).map(lambda size: Resize(inode=A, size=size)),
            st.just(Sync(inode=A)),
        ),
        max_size=12,
    ),
    seed=st.integers(0, 99),
)
def test_every_sector_holds_one_of_its_versions(ops: list[Op], seed: int) -> None:
    """And the extremes are what their names say."""
    made = trace(CREATE, Sync(inode=ROOT), *ops)
    cut, disk = made.end, Disk(made)
    content = bytearray()
    versions, kept = [b""], b""
    for op in ops:
        match op:
            case Write():
                content.extend(bytes(max(0, op.offset - len(content))))
                content[op.offset : op.offset + len(op.data)] = op.data
            case Resize():
                del content[op.size :]
                content.extend(bytes(op.size - len(content)))
            case _:
                kept, versions = bytes(content), []
        versions.append(bytes(content))
    assert disk.after(cut, choices.everything())["a"] == bytes(content)
    assert disk.after(cut, choices.nothing())["a"] == kept
    found = disk.after(cut, choices.draw(disk.pending(cut), np.random.default_rng(seed)))["a"] or b""
    assert len(found) in {len(version) for version in versions}
    sector: Callable[[bytes, int], bytes] = lambda value, place: value[place : place + SECTOR].ljust(SECTOR, b"\0")  # noqa: E731
    for place in range(0, len(found), SECTOR):
        length = min(SECTOR, len(found) - place)
        assert sector(found, place)[:length] in {sector(version, place)[:length] for version in versions}
