"""Which destinations get the results of a study."""

from collections.abc import Sequence
from dataclasses import dataclass

from dicomguard.core.peer import Destination

RETURN_TO_SENDER = "sender"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Results of studies that came from these AE titles go to these destinations."""

    name: str
    # Calling AE titles; empty for every sender, uploads included.
    calling_ae_titles: tuple[str, ...] = ()
    # Categories of core.verdict; empty for all.
    categories: tuple[str, ...] = ()
    # Names of destinations; "sender" is the first destination whose AE title called.
    to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A destination, and the route that chose it."""

    destination: Destination
    route: str


def decide(
    *, calling_ae: str, category: str, routes: Sequence[Route], destinations: Sequence[Destination]
) -> tuple[Chosen, ...]:
    """All destinations of matching routes in order, each once; an upload ("") has no sender to return to."""
    by_name = {destination.name: destination for destination in destinations}
    # Two of one AE title: the first has it, as for answers about storage commitment.
    by_title = {destination.ae_title: destination for destination in reversed(destinations)}
    chosen: dict[str, Chosen] = {}
    for route in routes:
        if route.calling_ae_titles and calling_ae not in route.calling_ae_titles:
            continue
        if route.categories and category not in route.categories:
            continue
        for name in route.to:
            destination = by_title.get(calling_ae) if name == RETURN_TO_SENDER else by_name.get(name)
            if destination is not None:
                chosen.setdefault(destination.name, Chosen(destination=destination, route=route.name))
    return tuple(chosen.values())
