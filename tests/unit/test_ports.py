"""Ports that tests and demo give to programs before they start."""

import socket

import pytest

from demo import ports


def test_a_port_is_given_once_and_its_program_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ports.free_port()
    monkeypatch.setattr(ports, "_LOW", first)
    # So few that chance alone would give one twice, and enough that other programs leave some.
    monkeypatch.setattr(ports, "_HIGH", first + 64)
    given = [ports.free_port() for _ in range(32)]
    assert len({first, *given}) == 33
    for port in given:
        # Who looks as `free_port` does, in any process, finds it taken.
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        assert not ports.listens(port)
        with socket.create_server(("127.0.0.1", port)):
            assert ports.listens(port)


def test_only_the_last_ones_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", type(ports._given)(maxlen=2))
    first, second, third = (ports.free_port() for _ in range(3))
    assert [held.getsockname()[1] for held in ports._given] == [second, third]
    with socket.socket() as other:
        other.bind(("127.0.0.1", first))
