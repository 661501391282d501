"""The engine: SQLite (WAL, synchronous FULL) or PostgreSQL by URL, transactions, schema version.

A writing transaction on SQLite begins IMMEDIATE: one that starts by reading and then writes fails with SQLITE_BUSY at
once, whatever the timeout (sqlite.org/lang_transaction.html).
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, Engine, Select, Table, create_engine, event, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicomguard.clock import Clock
from dicomguard.config import Config
from dicomguard.core import uid
from dicomguard.errors import Refused, Unavailable
from dicomguard.store import tables
from dicomguard.store.arrival import Arrival, Association, How, Outcome, Sender
from dicomguard.store.files import Disk, Space, SystemDisk, make_root, refuse_network
from dicomguard.store.identity import Identity
from dicomguard.store.quick import Quick

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

# An open transaction; the functions of this room take it first.
Tx = Connection

# Lies in the state folder while a backup is put into it.
UNFINISHED_RESTORE = "restore-unfinished"
_BUSY_TIMEOUT_S = 30
_RELAXED_TIMEOUT_S = 3
_BEGIN = "dicomguard_begin"
# Any fixed number: serialises schema creation among the processes of a node on PostgreSQL.
_SCHEMA_LOCK = 7_214_000_913
# Between two tries to switch a new file to the write-ahead log.
_WAL_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the store; the node's configuration sets them."""

    # Below this a warning.
    low_bytes: int = 1 << 30
    # Below this nothing is received.
    stop_bytes: int = 256 << 20
    # Largest dataset that is taken.
    max_instance_bytes: int = 4 << 30
    # Quarantined bytes beyond this are no longer kept.
    max_quarantine_bytes: int = 10 << 30
    # A dataset beyond this is assembled in a file, not in memory.
    spill_bytes: int = 4 << 20
    # All datasets that are assembled in memory at one time.
    buffer_bytes: int = 64 << 20
    # Whether the state folder may lie on a network file system.
    network_file_system: bool = False


class Budget:
    """Memory that all incoming datasets share."""

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes = size_bytes
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> bool:
        """False when there is not as much left."""
        with self._lock:
            if size_bytes > self._left_bytes:
                return False
            self._left_bytes -= size_bytes
            return True

    def give(self, size_bytes: int) -> None:
        """Back."""
        with self._lock:
            self._left_bytes += size_bytes


class Log(Protocol):
    """What stands before files and rows in a process that has a receive log."""

    def take(
        self,
        arrival: Arrival,
        identity: Identity,
        content: memoryview | None,
        *,
        head_bytes: int,
        literal: Callable[[], Outcome],
    ) -> Outcome:
        """Durable when it returns; `literal` is called instead where file and row must be there at once."""
        ...

    def begin_association(self, sender: Sender, *, process: str) -> str:
        """An id for an association that begins; its row follows with the first instance."""
        ...

    def association(self, id: str) -> Association:
        """What is known of an association by its id."""
        ...

    def end_association(self, id: str, how: How) -> None:
        """It has ended; its row says so behind all its instances."""
        ...


class Store:
    """Database, folder, disk and clock of one node."""

    def __init__(
        self,
        *,
        root: Path,
        engine: Engine,
        relaxed: Engine,
        clock: Clock,
        disk: Disk,
        limits: Limits,
        device_uid: str,
    ) -> None:
        self.root = root
        self.clock = clock
        self.disk = disk
        self.limits = limits
        # Instance Creator UID of our results; "" when unknown.
        self.device_uid = device_uid
        self.space = Space(disk, root, clock, low_bytes=limits.low_bytes, stop_bytes=limits.stop_bytes)
        self.buffers = Budget(limits.buffer_bytes)
        # Only in a receiver.
        self.log: Log | None = None
        self._engine = engine
        self._relaxed = relaxed
        self._quick = Quick(relaxed) if relaxed.dialect.name == "sqlite" else None

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """A writing transaction: committed durably at the end of the block, rolled back on an error."""
        with self._transaction(self._engine, "BEGIN IMMEDIATE") as tx:
            yield tx

    @contextmanager
    def begin_relaxed(self) -> Iterator[Tx]:
        """The same; on SQLite a power cut may take it until the next `begin` has written: the log still holds it."""
        with self._transaction(self._relaxed, "BEGIN IMMEDIATE") as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A reading transaction; on SQLite it waits for no writer."""
        with self._transaction(self._engine, "BEGIN") as tx:
            yield tx

    @contextmanager
    def look(self) -> Iterator[Tx]:
        """The same, but a database that does not answer is given up soon: a sender waits."""
        with self._transaction(self._relaxed, "BEGIN") as tx:
            yield tx

    def ask(self, question: Select[Any], values: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """Rows of a select of texts, as `look` would give them, for a sender that waits. Raises `Unavailable`."""
        if self._quick is None:
            with self.look() as tx:
                return [tuple(row) for row in tx.execute(question, values)]
        try:
            return self._quick.ask(question, values)
        except (sqlite3.OperationalError, sqlite3.InterfaceError) as error:
            raise Unavailable(f"The database does not answer: {error}. Wait, or look after it.") from error

    @contextmanager
    def _transaction(self, engine: Engine, begin: str) -> Iterator[Tx]:
        try:
            with engine.connect().execution_options(**{_BEGIN: begin}) as connection, connection.begin():
                yield connection
        # An internal error is what a server that has become a read-only standby says.
        except (OperationalError, InterfaceError, InternalError) as error:
            # The statement itself may hold a sender's text; only the driver's words are passed on.
            raise Unavailable(f"The database does not answer: {error.orig}. Wait, or look after it.") from error
        except PoolTimeoutError as error:
            raise Unavailable("All connections to the database wait for its answer. Look after it.") from error

    def close(self) -> None:
        """Close all connections."""
        if self._quick is not None:
            self._quick.close()
        self._engine.dispose()
        self._relaxed.dispose()


def shown_url(url: str) -> str:
    """The address of a database for people: without the password, and without options, which may hold one."""
    return _address(url).set(query={}).render_as_string(hide_password=True)


def open_configured(config: Config, clock: Clock) -> Store:
    """The store that a configuration names, with all its bounds."""
    limits = Limits(
        low_bytes=config.storage.low_bytes,
        stop_bytes=config.storage.stop_bytes,
        max_instance_bytes=config.receive.max_instance_bytes,
        max_quarantine_bytes=config.storage.quarantine_bytes,
        spill_bytes=config.storage.log_spill_bytes,
        buffer_bytes=config.storage.log_buffer_bytes,
        network_file_system=config.storage.network_file_system,
    )
    device_uid = uid.device(config.node.name)
    return open_store(config.node.state, config.database_url, clock, limits=limits, device_uid=device_uid)


def open_store(
    root: Path,
    url: str,
    clock: Clock,
    *,
    limits: Limits | None = None,
    disk: Disk | None = None,
    device_uid: str = "",
) -> Store:
    """Open or create folder and database; `url` "" is SQLite in the folder. A newer schema than ours is refused."""
    root = root.resolve()
    disk = disk or SystemDisk()
    make_root(disk, root)
    if (root / UNFINISHED_RESTORE).exists():
        raise Refused(f"A restore into {root} was not finished. Empty the folder, then restore the backup again.")
    limits = limits or Limits()
    if not limits.network_file_system:
        refuse_network(root)
    if url.startswith("postgresql"):
        engine, relaxed = _postgresql(url), _postgresql(url, relaxed=True)
    else:
        url = url or f"sqlite:///{root / 'node.sqlite'}"
        engine, relaxed = _sqlite(url), _sqlite(url, relaxed=True)
    store = Store(
        root=root,
        engine=engine,
        relaxed=relaxed,
        clock=clock,
        disk=disk,
        limits=limits,
        device_uid=device_uid,
    )
    with store.begin() as tx:
        _migrate(tx)
    return store


def insert_missing(tx: Tx, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert unless a row with one of its keys exists; true when inserted."""
    # Not the row count: the driver of PostgreSQL does not give it for every insert.
    key = list(table.primary_key.columns)
    return tx.execute(_insert(tx, table).values(**values).on_conflict_do_nothing().returning(*key)).first() is not None


def upsert(tx: Tx, table: Table, key: Mapping[str, Any], values: Mapping[str, Any], *, new: Mapping[str, Any]) -> None:
    """Insert `key` with `new`, or update the row of that primary key with `values` (which may be expressions)."""
    statement = _insert(tx, table).values(**key, **new)
    tx.execute(statement.on_conflict_do_update(index_elements=list(key), set_=dict(values)))


def _insert(tx: Tx, table: Table) -> "sqlite.Insert | postgresql.Insert":
    if tx.dialect.name == "sqlite":
        return sqlite.insert(table)
    # Only where it is spoken: it takes 2 MiB of every process.
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def _sqlite(url: str, *, relaxed: bool = False) -> Engine:
    if not url.startswith("sqlite:///"):
        raise Refused(f'"{shown_url(url)}" is no database of ours. Write sqlite:///PATH or postgresql://…')
    timeout_s = _RELAXED_TIMEOUT_S if relaxed else _BUSY_TIMEOUT_S
    engine = create_engine(url, connect_args={"timeout": timeout_s}, pool_size=8, max_overflow=120)
    # NORMAL: a commit is not flushed by itself, but by the flush of the next one with FULL (sqlite.org/pragma.html).
    synchronous = "NORMAL" if relaxed else "FULL"

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN would be deferred; ours is written out below.
        connection.isolation_level = None
        _to_wal(connection, timeout_s)
        for pragma in (f"synchronous={synchronous}", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

    return engine


def _to_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    """The write-ahead log, which stays switched on once it is.

    The switch is exclusive, and SQLite waits for no other process that does the same, or closes the file as its last
    user: the receivers of a new node do.
    """
    # Here the pauses are the wait.
    connection.execute("PRAGMA busy_timeout=0")
    for left in reversed(range(round(timeout_s / _WAL_PAUSE_S))):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA busy_timeout={round(timeout_s * 1000)}")
            return
        except sqlite3.OperationalError as error:
            # The low byte is the kind of error, what is above it says where.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or not left:
                raise
            threading.Event().wait(_WAL_PAUSE_S)


def _address(url: str) -> URL:
    """The parts of the text; it is refused where a password would be taken for host, port or name, and be shown."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        address = None
    if address is None or (
        address.drivername.startswith("postgresql") and "@" in f"{address.host or ''}{address.database or ''}"
    ):
        raise Refused(
            "The url of [database] does not read as postgresql+psycopg://user:password@host:port/name. "
            "Write @, : and / of a password as %40, %3A and %2F, or name a file with it in password_file."
        )
    return address


def _patience(seconds: int) -> dict[str, int]:
    """Options of libpq: a server whose machine has gone is given up after about this time, not after a quarter hour."""
    return {
        "connect_timeout": seconds,
        # What was sent and not acknowledged, in milliseconds; and, while an answer is awaited, probes.
        "tcp_user_timeout": 1000 * seconds,
        "keepalives_idle": max(1, seconds // 2),
        "keepalives_interval": 1,
        "keepalives_count": max(1, seconds // 2),
    }


def _postgresql(url: str, *, relaxed: bool = False) -> Engine:
    driver = _address(url).set(drivername="postgresql+psycopg")
    # READ COMMITTED with row locks: every read that decides a write takes its row FOR UPDATE.
    # A relaxed commit is synchronous here: the server can die alone, and would take rows that the filer counts as kept.
    return create_engine(
        driver,
        pool_size=8,
        max_overflow=40,
        pool_pre_ping=True,
        connect_args=_patience(_RELAXED_TIMEOUT_S if relaxed else 10),
        isolation_level="READ COMMITTED",
    )


def _migrate(tx: Tx) -> None:
    """Bring the schema to this version in one transaction."""
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
    tables.meta.create(tx, checkfirst=True)
    row = tx.execute(select(tables.meta.c.value).where(tables.meta.c.name == "schema_version")).scalar()
    if row is None:
        tables.METADATA.create_all(tx)
        insert_missing(tx, tables.meta, {"name": "schema_version", "value": str(tables.SCHEMA_VERSION)})
        insert_missing(tx, tables.meta, {"name": "audit_head", "value": ""})
        return
    found = int(row)
    if found > tables.SCHEMA_VERSION:
        raise Refused(
            f"The database has schema {found}; this version knows up to {tables.SCHEMA_VERSION}. "
            "Install the newer dicomguard again, or restore the backup made before the upgrade."
        )
    for version in range(found, tables.SCHEMA_VERSION):
        tables.MIGRATIONS[version](tx)
    tx.execute(
        tables.meta.update().where(tables.meta.c.name == "schema_version").values(value=str(tables.SCHEMA_VERSION))
    )


def make_wal(path: Path) -> None:
    """Create or switch an SQLite file to the write-ahead log; the mode stays with the file."""
    engine = _sqlite(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    engine.dispose()
