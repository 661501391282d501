from dataclasses import dataclass

from dicomguard.core.peer import Peer
from dicomguard.scp.guard import Caps, Guard

PEERS = [
    Peer(name="ct1", ae_title="CT1", networks=("192.0.2.0/24",)),
    Peer(name="mr1", ae_title="MR1", networks=("198.51.100.7",)),
]


@dataclass(eq=False)
class Fake:
    """A connection that notes its end."""

    address: str = "192.0.2.1"
    evicted: bool = False

    def evict(self) -> None:
        self.evicted = True


def guard(**caps: int) -> Guard:
    return Guard(Caps(**caps), PEERS)


def test_the_oldest_silent_connection_of_an_address_goes_for_a_newcomer() -> None:
    judge = guard(waiting_per_address=3)
    first, second, third, other = Fake(), Fake(), Fake(), Fake("192.0.2.2")
    assert all(judge.enter(connection) for connection in (first, other, second, third, Fake()))
    assert [first.evicted, second.evicted, third.evicted, other.evicted] == [True, False, False, False]
    judge.enter(Fake())
    assert second.evicted
    assert judge.counts == (4, 0)


def test_the_oldest_of_all_goes_when_all_places_are_taken() -> None:
    judge = guard(waiting=10)
    silent = [Fake(f"192.0.2.{number}") for number in range(1, 31)]
    assert all(judge.enter(connection) for connection in silent)
    assert [connection.evicted for connection in silent] == [True] * 20 + [False] * 10
    assert judge.counts == (10, 0)


def test_strangers_share_one_small_bucket_and_harm_nobody() -> None:
    judge = guard(strangers=2)
    good = Fake()
    assert judge.enter(good)
    strangers = [Fake(f"203.0.113.{number}") for number in range(50)]
    assert [judge.enter(stranger) for stranger in strangers] == [True, True] + [False] * 48
    assert not good.evicted
    judge.part(strangers[0])
    assert not judge.enter(Fake("203.0.113.99"))
    judge.leave(strangers[0])
    assert judge.enter(Fake("203.0.113.99"))


def test_places_of_associations_are_counted_per_peer_and_in_all() -> None:
    judge = guard(associations=5, associations_per_peer=3)
    ct = [Fake() for _ in range(4)]
    for connection in ct:
        judge.enter(connection)
    assert [judge.associate(connection, "ct1") for connection in ct] == ["", "", "", "peer"]
    mr = [Fake("198.51.100.7") for _ in range(3)]
    for connection in mr:
        judge.enter(connection)
    assert [judge.associate(connection, "mr1") for connection in mr] == ["", "", "all"]
    assert judge.counts == (2, 5)
    judge.part(ct[0])
    assert judge.associate(mr[2], "mr1") == ""
    for connection in (*ct, *mr):
        judge.leave(connection)
    assert judge.counts == (0, 0)


def test_an_associated_connection_is_never_the_one_to_go() -> None:
    judge = guard(waiting=2, waiting_per_address=2)
    held = Fake()
    judge.enter(held)
    judge.associate(held, "ct1")
    for _ in range(20):
        judge.enter(Fake())
    assert not held.evicted


def test_those_that_do_not_close_after_the_last_word_do_not_pile_up() -> None:
    judge = guard(waiting=4, waiting_per_address=4)
    leaving = [Fake() for _ in range(10)]
    for connection in leaving:
        judge.enter(connection)
        judge.associate(connection, "ct1")
        judge.part(connection)
    assert [connection.evicted for connection in leaving] == [True] * 6 + [False] * 4
    newcomer = Fake()
    assert judge.enter(newcomer)
    assert not newcomer.evicted
