"""What receiver processes share: counts of connections over all of them, and ports."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from demo.ports import free_port
from dicomguard.config import Config, Node, Receive
from dicomguard.core.peer import Peer
from dicomguard.errors import Unavailable
from dicomguard.scp.guard import Caps, Guard
from dicomguard.scp.shared import Inherited, Shared, Tally, processes

PEER = Peer(name="ct", ae_title="CT", networks=("10.0.0.0/8",))


class Silent:
    """A connection of which only address and end matter."""

    def __init__(self, address: str = "10.0.0.1") -> None:
        self.address = address
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


def configured(count: int, *, tls_port: int = 0) -> Config:
    config = Config(node=Node(port=free_port()), receive=Receive(processes=count))
    return replace(config, tls=replace(config.tls, port=tls_port))


def inherited(shared: Shared, number: int) -> Inherited:
    """As a process of its own gets it: descriptors that it may close."""
    given = Inherited.of_text(shared.argument(number))
    return replace(given, tally=os.dup(given.tally), ports={kind: os.dup(at) for kind, at in given.ports.items()})


@pytest.fixture
def shared() -> Iterator[Shared]:
    made = Shared(configured(2))
    yield made
    made.close()


def tallies(shared: Shared) -> list[Tally]:
    return [inherited(shared, number).open_tally() for number in (0, 1)]


def test_a_cap_holds_over_all_processes(shared: Shared) -> None:
    first, second = (Guard(Caps(associations=3, associations_per_peer=2), [PEER], tally) for tally in tallies(shared))
    one, two = Silent(), Silent()
    assert [first.associate(one, "ct"), second.associate(two, "ct")] == ["", ""]
    assert [first.associate(Silent(), "ct"), second.associate(Silent(), "ct")] == ["peer", "peer"]
    assert second.associate(Silent(), "mr") == ""
    assert first.associate(Silent(), "mr") == "all"
    second.leave(two)
    assert first.associate(Silent(), "ct") == ""


def test_what_a_dead_process_had_is_free_again(shared: Shared) -> None:
    dead, alive = (Guard(Caps(associations_per_peer=1), [PEER], tally) for tally in tallies(shared))
    assert dead.associate(Silent(), "ct") == ""
    assert alive.associate(Silent(), "ct") == "peer"
    shared.forget(0)
    assert alive.associate(Silent(), "ct") == ""


def test_silent_connections_of_one_address_are_counted_together_and_the_oldest_of_the_process_goes(
    shared: Shared,
) -> None:
    first, second = (Guard(Caps(waiting_per_address=3), [PEER], tally) for tally in tallies(shared))
    mine = [Silent(), Silent()]
    assert all(map(first.enter, mine))
    theirs = Silent()
    assert second.enter(theirs)
    assert first.enter(Silent())
    assert [one.evicted for one in (*mine, theirs)] == [True, False, False]
    # Another address is not concerned.
    other = Silent("10.0.0.2")
    assert second.enter(other)
    assert not other.evicted
    assert not theirs.evicted


def test_strangers_are_few_over_all_processes(shared: Shared) -> None:
    first, second = (Guard(Caps(strangers=2), [PEER], tally) for tally in tallies(shared))
    one = Silent("192.0.2.1")
    assert first.enter(one)
    assert second.enter(Silent("192.0.2.2"))
    assert not first.admits("192.0.2.3")
    assert not second.enter(Silent("192.0.2.3"))
    first.leave(one)
    assert second.enter(Silent("192.0.2.3"))


def test_how_often_an_address_connects_is_counted_together_however_it_is_split(shared: Shared) -> None:
    first, second = (Guard(Caps(connections_per_s=2), [PEER], tally) for tally in tallies(shared))

    def turns(*asked: Guard, now: float) -> list[float | None]:
        return [one.turn("10.0.0.1", secured=False, held=0, now=now) for one in asked]

    # Five seconds' worth at once, two that wait up to a second, and no more, whoever is asked.
    assert turns(*[first] * 9, second, now=1000) == [0.0] * 10
    assert turns(second, first, second, first, now=1000) == [0.5, 1.0, None, None]
    # In the two seconds after that four come back.
    assert turns(second, first, second, second, second, now=1002) == [0.0, 0.0, 0.5, 1.0, None]
    # Another address, and the port with TLS, are not concerned.
    assert first.turn("10.0.0.2", secured=False, held=0, now=1002) == 0.0
    assert second.turn("10.0.0.1", secured=True, held=0, now=1002) == 0.0


def test_a_connection_of_the_shared_port_waits_for_whoever_accepts(shared: Shared) -> None:
    listeners = [inherited(shared, number).listeners()["node"] for number in (0, 1)]
    port = listeners[0].getsockname()[1]
    # Bound is not open: nobody is let in before the log is replayed.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    listeners[0].listen()
    listeners[0].close()
    with socket.create_connection(("127.0.0.1", port), timeout=5), listeners[1].accept()[0]:
        pass
    listeners[1].close()


def test_a_port_that_is_taken_is_said() -> None:
    config = configured(2)
    with socket.create_server(("127.0.0.1", config.node.port)), pytest.raises(Unavailable, match="Choose another"):
        Shared(config)


def test_by_itself_a_node_takes_two_processors_at_most() -> None:
    assert processes(configured(0)) == min(2, len(os.sched_getaffinity(0)))
    assert processes(configured(5)) == 5
