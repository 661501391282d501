"""Routing: who gets which results."""

import pytest

from dicomguard.core.peer import Destination
from dicomguard.core.routing import Route, decide

PACS = Destination(name="pacs", ae_title="PACS", host="h", port=104)
CT = Destination(name="ct", ae_title="CT01", host="h", port=105)


def route(*to: str, titles: tuple[str, ...] = (), categories: tuple[str, ...] = ()) -> Route:
    """A route named by its targets."""
    return Route(name="+".join(to), to=to, calling_ae_titles=titles, categories=categories)


@pytest.mark.parametrize(
    ("calling", "category", "routes", "names"),
    [
        ("CT01", "real", (), []),
        ("CT01", "real", (route("pacs"),), ["pacs"]),
        ("CT01", "real", (route("sender"),), ["ct"]),
        # An upload, and a sender that is no destination, have nobody to return to.
        ("", "real", (route("sender"),), []),
        ("MR01", "real", (route("sender"),), []),
        ("CT01", "real", (route("pacs", titles=("MR01",)),), []),
        ("CT01", "real", (route("pacs", categories=("added",)),), []),
        ("CT01", "added", (route("pacs", categories=("added",)), route("pacs", "sender")), ["pacs", "ct"]),
    ],
)
def test_table(calling: str, category: str, routes: tuple[Route, ...], names: list[str]) -> None:
    chosen = decide(calling_ae=calling, category=category, routes=routes, destinations=(PACS, CT))
    assert [one.destination.name for one in chosen] == names


def test_the_first_route_is_named_as_the_reason() -> None:
    first, second = route("pacs", titles=("CT01",)), route("pacs", "ct")
    chosen = decide(calling_ae="CT01", category="real", routes=(first, second), destinations=(PACS, CT))
    assert chosen[0].route == "pacs"


def test_of_two_destinations_with_one_title_the_first_is_the_sender() -> None:
    """As when it is answered about storage commitment, and as of two peers."""
    second = Destination(name="second", ae_title="CT01", host="i", port=105)
    chosen = decide(calling_ae="CT01", category="real", routes=(route("sender"),), destinations=(CT, second))
    assert [one.destination.name for one in chosen] == ["ct"]
