from dataclasses import dataclass

from dicomguard.core.arrivals import BURST_S, LONGEST_WAIT_S
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


def guard(**caps: float) -> Guard:
    return Guard(Caps(**caps), PEERS)


def flood(judge: Guard, address: str, *, seconds: int, secured: bool = False, held: int = 0) -> list[float | None]:
    """The turns of 200 connections a second."""
    return [judge.turn(address, secured=secured, held=held, now=1000 + number / 200) for number in range(200 * seconds)]


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


def test_an_address_that_floods_is_refused_and_the_others_do_not_notice() -> None:
    judge = guard(connections_per_s=20)
    turns = flood(judge, "192.0.2.1", seconds=10)
    assert sum(turn is None for turn in turns) >= 2000 - 20 * (10 + BURST_S + LONGEST_WAIT_S)
    assert sum(turn is not None for turn in turns) >= 20 * 10
    assert judge.turn("192.0.2.2", secured=False, held=0, now=1010) == 0.0
    assert judge.turn("198.51.100.7", secured=False, held=0, now=1010) == 0.0


def test_a_flood_on_the_plain_port_leaves_the_port_with_tls_open_to_the_same_address() -> None:
    judge = guard(connections_per_s=20)
    flood(judge, "192.0.2.1", seconds=5)
    assert judge.turn("192.0.2.1", secured=True, held=0, now=1005) == 0.0


def test_strangers_share_one_rate_and_never_wait() -> None:
    judge = guard(connections_per_s=20)
    turns = [
        judge.turn(f"203.0.113.{number % 250}", secured=False, held=0, now=1000 + number / 200)
        for number in range(2000)
    ]
    assert set(turns) == {0.0, None}
    # The rate goes on being served while they flood.
    assert sum(turn is not None for turn in turns[-200:]) in (19, 20, 21)


def test_none_waits_when_too_many_wait_already() -> None:
    judge = guard(connections_per_s=20, held=64)
    assert set(flood(judge, "192.0.2.1", seconds=3, held=64)) == {0.0, None}


def test_the_most_generous_peer_at_an_address_says_how_often_it_may_connect() -> None:
    here = Peer(name="gateway", ae_title="GATEWAY", networks=("192.0.2.1",), connections_per_s=500)
    free = Peer(name="free", ae_title="FREE", networks=("192.0.2.2",), connections_per_s=0)
    judge = Guard(Caps(connections_per_s=20), [*PEERS, here, free])
    assert set(flood(judge, "192.0.2.1", seconds=3)) == {0.0}
    assert set(flood(judge, "192.0.2.2", seconds=3)) == {0.0}
    assert None in flood(judge, "192.0.2.3", seconds=8)


def test_no_rate_is_no_limit() -> None:
    assert set(flood(guard(connections_per_s=0), "192.0.2.1", seconds=5)) == {0.0}


def test_an_address_that_floods_shuts_out_none_of_a_thousand_others() -> None:
    judge = Guard(Caps(connections_per_s=20), [Peer(name="all", ae_title="ALL", networks=("10.0.0.0/8",))])
    flood(judge, "10.0.0.1", seconds=5)
    others = [f"10.1.{number // 250}.{number % 250}" for number in range(1000)]
    assert {judge.turn(address, secured=False, held=0, now=1005) for address in others} == {0.0}
