"""The whole configuration: one TOML file, read into frozen values; the only reader of settings and environment.

An unknown key or an impossible value is refused with file, line, what was read and what is allowed. Process entries
load it; everything below is given the few values that it needs.
"""

import difflib
import os
import re
import tomllib
import urllib.parse
import zoneinfo
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dicomguard.core.peer import Destination, Peer, check_ae_title
from dicomguard.core.routing import RETURN_TO_SENDER, Route
from dicomguard.core.selection import Rule
from dicomguard.errors import Refused

T = TypeVar("T")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ENVIRONMENT = "DICOMGUARD_CONFIG"


def _key(default: Any, help_text: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A key with its default, its sentence for docs/configuration.md, and its limits."""
    return field(default=default, metadata={"help": help_text, "least": least, "most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """[node]"""

    ae_title: str = _key("DICOMGUARD", "Our AE title, 1 to 16 characters.")
    host: str = _key(
        "127.0.0.1", "Address that the receiver listens on; other than loopback only once a peer is named."
    )
    port: int = _key(11112, "TCP port of the receiver.", least=1, most=65535)
    state: Path = _key(Path("var"), "Folder for everything that is kept; relative to the configuration file.")
    name: str = _key("dicomguard", "Name of this node, as results carry it (Device Serial Number).")
    timezone: str = _key("UTC", "Zone of the times in results whose source names none, and of the schedule.")
    log_level: str = _key("INFO", "DEBUG, INFO, WARNING or ERROR.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """[database]"""

    url: str = _key("", "Empty: SQLite in the state folder. Else postgresql+psycopg://user@host/name.")
    password_file: Path | None = _key(
        None, "File that holds the password of the database, so that it stands nowhere else."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Receive:
    """[receive]"""

    processes: int = _key(
        0, "Receiver processes that share the ports; 0: one for each processor, but at most two.", least=0, most=16
    )
    max_associations: int = _key(100, "Open associations in all.", least=1, most=1000)
    max_associations_per_peer: int = _key(20, "Open associations of one peer.", least=1, most=1000)
    connections_per_s: float = _key(
        20.0,
        "New connections a second of one address in the long run, five seconds' worth at once; 0: any number.",
        least=0,
        most=10000,
    )
    max_instance_bytes: int = _key(4 << 30, "Largest instance that is taken, in bytes.", least=1 << 20)
    max_pdu_bytes: int = _key(131072, "PDU size that we advertise, in bytes.", least=4096, most=1 << 20)
    idle_s: float = _key(
        60.0, "Seconds between two messages after which an association is aborted.", least=1, most=86400
    )
    conflict_warning: bool = _key(
        True, "Answer 0xB000 when other pixels arrive under a known SOP Instance UID, else 0x0000."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """[tls]"""

    port: int = _key(0, "TCP port of the receiver with TLS, for example 2762; 0: none.", least=0, most=65535)
    certificate: Path | None = _key(None, "PEM file with our certificate and its chain.")
    key: Path | None = _key(None, "PEM file with the key of our certificate, without passphrase.")
    authorities: Path | None = _key(
        None, "PEM file with the authorities that vouch for peers' certificates; each peer is bound by its key."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """[storage]"""

    low_bytes: int = _key(10 << 30, "Free bytes under which health turns yellow.", least=0)
    stop_bytes: int = _key(2 << 30, "Free bytes under which C-STORE is answered 0xA700.", least=0)
    quarantine_bytes: int = _key(10 << 30, "Most bytes that quarantine may hold.", least=0)
    log_segments: int = _key(
        4,
        "Files of the receive log of a receiver process; 0: none, each instance is flushed by itself.",
        least=0,
        most=64,
    )
    log_segment_bytes: int = _key(
        64 << 20, "Size of such a file; its space is taken at the first start.", least=64 << 10, most=1 << 30
    )
    log_spill_bytes: int = _key(
        4 << 20, "Instances beyond this go to a file as they arrive and past the log.", least=0, most=256 << 20
    )
    log_buffer_bytes: int = _key(
        64 << 20, "Memory for instances that arrive, all together; what goes beyond is treated as large.", least=0
    )
    network_file_system: bool = _key(
        False, "Allow log and SQLite on a network file system, which may not keep what it says it flushed."
    )
    keep_days: float = _key(
        30.0, "Days after which the images of a study that is judged and delivered are deleted; 0: never.", least=0
    )
    keep_bytes: int = _key(0, "Most bytes of images; the oldest that may go are deleted first; 0: no limit.", least=0)
    keep_results_days: float = _key(
        365.0, "Days after which verdict, results and the study itself follow its images; 0: never.", least=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """[completion]"""

    quiet_s: float = _key(
        60.0, "Seconds without a new instance after which a study is complete.", least=0.1, most=86400
    )
    quiet_released_s: float = _key(
        20.0,
        "The same once every association that brought some of it was released in order, if that is shorter.",
        least=0.1,
        most=86400,
    )
    longest_s: float = _key(
        1800.0, "Longest wait in seconds; beats associations that never close.", least=1, most=604800
    )
    assoc_hold_s: float = _key(
        600.0, "Seconds for which an open association that stored something holds the study.", least=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """[analysis]"""

    weights: Path | None = _key(None, "Safetensors file to use instead of the approved or shipped model.")
    device: str = _key("", "cuda, cpu, or empty for the best there is.")
    threads: int = _key(2, "CPU threads of the analysis child.", least=1, most=256)
    children: int = _key(1, "Analyses at the same time.", least=1, most=16)
    deadline_s: float = _key(1800.0, "Seconds after which an analysis is given up.", least=5)
    decode_memory_bytes: int = _key(4 << 30, "Memory limit of the decoding child.", least=256 << 20)
    decode_s: float = _key(30.0, "Seconds that decoding one file may take.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """[delivery]"""

    first_retry_s: float = _key(5.0, "First wait after a failed attempt; doubles with each.", least=0.1)
    longest_retry_s: float = _key(900.0, "Longest wait between two attempts.", least=0.1)
    give_up_s: float = _key(7 * 86400.0, "Seconds after which a delivery is given up and shown as failed.", least=1)
    connect_s: float = _key(10.0, "Seconds for connecting and associating.", least=0.1)
    answer_s: float = _key(180.0, "Seconds for an answer to C-STORE.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """[web]"""

    host: str = _key("127.0.0.1", "Address of the page. Loopback; put a proxy with TLS before it for others.")
    port: int = _key(8090, "TCP port of the page.", least=1, most=65535)
    allowed_hosts: tuple[str, ...] = _key((), "Host names by which the page may be asked for, beside loopback.")
    health_port: int = _key(8091, "TCP port of /health and /metrics, on loopback.", least=1, most=65535)
    max_upload_bytes: int = _key(2 << 30, "Most bytes in one upload, after unpacking.", least=1 << 20)
    max_upload_files: int = _key(5000, "Most files in one upload, after unpacking.", least=1)
    max_zip_ratio: int = _key(100, "Most bytes that one byte of a ZIP may unpack to.", least=2)
    session_s: float = _key(8 * 3600.0, "Seconds after which an administrator signs in again.", least=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain:
    """[retrain]"""

    archive: Path | None = _key(None, "Folder of curated cases; none: the training page says so.")
    cron: str = _key("0 2 * * 6", "When a run is started: minute hour day month weekday. Empty: never by itself.")
    minutes: float = _key(120.0, "Longest training in minutes.", least=0.05)
    nice: int = _key(10, "Niceness of the training child.", least=0, most=19)
    two_people: bool = _key(True, "The person who approves a model must not be the one who started the run.")
    small: bool = _key(False, "Train a few steps on a reduced size: for drills, never for a model that is used.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration."""

    node: Node = Node()
    database: Database = Database()
    receive: Receive = Receive()
    tls: Tls = Tls()
    storage: Storage = Storage()
    completion: Completion = Completion()
    analysis: Analysis = Analysis()
    delivery: Delivery = Delivery()
    web: Web = Web()
    retrain: Retrain = Retrain()
    peers: tuple[Peer, ...] = ()
    destinations: tuple[Destination, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    # The file that was read; None when all is default.
    file: Path | None = None

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the node's database with its password: for connecting, never to print."""
        url = self.database.url or f"sqlite:///{self.node.state / 'node.sqlite'}"
        if self.database.password_file is None:
            return url
        try:
            password = self.database.password_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Refused(
                f"The password file {self.database.password_file} cannot be read: {error.strerror}. "
                "Correct password_file in [database], or the rights of the file."
            ) from None
        user, _, rest = url.partition("@")
        return f"{user}:{urllib.parse.quote(password, safe='')}@{rest}"


class _Source:
    """The text that was read, to say where a fault stands."""

    def __init__(self, path: Path | None, text: str) -> None:
        self.path = path
        self._lines = text.splitlines()

    def at(self, table: str, key: str | None = None) -> str:
        """`file:line` of a key in a table, as near as can be told."""
        name = str(self.path) if self.path is not None else "configuration"
        inside = not table
        for number, line in enumerate(self._lines, start=1):
            header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?", line)
            if header:
                inside = header.group(1) == table
                if inside and key is None:
                    return f"{name}:{number}"
            elif inside and key is not None and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
                return f"{name}:{number}"
        return name


def load(path: Path | None = None) -> Config:
    """Read the file (else the one that DICOMGUARD_CONFIG names, else defaults); raise `Refused` with its line."""
    if path is None and os.environ.get(ENVIRONMENT):
        path = Path(os.environ[ENVIRONMENT])
    if path is None:
        return parse("", base=Path.cwd(), path=None)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused(f"The configuration {path} cannot be read: {error.strerror}. Name a file that exists.") from None
    except UnicodeDecodeError:
        raise Refused(f"The configuration {path} is not UTF-8 text. Save it as UTF-8.") from None
    return parse(text, base=path.resolve().parent, path=path)


def parse(text: str, *, base: Path, path: Path | None) -> Config:
    """Configuration from TOML text; relative paths are below `base`."""
    source = _Source(path, text)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"{path or 'configuration'} is not valid TOML: {error}. Correct that line.") from None
    hints = get_type_hints(Config)
    sections = {f.name: hints[f.name] for f in fields(Config) if isinstance(f.default, _SECTIONS)}
    known = [*sections, "peers", "destinations", "routes", "rules"]
    for name in document:
        if name not in known:
            raise Refused(f'{source.at(name)}: there is no section "{name}".{_nearest(name, known)}')
    built: dict[str, Any] = {}
    for name, kind in sections.items():
        built[name] = _build(kind, _table(document.get(name, {}), source, name), source, name, base=base)
    for name, each in (("peers", Peer), ("destinations", Destination)):
        table = _table(document.get(name, {}), source, name)
        built[name] = tuple(
            _build(each, _renamed(_table(item, source, f"{name}.{key}")), source, f"{name}.{key}", base=base, name=key)
            for key, item in table.items()
        )
    for name, kind in (("routes", Route), ("rules", Rule)):
        items = document.get(name, [])
        if not isinstance(items, list):
            raise Refused(f"{source.at(name)}: {name} is a list. Write [[{name}]] before each entry.")
        built[name] = tuple(_build(kind, _table(item, source, name), source, name, base=base) for item in items)
    config = Config(**built, file=path)
    _check(config, source)
    return config


_SECTIONS = (Node, Database, Receive, Tls, Storage, Completion, Analysis, Delivery, Web, Retrain)


def _renamed(table: dict[str, Any]) -> dict[str, Any]:
    # "addresses" is the word an administrator looks for; a peer keeps them as networks.
    return {("networks" if key == "addresses" else key): value for key, value in table.items()}


def _table(value: Any, source: _Source, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{source.at(where)}: [{where}] is a section, not {value!r}. Write [{where}] and its keys below.")
    return value


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else f" Known are: {', '.join(sorted(known))}."


def _build(kind: type[T], table: dict[str, Any], source: _Source, where: str, *, base: Path, **given: Any) -> T:
    """One dataclass from one table; the field's type and metadata decide what is allowed."""
    hints = get_type_hints(kind)
    allowed = {f.name: f for f in fields(kind) if f.name not in given}  # type: ignore[arg-type]
    values: dict[str, Any] = dict(given)
    shown = {"networks": "addresses"} if kind is Peer else {}
    for key, raw in table.items():
        if key not in allowed:
            names = [shown.get(name, name) for name in allowed]
            raise Refused(f'{source.at(where, key)}: [{where}] has no key "{key}".{_nearest(key, names)}')
        place = f"{source.at(where, shown.get(key, key))}: {shown.get(key, key)}"
        values[key] = _value(raw, hints[key], allowed[key], place, base)
    for key, item in allowed.items():
        if key not in values and item.default is MISSING and item.default_factory is MISSING:
            raise Refused(f'{source.at(where)}: [{where}] lacks "{shown.get(key, key)}". Add it.')
        if key not in values and isinstance(item.default, Path):
            values[key] = (base / item.default).resolve()
    try:
        return kind(**values)
    except Refused as error:
        raise Refused(f"{source.at(where)}: {error}") from None


def _value(raw: Any, hint: Any, item: "Field[Any]", place: str, base: Path) -> Any:
    kinds = [
        kind
        for kind in (get_args(hint) if get_origin(hint) not in (tuple, None) else (hint,))
        if kind is not type(None)
    ]
    kind = kinds[0]
    if get_origin(kind) is tuple:
        if not isinstance(raw, list) or not all(isinstance(part, str) for part in raw):
            raise Refused(f'{place} = {raw!r} is no list of texts. Write for example ["A", "B"].')
        return tuple(raw)
    wanted = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    fits = {
        str: isinstance(raw, str),
        bool: isinstance(raw, bool),
        int: isinstance(raw, int) and not isinstance(raw, bool),
        float: isinstance(raw, int | float) and not isinstance(raw, bool),
        Path: isinstance(raw, str) and bool(raw),
    }
    if kind not in fits:
        # Literal types of rules: the values themselves say what is allowed.
        options = [option for option in kinds if isinstance(option, str)]
        if raw not in options:
            raise Refused(f"{place} = {raw!r} is not one of {', '.join(options)}. Use one of these.")
        return raw
    if not fits[kind]:
        raise Refused(f"{place} = {raw!r} is not {wanted[kind]}. Correct the value.")
    least, most = item.metadata.get("least"), item.metadata.get("most")
    if (least is not None and raw < least) or (most is not None and raw > most):
        span = f"at least {least:g}" if most is None else f"{least:g} to {most:g}"
        raise Refused(f"{place} = {raw!r} is impossible. Use {span}.")
    if kind is Path:
        return (base / raw).resolve()
    return float(raw) if kind is float else raw


def _check(config: Config, source: _Source) -> None:
    """Facts that span several keys."""
    check_ae_title(config.node.ae_title, where="node")
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
    if config.node.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise Refused(f"{source.at('node', 'log_level')}: use DEBUG, INFO, WARNING or ERROR.")
    names = [destination.name for destination in config.destinations]
    for route in config.routes:
        for target in route.to:
            if target != RETURN_TO_SENDER and target not in names:
                raise Refused(
                    f'{source.at("routes", "to")}: route "{route.name}" sends to "{target}", which is no destination.'
                    f"{_nearest(target, [*names, RETURN_TO_SENDER])}"
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


def _check_tls(config: Config, source: _Source) -> None:
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


def describe() -> str:
    """docs/configuration.md: every key with its sentence and default."""
    lines = [
        "# Configuration",
        "",
        "One TOML file, named by `--config` or `DICOMGUARD_CONFIG`. Generated by `dicomguard check-config --document`.",
        "",
    ]
    for kind in _SECTIONS:
        lines += [f"## {kind.__doc__}", "", "| key | default | meaning |", "|---|---|---|"]
        lines += [f"| `{item.name}` | `{_shown(item.default)}` | {item.metadata['help']} |" for item in fields(kind)]
        lines.append("")
    lines += [
        "## [peers.NAME]",
        "",
        "Who may open an association: `ae_title` and `addresses` (list of IP addresses or networks), checked together."
        " With `key_sha256` (list of SHA-256 of the public keys of its certificates, in hex) the peer has to come by"
        " TLS; `idle_s` is its own time between two messages, up to a day; `connections_per_s` how often each of its"
        " addresses may connect, instead of the number in `[receive]`; `quiet_s`, `quiet_released_s`, `longest_s` and"
        " `assoc_hold_s` its own patience instead of that in `[completion]`. `urgent`: whether its studies are analysed"
        " before others: `asked` (when the Priority of its C-STORE is high, or the header says STAT or HIGH in"
        " Requested Procedure Priority), `always`, or `never`.",
        "",
        "## [destinations.NAME]",
        "",
        "Who gets results: `ae_title`, `host`, `port`.",
        "",
        "## [[routes]]",
        "",
        "`name`, `calling_ae_titles` (empty: every sender), `categories` (empty: all), `to`: names of destinations, or"
        ' `"sender"` for the destination whose AE title sent the study.',
        "",
        "## [[rules]]",
        "",
        "Which series are analysed: the first rule that fits decides, then the built-in ones. `name`, `action`"
        " (`analyse` or `skip`), and lists of patterns, all of which must fit: "
        + ", ".join(f"`{item.name}`" for item in fields(Rule) if item.name not in ("name", "action"))
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if value is None or value is MISSING:
        return "–"
    return str(list(value)) if isinstance(value, tuple) else str(value)
