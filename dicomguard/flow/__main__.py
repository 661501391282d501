"""The worker process: `python -m dicomguard.flow --config FILE`; one or more, on any host with the store."""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import zoneinfo
from datetime import timedelta
from pathlib import Path

from dicomguard import __version__, config, log
from dicomguard.clock import SystemClock
from dicomguard.config import changes
from dicomguard.core import uid
from dicomguard.core.completion import Patience
from dicomguard.core.peer import Peer
from dicomguard.deliver.association import Timeouts
from dicomguard.errors import DicomguardError, Refused
from dicomguard.flow import commitment, completion, delivery, inspection, retention, retraining, study, sweep
from dicomguard.flow.analysts import Analysts
from dicomguard.flow.engine import Engine, lock_state, work_database
from dicomguard.sr.build import NodeIdentity
from dicomguard.store.db import Store, make_wal, open_configured

_GRACE_S = 5

_log = log.get("flow")


def run(settings: config.Config, stop: threading.Event, reload: threading.Event) -> None:
    """Work until `stop` is set; read anew how long senders' studies are waited for when `reload` is."""
    clock = SystemClock()
    state = settings.node.state
    store = open_configured(settings, clock)
    shared = settings.database_url.startswith("postgresql")
    node = f"{settings.node.name}@{socket.gethostname()}" if shared else settings.node.name
    # With SQLite one worker owns the folder; with PostgreSQL several hosts share it, one worker a name each.
    with lock_state(state, name=f"worker-{uid.derive('worker', node)}" if shared else "worker"):
        if not shared:
            make_wal(state / "work.sqlite")
        engine = Engine(
            node=node,
            database_url=work_database(state, settings.database_url),
            studies_at_once=settings.analysis.children,
        )
        with Analysts(settings.analysis.children) as analysts:
            _register(engine, store, clock, settings, analysts, stop)
            beat = sweep.Sweep(engine=engine, store=store, clock=clock, node=node, settings=_times(settings))
            beat.begin()
            commitment.release(store, settings.destinations)
            engine.launch()
            with (
                retraining.schedule(store, settings, clock),
                retention.running(store, retention.policy(settings)),
                inspection.running(store, settings),
            ):
                while not stop.wait(1.0):
                    if reload.is_set():
                        reload.clear()
                        settings = _reload(beat, settings)
                    beat.tick()
            engine.close(_GRACE_S)
            beat.end()


def _register(
    engine: Engine,
    store: Store,
    clock: SystemClock,
    settings: config.Config,
    analysts: Analysts,
    stop: threading.Event,
) -> None:
    work = study.StudyWork(
        store=store,
        clock=clock,
        settings=study.Settings(
            node=NodeIdentity(
                device_uid=uid.device(settings.node.name),
                name=settings.node.name,
                version=__version__,
                timezone=zoneinfo.ZoneInfo(settings.node.timezone),
            ),
            rules=settings.rules,
            routes=settings.routes,
            destinations=settings.destinations,
            weights=settings.analysis.weights,
            device=settings.analysis.device,
            threads=settings.analysis.threads,
            deadline_s=settings.analysis.deadline_s,
            decode_memory_bytes=settings.analysis.decode_memory_bytes,
            decode_s=settings.analysis.decode_s,
        ),
        analyse=analysts.analyse,
        # Set before the engine closes: a child that ends with its worker says nothing about the study.
        stopping=stop.is_set,
    )
    engine.register(study.WORKFLOW, work.run)
    sending = delivery.DeliveryWork(
        store=store,
        clock=clock,
        settings=delivery.Settings(
            calling_ae=settings.node.ae_title,
            destinations={item.name: item for item in settings.destinations},
            backoff=settings.delivery.backoff,
            timeouts=Timeouts(connect_s=settings.delivery.connect_s, answer_s=settings.delivery.answer_s),
        ),
    )
    engine.register(study.DELIVERY_WORKFLOW, sending.run)
    committing = commitment.CommitmentWork(
        store=store,
        clock=clock,
        settings=commitment.Settings(
            calling_ae=settings.node.ae_title,
            destinations={item.name: item for item in settings.destinations},
            patience=settings.delivery.patience,
            timeouts=Timeouts(connect_s=settings.delivery.connect_s, answer_s=settings.delivery.answer_s),
            linger_s=settings.delivery.commitment_linger_s,
        ),
    )
    engine.register(commitment.COMMIT_WORKFLOW, committing.run)
    engine.register(commitment.ANSWER_WORKFLOW, committing.answer)
    retraining.register(engine, store, settings, clock)


def _reload(beat: sweep.Sweep, settings: config.Config) -> config.Config:
    """The patience of the file as it is now; a file that cannot be used changes nothing."""
    if settings.file is None:
        return settings
    try:
        now = changes.renewed(settings, config.load(settings.file))
    except Refused as error:
        _log.error("configuration.refused", reason=str(error))
        return settings
    beat.renew(_times(now))
    _log.event("configuration.taken", name=changes.changed(settings, now), count=len(now.peers))
    return now


def _times(settings: config.Config) -> sweep.Settings:
    usual = settings.completion
    patience = Patience(
        quiet=timedelta(seconds=usual.quiet_s),
        longest=timedelta(seconds=usual.longest_s),
        quiet_released=timedelta(seconds=usual.quiet_released_s),
    )
    # Two peers of one AE title: the first has it, as in admission.
    senders = {peer.ae_title: _terms(peer, usual) for peer in reversed(settings.peers)}
    hold = timedelta(seconds=usual.assoc_hold_s)
    return sweep.Settings(
        completion=completion.Settings(patience=patience, association_hold=hold, senders=senders),
        backoff=settings.delivery.backoff,
        patience=settings.delivery.patience,
    )


def _terms(peer: Peer, usual: config.Completion) -> completion.Terms:
    def of(own: float | None, general: float) -> timedelta:
        return timedelta(seconds=general if own is None else own)

    return completion.Terms(
        patience=Patience(
            quiet=of(peer.quiet_s, usual.quiet_s),
            longest=of(peer.longest_s, usual.longest_s),
            quiet_released=of(peer.quiet_released_s, usual.quiet_released_s),
        ),
        association_hold=of(peer.assoc_hold_s, usual.assoc_hold_s),
        urgent=peer.urgent,
    )


def main() -> None:
    """Process entry."""
    parser = argparse.ArgumentParser(prog="python -m dicomguard.flow", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="TOML file; else DICOMGUARD_CONFIG, else defaults")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    reload = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    # Children start with it blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        settings = config.load(arguments.config)
        log.configure(settings.node.log_level)
        run(settings, stop, reload)
    except DicomguardError as error:
        _log.error("worker.ended", reason=str(error))
        _leave(error.exit_status)
    _leave(0)


def _leave(status: int) -> None:
    """End now. A step that outlived the grace is left in the middle, as by a kill; the next worker does it again."""
    logging.shutdown()
    sys.stderr.flush()
    # An ordinary exit would wait for the engine's threads, and so for an analysis.
    os._exit(status)


if __name__ == "__main__":
    main()
