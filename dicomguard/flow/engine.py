"""Durable workflows on DBOS Transact; the only module that knows it, its private names and its traps.

A workflow is a function of this engine and of small JSON values; each of its steps runs at least once, and its recorded
answer is used when the workflow is recovered. What a step does outside must therefore look for its own finished effect.
"""

import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, ParamSpec

from dbos import DBOS, DBOSConfig
from dbos._serialization import DBOSPortableJSON, DefaultSerializer
from dbos._utils import GlobalParams

from dicomguard import log
from dicomguard.errors import Refused, Unavailable

P = ParamSpec("P")
JsonValue = Any
WorkflowFunction = Callable[..., JsonValue]

APP = "dicomguard"
# dbos leaves rows of another version alone, and derives the version from the source. An incompatible change
# gets a new workflow name instead, and the old one stays registered until it has drained.
VERSION = "dicomguard-1"
# The default is 100 starts of a workflow that kills its process each time.
MAX_RECOVERY_ATTEMPTS = 3
# Seconds between two looks at a queue.
POLL_S = 0.2
THREADS = 32

# Priorities of a queue; the smaller number starts first, and none at all is 0.
_FIRST, _IN_TURN = 1, 2

STUDY, DELIVER, RETRAIN = "study", "deliver", "retrain"
LIVE = ("PENDING", "ENQUEUED", "DELAYED")
EXCEEDED = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One workflow as the database has it."""

    workflow_id: str
    # PENDING, ENQUEUED, DELAYED, SUCCESS, ERROR, CANCELLED or MAX_RECOVERY_ATTEMPTS_EXCEEDED.
    status: str
    queue: str | None
    executor: str | None

    @property
    def live(self) -> bool:
        """Whether it runs or will run by itself."""
        return self.status in LIVE


class Engine:
    """One executor. Register, `launch`, and `close` at the end; there can be one in a process."""

    def __init__(self, *, node: str, database_url: str, studies_at_once: int = 1) -> None:
        """`database_url` is SQLAlchemy's: the file work.sqlite, or the PostgreSQL of the node."""
        # An id that is used twice lets a start recover the work of a living twin.
        self.executor_id = f"{node}:{secrets.token_hex(6)}"
        self._studies_at_once = studies_at_once
        self._log = log.get("flow")
        # DBOS Cloud would force ids and addresses from the environment.
        GlobalParams.dbos_cloud = False
        _refuse_pickle()
        config: DBOSConfig = {
            "name": APP,
            "system_database_url": database_url,
            "dbos_system_schema": "dbos",
            "application_version": VERSION,
            "executor_id": self.executor_id,
            "serializer": DBOSPortableJSON,
            "enable_otlp": False,
            "log_level": "WARNING",
            # Polling works behind a transaction pooler.
            "use_listen_notify": False,
            "max_executor_threads": THREADS,
        }
        DBOS(config=config)
        _silence_library()

    def register(self, name: str, function: WorkflowFunction) -> None:
        """Make `function(engine, *args)` the workflow `name`; before `launch`."""

        def workflow(*args: JsonValue) -> JsonValue:
            return function(self, *args)

        workflow.__qualname__ = workflow.__name__ = name
        DBOS.workflow(name=name, max_recovery_attempts=MAX_RECOVERY_ATTEMPTS)(workflow)

    def launch(self) -> None:
        """Migrate the tables, declare the queues, begin to work."""
        DBOS.launch()
        queue = {"polling_interval_sec": POLL_S, "on_conflict": "always_update"}
        DBOS.register_queue(STUDY, worker_concurrency=self._studies_at_once, **queue)
        # One association a destination at a time; a slow one does not hold up the others.
        DBOS.register_queue(DELIVER, partition_concurrency=1, **queue)
        DBOS.register_queue(RETRAIN, global_concurrency=1, **queue)
        self._log.event("executor.started", executor=self.executor_id, version=VERSION)

    def close(self, grace_s: int) -> None:
        """Take nothing new, let running workflows end within `grace_s`; the rest is recovered by the next executor."""
        DBOS.destroy(workflow_completion_timeout_sec=grace_s)

    def step(self, name: str, function: Callable[P, JsonValue], *args: P.args, **kwargs: P.kwargs) -> JsonValue:
        """Inside a workflow: run `function` once more or return what it answered before; its answer is small JSON."""
        return DBOS.run_step({"name": name}, function, *args, **kwargs)

    def enqueue(
        self,
        queue: str,
        workflow: str,
        *args: JsonValue,
        workflow_id: str,
        partition: str | None = None,
        delay_s: float = 0.0,
        urgent: bool = False,
    ) -> None:
        """Start a workflow once per id; asking again with the same id does nothing. Urgent ones start before others.

        Always on a queue, so that recovery puts it back there and not beside the queue's limits.
        """
        options: dict[str, Any] = {
            "workflow_name": workflow,
            "queue_name": queue,
            "workflow_id": workflow_id,
            "app_version": VERSION,
            "priority": _FIRST if urgent else _IN_TURN,
        }
        if partition is not None:
            options["queue_partition_key"] = partition
        if delay_s > 0:
            options["delay_seconds"] = delay_s
        DBOS.enqueue_workflow_with_options(options, *args)

    def runs(self, prefix: str) -> list[Run]:
        """Workflows whose id begins with `prefix`, oldest first."""
        return self._list(workflow_id_prefix=prefix)

    def live(self, queue: str | None = None) -> list[Run]:
        """All that runs or waits."""
        return self._list(status=list(LIVE), **({} if queue is None else {"queue_name": queue}))

    def _list(self, **conditions: Any) -> list[Run]:
        # Without input and output: they are not needed, and reading a planted one is an attack.
        rows = DBOS.list_workflows(load_input=False, load_output=False, **conditions)
        return [
            Run(workflow_id=row.workflow_id, status=row.status, queue=row.queue_name, executor=row.executor_id)
            for row in rows
        ]

    def take_over(self, executor_id: str) -> bool:
        """Put the work of a dead executor back on its queues; True when none of it is left.

        Nobody else recovers foreign ids, and an error for one workflow is logged and skipped, so the
        caller asks again until this is true.
        """
        DBOS._recover_pending_workflows([executor_id])
        left = self._list(status="PENDING", executor_id=executor_id)
        self._log.event("executor.taken_over", executor=executor_id, count=len(left))
        return not left

    def purge(self, *, before: datetime, limit: int) -> int:
        """Forget at most `limit` workflows that ended before the time, since nothing else does; how many."""
        rows = self._list(completed_before=before.isoformat(), limit=limit)
        if rows:
            DBOS.delete_workflows([row.workflow_id for row in rows])
        return len(rows)


def work_database(state: Path, node_database_url: str) -> str:
    """The database of the engine: its own file beside the node's (one writer lock each), or the same PostgreSQL."""
    if node_database_url.startswith("postgresql"):
        return node_database_url
    return f"sqlite:///{state / 'work.sqlite'}"


def lock_state(state: Path, *, name: str) -> IO[str]:
    """Hold `<state>/<name>.lock` while the process lives; raise `Refused` when another process holds it."""
    path = state / f"{name}.lock"
    file = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(20).strip() or "unknown"
        file.close()
        raise Refused(
            f"The state folder {state} is in use by another worker (process {holder}). "
            "Stop that one, or give this one its own folder or node name."
        ) from None
    except OSError as error:
        file.close()
        raise Unavailable(
            f"The state folder {state} cannot be locked: {error.strerror}. Use a file system with locks."
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


class _PickleRefused(Exception):
    """A row asks to be unpickled."""


def _refuse_pickle() -> None:
    """Rows that say "py_pickle" are unpickled whatever serializer is configured.

    Reading is refused, which ends such a workflow in ERROR. Writing becomes text instead of a refusal: the error
    itself has to be written in the row's own format, and could not, the row would stay PENDING for ever.
    """

    def deserialize(_serialized: str) -> Any:
        raise _PickleRefused("A row of the work database holds pickled data, which is never read.")

    def serialize(_self: DefaultSerializer, value: Any) -> str:
        text: str = DBOSPortableJSON.serialize({"refused": type(value).__name__})
        return text

    attributes: Mapping[str, Any] = {"deserialize": staticmethod(deserialize), "serialize": serialize}
    for name, attribute in attributes.items():
        setattr(DefaultSerializer, name, attribute)


def _silence_library() -> None:
    """dbos logs whole objects; its records go through our formatter, which keeps only where they came from."""
    library = logging.getLogger("dbos")
    library.handlers[:] = []
    library.propagate = True
