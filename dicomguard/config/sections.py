"""The sections of the configuration: every key with its default, its sentence and its limits."""

import urllib.parse
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from dicomguard.core.commitment import Patience
from dicomguard.core.delivery import Backoff
from dicomguard.core.job import DECODE_MEMORY_BYTES, DECODE_S
from dicomguard.core.peer import Destination, Peer, check_ae_title
from dicomguard.core.routing import Route
from dicomguard.core.selection import Rule
from dicomguard.errors import Refused

_DAY_S = 86400.0
# The longest wait, also for those who mean never: calendar and locks overflow further on.
_TEN_YEARS_S = 3650 * _DAY_S
LOOPBACK = ("127.0.0.1", "::1", "localhost")


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "ae_title", check_ae_title(self.ae_title, where="node"))


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
        30.0,
        "Days after which the images of a study that is judged and delivered are deleted; 0: never.",
        least=0,
        most=36500,
    )
    keep_bytes: int = _key(0, "Most bytes of images; the oldest that may go are deleted first; 0: no limit.", least=0)
    keep_results_days: float = _key(
        365.0,
        "Days after which verdict, results and the study itself follow its images; 0: never.",
        least=0,
        most=36500,
    )
    verify_at: str = _key(
        "03:30", "When files are held against rows each day, as `dicomguard verify` does; empty: never by itself."
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
        600.0, "Seconds for which an open association that stored something holds the study.", least=0, most=_DAY_S
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """[analysis]"""

    weights: Path | None = _key(None, "Safetensors file to use instead of the approved or shipped model.")
    device: str = _key("", "cuda, cpu, or empty for the best there is.")
    threads: int = _key(2, "CPU threads of the analysis child.", least=1, most=256)
    children: int = _key(1, "Analyses at the same time.", least=1, most=16)
    deadline_s: float = _key(1800.0, "Seconds after which an analysis is given up.", least=5, most=7 * _DAY_S)
    decode_memory_bytes: int = _key(DECODE_MEMORY_BYTES, "Memory limit of the decoding child.", least=256 << 20)
    decode_s: float = _key(DECODE_S, "Seconds that decoding one file may take.", least=1, most=_DAY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """[delivery]"""

    first_retry_s: float = _key(
        5.0, "First wait after a failed attempt; doubles with each.", least=0.1, most=7 * _DAY_S
    )
    longest_retry_s: float = _key(900.0, "Longest wait between two attempts.", least=0.1, most=_TEN_YEARS_S)
    give_up_s: float = _key(
        7 * _DAY_S, "Seconds after which a delivery is given up and shown as failed.", least=1, most=_TEN_YEARS_S
    )
    connect_s: float = _key(10.0, "Seconds for connecting and associating.", least=0.1, most=_DAY_S)
    answer_s: float = _key(180.0, "Seconds for an answer to C-STORE.", least=1, most=_DAY_S)
    commitment_linger_s: float = _key(
        5.0,
        "Seconds that an association is kept open for the report on storage commitment; later ones come to our port.",
        least=0,
        most=600,
    )
    commitment_deadline_s: float = _key(
        _DAY_S,
        "Seconds after which a destination is asked again for a commitment that it did not report on.",
        least=1,
        most=_TEN_YEARS_S,
    )

    @property
    def backoff(self) -> Backoff:
        """With a destination that does not take what is sent."""
        return Backoff(
            first=timedelta(seconds=self.first_retry_s),
            longest=timedelta(seconds=self.longest_retry_s),
            give_up=timedelta(seconds=self.give_up_s),
        )

    @property
    def patience(self) -> Patience:
        """With storage commitment."""
        return Patience(
            again=timedelta(seconds=self.longest_retry_s),
            deadline=timedelta(seconds=self.commitment_deadline_s),
            give_up=timedelta(seconds=self.give_up_s),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """[web]"""

    host: str = _key("127.0.0.1", "Address of the page; others come by a proxy, set as docs/operations.md says.")
    port: int = _key(8090, "TCP port of the page.", least=1, most=65535)
    allowed_hosts: tuple[str, ...] = _key((), "Host names by which the page may be asked for, beside loopback.")
    health_port: int = _key(8091, "TCP port of /health and /metrics, on loopback.", least=1, most=65535)
    max_upload_bytes: int = _key(2 << 30, "Most bytes in one upload, after unpacking.", least=1 << 20)
    max_upload_files: int = _key(5000, "Most files in one upload, after unpacking.", least=1)
    max_zip_ratio: int = _key(100, "Most bytes that one byte of a ZIP may unpack to.", least=2)
    session_s: float = _key(
        8 * 3600.0, "Seconds after which an administrator signs in again.", least=60, most=365 * _DAY_S
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain:
    """[retrain]"""

    archive: Path | None = _key(None, "Folder of curated cases; none: the training page says so.")
    cron: str = _key("0 2 * * 6", "When a run is started: minute hour day month weekday. Empty: never by itself.")
    minutes: float = _key(120.0, "Longest training in minutes.", least=0.05, most=365 * 1440)
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
    # What was read, and is read again at SIGHUP: a file, or what the node has accepted; None when all is default.
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


SECTIONS = (Node, Database, Receive, Tls, Storage, Completion, Analysis, Delivery, Web, Retrain)
