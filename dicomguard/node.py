"""The supervisor: starts receiver, worker and page, restarts what dies, says how all are, ends them in order.

It does no work of its own, so that nothing can bring it down. Health and metrics are read from the database, where all
processes of the node, also on other hosts, leave their figures.
"""

import json
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import generate_latest

from dicomguard import __version__, log, metrics
from dicomguard.child import Child
from dicomguard.clock import Clock
from dicomguard.config import Accepted, Config, changes, doubts, load
from dicomguard.errors import Broken, Refused, Unavailable
from dicomguard.flow import judge
from dicomguard.scp.shared import Shared, processes
from dicomguard.store import (
    census,
    commitments,
    counters,
    deliveries,
    executors,
    log_figures,
    log_slots,
    refusals,
    set_aside,
    worklist,
)
from dicomguard.store.db import Store, Tx, open_configured
from dicomguard.store.files import lock_folder
from dicomguard.store.log_figures import Figures
from dicomguard.store.verify import record

PARTS = {"receiver": "dicomguard.scp", "worker": "dicomguard.flow", "page": "dicomguard.web"}
_RECEIVER = "receiver"
# Those that read the configuration again at SIGHUP.
_RELOADING = ("receiver", "worker")
_STOP_WITHIN_S = 12.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
# A process that lived this long has started well; its next death counts as the first.
_LIVED_S = 60.0
_READY_WITHIN_S = 60.0
# Acknowledged instances without file and row: fewer are a moment's work.
_MANY_UNFILED = 500
_DAY = timedelta(hours=24)
_INSPECTED_WITHIN = timedelta(days=3)
# Three heartbeats of a worker: each asks both databases, so one that waits for a database in silence shows here.
_SILENCE = timedelta(seconds=15)

_log = log.get("node")


@dataclass(kw_only=True)
class Part:
    """One supervised process; replaced at each restart."""

    name: str
    kind: str
    child: Child
    started: float
    # Among the receivers, from 0.
    number: int = 0
    deaths: int = 0
    # Monotonic time of the next start; None while it runs.
    restart_at: float | None = None

    @property
    def up(self) -> bool:
        """Whether it runs now."""
        return self.restart_at is None and self.child.alive()

    @property
    def pause_s(self) -> float:
        """How long it is left alone after its last death."""
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * float(1 << min(self.deaths - 1, 10)))


class Node:
    """The processes of one node."""

    def __init__(self, config: Config, *, store: Store, clock: Clock) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._accepted = Accepted(config)
        self._parts: dict[str, Part] = {}
        self._shared: Shared | None = None
        # Whether the start is over: from then on no process ends the node.
        self._started = False

    def run(self, stop: threading.Event, reload: threading.Event, *, say: Callable[[str], None]) -> None:
        """Run until `stop` is set; read the configuration again when `reload` is.

        Raises `Refused` when a process refuses to run at the start. Later, one that does is started again like any
        that dies: the others work on.
        """
        self._shared = Shared(self._config)
        try:
            for kind, number in self._plan():
                # The first of its kind has its name.
                name = kind if number == 0 else f"{kind}-{number + 1}"
                child = self._start(kind, number)
                self._parts[name] = Part(
                    name=name, kind=kind, number=number, child=child, started=self._clock.monotonic()
                )
            with _serve_health(self, self._config.web.health_port):
                self._say_when_ready(stop, say)
                while not stop.wait(0.5):
                    if reload.is_set():
                        reload.clear()
                        self._reload()
                    self._look_after()
        finally:
            self._stop()
            self._shared.close()
            self._accepted.close()

    def _plan(self) -> Iterator[tuple[str, int]]:
        for kind in PARTS:
            for number in range(processes(self._config) if kind == _RECEIVER else 1):
                yield kind, number

    def _start(self, kind: str, number: int) -> Child:
        # Not the file, which may say something else by the time of a restart.
        argv = [sys.executable, "-m", PARTS[kind], "--config", str(self._accepted.name)]
        inherited = [self._accepted.descriptor]
        if kind != _RECEIVER or self._shared is None:
            return Child.start(argv, memory_bytes=None, cpu_s=None, pass_fds=inherited)
        argv += ["--inherited", self._shared.argument(number)]
        inherited += self._shared.descriptors
        # The kernel ends the children that hold pixels first and the receiver last.
        return Child.start(argv, memory_bytes=None, cpu_s=None, oom_score_adj=-500, pass_fds=inherited)

    def _reload(self) -> None:
        """Take over what can be of the file as it is now, say what waits, and have the processes take it, too."""
        if self._config.file is None:
            _log.warning("configuration.refused", reason="No file was named at the start, so there is none to read.")
            return
        try:
            new = load(self._config.file)
            now = changes.renewed(self._config, new)
        except Refused as error:
            _log.error("configuration.refused", reason=str(error))
            return
        if waiting := changes.changed(now, new):
            _log.warning("configuration.postponed", name=waiting, reason="These keys need a restart of the node.")
        _log.event("configuration.reloaded", name=changes.changed(self._config, now))
        self._config = now
        self._accepted.put(now)
        for part in self._parts.values():
            if part.kind in _RELOADING and part.up:
                part.child.ask_to_reload()

    def _look_after(self) -> None:
        now = self._clock.monotonic()
        for part in self._parts.values():
            if part.restart_at is not None:
                if now >= part.restart_at:
                    self._restart(part, now)
                continue
            if part.child.alive():
                continue
            reason = part.child.exit_reason()
            if part.child.exit_status == Refused.exit_status:
                if not self._started:
                    raise Refused(
                        f"The {part.name} refuses to run; its reason stands above. Correct it and start again."
                    )
                reason = "refuses to run; its reason stands above"
            part.deaths = 1 if now - part.started > _LIVED_S else part.deaths + 1
            part.restart_at = now + part.pause_s
            metrics.PROCESS_RESTARTS.labels(part.name).inc()
            _log.error("process.died", process=part.name, reason=reason, seconds=part.pause_s)
            part.child.kill()
            if part.kind == _RECEIVER and self._shared is not None:
                self._shared.forget(part.number)

    def _restart(self, part: Part, now: float) -> None:
        try:
            part.child, part.started, part.restart_at = self._start(part.kind, part.number), now, None
        except Unavailable as error:
            # The others work on, and the want of memory or processes passes.
            part.deaths += 1
            part.restart_at = now + part.pause_s
            _log.error("process.postponed", process=part.name, reason=str(error), seconds=part.pause_s)

    def _stop(self) -> None:
        """All at once, then each gets its time; what does not end is killed."""
        deadline = self._clock.monotonic() + _STOP_WITHIN_S
        for part in self._parts.values():
            part.child.ask_to_stop()
        for part in self._parts.values():
            part.child.terminate(max(0.1, deadline - self._clock.monotonic()))
            part.child.kill()
            _log.event("process.stopped", process=part.name)

    def _say_when_ready(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        deadline = self._clock.monotonic() + _READY_WITHIN_S
        while not self.ready()[0] and self._clock.monotonic() < deadline:
            self._look_after()
            if stop.wait(0.2):
                return
        self._started = True
        ready, parts = self.ready()
        if not ready:
            say(f"not ready  {', '.join(name for name, part in parts.items() if part['state'] == 'red')}: see the log")
        node, web = self._config.node, self._config.web
        say(f"dicomguard {__version__}. Research use only, not for diagnosis.")
        say(f"receiver   {node.ae_title} on {node.host}:{node.port} (C-STORE, C-ECHO)")
        say(f"may send   {', '.join(peer.ae_title for peer in self._config.peers) or 'nobody yet: add [peers.NAME]'}")
        targets = ", ".join(f"{to.ae_title} at {to.host}:{to.port}" for to in self._config.destinations)
        say(f"results    {targets or 'are kept and shown on the page: no destination is named'}")
        say(f"page       http://{web.host}:{web.port}/")
        say(f"health     http://127.0.0.1:{web.health_port}/health   metrics /metrics")
        say(f"kept in    {node.state}")
        if "reason" in (model := parts.get("model", {})):
            say(f"doubtful   {model['reason']} Until then studies are reported as not analysable.")
        for sentence in doubts(self._config):
            say(f"doubtful   {sentence}")
        _log.event("node.started", ae=node.ae_title, port=node.port, version=__version__)

    # --- how it is -------------------------------------------------------------------------------------------------

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the node can take and work off a study, and each part's state: green, yellow or red.

        A destination in trouble is yellow, never red: nobody must restart a node because a PACS is down.
        """
        parts: dict[str, Any] = {
            name: {
                "state": "green" if part.restart_at is None and part.child.alive() else "red",
                "restarts": part.deaths,
            }
            for name, part in self._parts.items()
        }
        now = self._clock.now()
        try:
            with self._store.read() as tx:
                alive = Counter(
                    row.role
                    for row in executors.listing(tx)
                    if row.lease_until >= now and row.heartbeat_at >= now - _SILENCE
                )
                waiting = deliveries.waiting(tx)
                not_kept = self._commitments(tx)
                last = record.last(tx, now)
                model = self._model(tx)
        except Unavailable as error:
            return False, {**parts, "database": {"state": "red", "reason": str(error)}}
        for name, wanted in ((_RECEIVER, processes(self._config)), ("worker", 1)):
            if alive[name] < wanted:
                reason = (
                    "gives no sign of life" if wanted == 1 else f"only {alive[name]} of {wanted} give a sign of life"
                )
                parts[name] = {**parts.get(name, {}), "state": "red", "reason": reason}
        if not _listens(self._config.web.host, self._config.web.port):
            parts["page"] = {**parts.get("page", {}), "state": "red", "reason": "does not answer"}
        parts["database"] = {"state": "green"}
        parts["model"] = model
        space = self._store.space
        disk = "red" if space.stopped else "yellow" if space.low else "green"
        parts["disk"] = {"state": disk, "free_bytes": space.free_bytes}
        logs = log_slots.states(self._store.root)
        unfiled = sum(max(0, state.appended - state.filed) for state in logs)
        aside = set_aside.count(self._store.root)
        slow = unfiled > _MANY_UNFILED or aside > 0
        log_state = "red" if any(state.failed for state in logs) else "yellow" if slow else "green"
        parts["log"] = {"state": log_state, "unfiled": unfiled, "set_aside": aside}
        parts["store"] = self._inspected(last, now)
        for destination in self._config.destinations:
            late = [item for item in waiting if item.destination == destination.name and item.attempt > 0]
            kept = not_kept.get(destination.name, commitments.Trouble(failed=0, late=0))
            parts[f"destination {destination.name}"] = {
                "state": "yellow" if late or kept.failed or kept.late else "green",
                "waiting": len(late),
                "not_committed": kept.failed,
                "commitment_late": kept.late,
            }
        return all(part["state"] != "red" for part in parts.values()), parts

    def _commitments(self, tx: Tx) -> dict[str, commitments.Trouble]:
        return commitments.trouble(tx, planned_before=self._clock.now() - self._config.delivery.patience.deadline)

    def _model(self, tx: Tx) -> dict[str, Any]:
        """Who judges; yellow where it cannot run here, since studies are then reported as not analysable."""
        try:
            path = judge.weights_in_use(self._store, tx, self._config.analysis.weights)
            return {"state": "green", "id": judge.fitting(path)}
        except (Refused, Broken) as error:
            return {"state": "yellow", "reason": str(error)}

    def _inspected(self, last: record.Record | None, now: datetime) -> dict[str, Any]:
        """What the daily inspection says; yellow for a person to look, since a restart mends nothing of it."""
        if last is None:
            return {"state": "green", "verified_at": None}
        late = bool(self._config.storage.verify_at) and last.at < now - _INSPECTED_WITHIN
        state = "yellow" if last.findings or late else "green"
        return {"state": state, "verified_at": last.at.isoformat(), "findings": dict(last.findings)}

    def scrape(self) -> bytes:
        """Prometheus text; gauges are filled from the database, so that they count all processes."""
        for name, part in self._parts.items():
            metrics.PROCESS_UP.labels(name).set(part.up)
        metrics.BUILD.labels(__version__).set(1)
        metrics.DISK_FREE.set(self._store.disk.free_bytes(self._store.root))
        metrics.SET_ASIDE.clear()
        for fault, count in set_aside.count_by_fault(self._store.root).items():
            metrics.SET_ASIDE.labels(fault).set(count)
        with self._store.read() as tx:
            for gauge, counts in (
                (metrics.INSTANCES, census.instances(tx)),
                (metrics.STUDIES, worklist.counts(tx)),
                (metrics.VERDICTS, census.categories(tx)),
            ):
                gauge.clear()
                for label, count in counts.items():
                    gauge.labels(label).set(count)
            for counted in counters.listing(tx):
                if counted.name.startswith(counters.CUT):
                    metrics.CUT.labels(counted.name.removeprefix(counters.CUT), counted.peer).set(counted.value)
                else:
                    metrics.RECEIVED.labels(counted.name, counted.peer).set(counted.value)
            metrics.COMMITMENTS.clear()
            for (destination, state), count in commitments.count_by_state(tx).items():
                metrics.COMMITMENTS.labels(destination, state).set(count)
            metrics.COMMITMENTS_LATE.clear()
            for destination, found in self._commitments(tx).items():
                metrics.COMMITMENTS_LATE.labels(destination).set(found.late)
            metrics.DELIVERIES.clear()
            for (destination, state), count in deliveries.count_by_state(tx).items():
                metrics.DELIVERIES.labels(destination, state).set(count)
            self._show_receivers(log_figures.listing(tx, self._clock.now()))
            self._show_inspection(record.last(tx, self._clock.now()))
            metrics.REFUSED.clear()
            for row in refusals.recent(tx, limit=1000):
                if row.last_at > self._clock.now() - _DAY:
                    # What follows a semicolon is about one caller.
                    metrics.REFUSED.labels(row.reason.partition(";")[0]).inc(row.count)
        return generate_latest(metrics.REGISTRY)

    def _show_receivers(self, receivers: Sequence[Figures]) -> None:
        associations: Counter[str] = Counter()
        for gauge in (metrics.SEGMENTS_FREE, metrics.LOG_RECORDS, metrics.FILER_LAG, metrics.FILER_LAG_S):
            gauge.clear()
        for one in receivers:
            associations.update(one.associations)
            metrics.SEGMENTS_FREE.labels(one.slot).set(one.free_segments)
            metrics.LOG_RECORDS.labels(one.slot).set(one.records)
            metrics.FILER_LAG.labels(one.slot).set(one.unfiled)
            metrics.FILER_LAG_S.labels(one.slot).set(one.oldest_s)
        metrics.FLUSHES.show([(one.slot, one.flushes, one.flush_s) for one in receivers], bounds_s=log_figures.BOUNDS_S)
        metrics.WAITING.set(sum(one.waiting for one in receivers))
        metrics.ASSOCIATIONS.clear()
        for peer in self._config.peers:
            metrics.ASSOCIATIONS.labels(peer.name).set(associations[peer.name])

    def _show_inspection(self, last: record.Record | None) -> None:
        metrics.VERIFIED.set(last.at.timestamp() if last else 0)
        metrics.VERIFY_FINDINGS.clear()
        for kind, count in (last.findings if last else {}).items():
            metrics.VERIFY_FINDINGS.labels(kind).set(count)


def serve(
    config: Config, stop: threading.Event, reload: threading.Event, *, clock: Clock, say: Callable[[str], None]
) -> None:
    """Own the state folder and run the node in it."""
    state = config.node.state
    with lock_folder(state):
        store = open_configured(config, clock)
        try:
            Node(config, store=store, clock=clock).run(stop, reload, say=say)
        finally:
            store.close()


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


@contextmanager
def _serve_health(node: Node, port: int) -> Iterator[None]:
    """/health/live, /health/ready, /health and /metrics on loopback only."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            try:
                status, kind, body = _answer(node, self.path)
            except Unavailable as error:
                status, kind, body = 503, "text/plain", f"{error}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests of a monitor are no events."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise Refused(
            f"Port {port} of [web] health_port cannot be opened: {error.strerror}. Choose another or stop its user."
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(node: Node, path: str) -> tuple[int, str, bytes]:
    if path == "/health/live":
        return 200, "text/plain", b"alive\n"
    if path == "/metrics":
        return 200, "text/plain", node.scrape()
    if path in ("/health", "/health/ready"):
        ready, parts = node.ready()
        document = {"ready": ready, "version": __version__, "parts": parts}
        return 200 if ready else 503, "application/json", json.dumps(document, indent=1).encode() + b"\n"
    return 404, "text/plain", b"There is /health, /health/live, /health/ready and /metrics.\n"
