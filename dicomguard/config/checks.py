"""Facts about a configuration that span several keys."""

import re
import zoneinfo
from typing import get_args

from dicomguard.config.sections import LOOPBACK, Config
from dicomguard.config.source import Source, nearest
from dicomguard.core.routing import RETURN_TO_SENDER
from dicomguard.core.verdict import Category
from dicomguard.errors import Refused


def check(config: Config, source: Source) -> None:
    """Raise `Refused` with the line where they contradict each other."""
    if not 1 <= len(config.node.name) <= 64 or "\\" in config.node.name:
        # It becomes Device Serial Number (LO) of every result.
        raise Refused(f"{source.at('node', 'name')}: name has 1 to 64 characters and no backslash. Shorten it.")
    if not config.peers and config.node.host not in LOOPBACK:
        raise Refused(
            f'{source.at("node", "host")}: host = "{config.node.host}" opens the receiver to the network, but no peer '
            "is named. Add a section [peers.NAME] with ae_title and addresses first."
        )
    try:
        zoneinfo.ZoneInfo(config.node.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise Refused(
            f'{source.at("node", "timezone")}: there is no time zone "{config.node.timezone}". '
            "Write for example Europe/Berlin."
        ) from None
    if not re.fullmatch(r"|([01]\d|2[0-3]):[0-5]\d", config.storage.verify_at):
        raise Refused(
            f'{source.at("storage", "verify_at")}: "{config.storage.verify_at}" is no time of day. '
            "Write hour and minute, for example 03:30."
        )
    if config.node.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise Refused(f"{source.at('node', 'log_level')}: use DEBUG, INFO, WARNING or ERROR.")
    names = [destination.name for destination in config.destinations]
    if RETURN_TO_SENDER in names:
        raise Refused(
            f'{source.at(f"destinations.{RETURN_TO_SENDER}")}: "{RETURN_TO_SENDER}" is the word of routes for the '
            "AE that sent the study, so no destination can have it. Give the destination another name."
        )
    for route in config.routes:
        if not route.to:
            raise Refused(
                f'{source.at("routes")}: route "{route.name}" names no destination. '
                f"Add to = [...].{nearest('', [*names, RETURN_TO_SENDER])}"
            )
        for category in route.categories:
            if category not in get_args(Category):
                raise Refused(
                    f'{source.at("routes", "categories")}: route "{route.name}" is for "{category}", '
                    f"which is no answer.{nearest(category, list(get_args(Category)))}"
                )
        for target in route.to:
            if target != RETURN_TO_SENDER and target not in names:
                raise Refused(
                    f'{source.at("routes", "to")}: route "{route.name}" sends to "{target}", which is no destination.'
                    f"{nearest(target, [*names, RETURN_TO_SENDER])}"
                )
    if not re.match(r"$|postgresql(\+psycopg)?://|sqlite:///", config.database.url):
        # Not the text itself: it may hold a password.
        raise Refused(
            f"{source.at('database', 'url')}: this is no database of ours. "
            'Write url = "postgresql+psycopg://user@host/name", or leave it out for SQLite in the state folder.'
        )
    if config.database.password_file is not None and not re.match(r"postgresql[^:]*://[^@/:]+@", config.database.url):
        raise Refused(
            f"{source.at('database', 'password_file')}: the password belongs to the user that url names. "
            'Write url = "postgresql+psycopg://user@host/name".'
        )
    _check_tls(config, source)
    ports = {"node.port": config.node.port, "web.port": config.web.port, "web.health_port": config.web.health_port}
    if config.tls.port:
        ports["tls.port"] = config.tls.port
    if len(set(ports.values())) < len(ports):
        raise Refused(f"{source.at('web', 'port')}: {', '.join(ports)} share a port. Give each its own.")


def _check_tls(config: Config, source: Source) -> None:
    if not config.tls.port:
        for peer in config.peers:
            if peer.key_sha256:
                raise Refused(
                    f"{source.at(f'peers.{peer.name}', 'key_sha256')}: the peer has to come by TLS, which is off. "
                    "Set port in [tls]."
                )
        return
    for key in ("certificate", "key", "authorities"):
        if getattr(config.tls, key) is None:
            raise Refused(f'{source.at("tls", "port")}: TLS needs "{key}". Name the PEM file in [tls].')
