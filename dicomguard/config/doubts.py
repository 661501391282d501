"""What a sound configuration names and a node would not find, or would never use."""

from collections.abc import Iterator

from dicomguard.config.sections import LOOPBACK, Config
from dicomguard.core.routing import RETURN_TO_SENDER


def doubts(config: Config) -> list[str]:
    """Sentences for a person; empty when nothing is doubtful. Looks whether the files are there, opens none."""
    return [*_files(config), *_titles(config), *_page(config)]


def _files(config: Config) -> Iterator[str]:
    named = {
        "certificate of [tls]": config.tls.certificate,
        "key of [tls]": config.tls.key,
        "authorities of [tls]": config.tls.authorities,
        "password_file of [database]": config.database.password_file,
        "weights of [analysis]": config.analysis.weights,
    }
    for name, path in named.items():
        if path is not None and not path.is_file():
            yield f"{name} names {path}, where no file is. Correct the path, or put the file there."
    archive = config.retrain.archive
    if archive is not None and not archive.is_dir():
        yield f"archive of [retrain] names {archive}, where no folder is. Add cases with: dicomguard archive add."


def _titles(config: Config) -> Iterator[str]:
    senders = {peer.ae_title for peer in config.peers}
    receivers = {destination.ae_title for destination in config.destinations}
    routed = {name for route in config.routes for name in route.to}
    for route in config.routes:
        for title in route.calling_ae_titles:
            if title not in senders:
                yield f'Route "{route.name}" is for the sender {title}, which no peer is. Correct it, or add the peer.'
        if RETURN_TO_SENDER in route.to:
            for title in sorted((set(route.calling_ae_titles) or senders) - receivers):
                yield (
                    f'Route "{route.name}" returns results to the sender, but no destination is {title}. '
                    "Add a section [destinations.NAME] with its AE title, host and port."
                )
    for title in sorted(receivers):
        names = [destination.name for destination in config.destinations if destination.ae_title == title]
        if len(names) > 1:
            yield (
                f"Destinations {' and '.join(names)} have one AE title, {title}, so what goes back to that AE goes to "
                f"{names[0]}. Correct the title, or move the section that is meant before the others."
            )
    for destination in config.destinations:
        # That of a peer may be there for our answers to its requests for storage commitment.
        if destination.name not in routed and destination.ae_title not in senders:
            yield f"No route leads to the destination {destination.name}, so it gets nothing. Add it to a [[routes]]."
        if destination.commitment and destination.ae_title not in senders:
            yield (
                f"{destination.name} is asked for storage commitment, but is no peer, so a report that comes later is "
                f'refused. Add a section [peers.NAME] with ae_title = "{destination.ae_title}" and its address.'
            )


def _page(config: Config) -> Iterator[str]:
    if config.web.host in LOOPBACK:
        return
    yield f"The page is open to the network at {config.web.host} without TLS. Put a proxy with TLS before it."
    if not config.web.allowed_hosts:
        yield "allowed_hosts of [web] is empty, so the page answers by no name but localhost. Add its names."
