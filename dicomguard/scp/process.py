"""The receiver's process: open the store and the port, give signs of life, end in order on SIGTERM."""

import secrets
import signal
import socket
import sys
import threading
import warnings
from datetime import timedelta

from dicomguard import log
from dicomguard.clock import SystemClock
from dicomguard.config import Config, changes, load
from dicomguard.errors import Refused, Unavailable
from dicomguard.scp import commitment
from dicomguard.scp.guard import Caps
from dicomguard.scp.server import Bounds, Receiver
from dicomguard.scp.shared import Inherited, Tally, bind_all, taken
from dicomguard.scp.tls import Certificates, Files
from dicomguard.store import associations, executors, log_figures
from dicomguard.store.db import Store, open_configured
from dicomguard.store.files import remove_leftovers
from dicomguard.store.log_figures import Figures
from dicomguard.store.replay import close_log, open_log

_LOG = log.get("scp")
HEARTBEAT_S = 2.0
LEASE_S = 10.0
# Temporary files of a dead process; younger ones may belong to a living one.
_LEFTOVER = timedelta(hours=1)
_STOP_PATIENCE_S = 10.0
_SWITCH_S = 0.0002


def run(config: Config, inherited: Inherited | None = None) -> int:
    """Serve until SIGTERM or SIGINT, alone or as one of several; returns the exit status."""
    log.configure(config.node.log_level)
    # pydicom's warnings quote values, and Python keeps each different one for ever.
    warnings.simplefilter("ignore")
    # The thread that files gives way to those that a sender waits for: each of their calls would else wait for 5 ms.
    sys.setswitchinterval(_SWITCH_S)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    renew = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: renew.set())
    # Children start with it blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    store = open_configured(config, SystemClock())
    process = f"receiver-{secrets.token_hex(8)}"
    return _serve(config, inherited, store, process, stop, renew)


def _serve(
    config: Config,
    inherited: Inherited | None,
    store: Store,
    process: str,
    stop: threading.Event,
    renew: threading.Event,
) -> int:
    tally = Tally.alone() if inherited is None else inherited.open_tally()
    open_log(
        store,
        segments=config.storage.log_segments,
        segment_bytes=config.storage.log_segment_bytes,
        processes=tally.of,
    )
    remove_leftovers(store.root, older_than=(store.clock.now() - _LEFTOVER).timestamp())
    receiver = Receiver(
        store,
        process=process,
        ae_title=config.node.ae_title,
        peers=config.peers,
        bounds=_bounds(config),
        tally=tally,
    )
    certificates = _certificates(config)
    alive = _beat(store, process, config.node.name)
    bound = bind_all(config) if inherited is None else inherited.listeners()
    if certificates is not None:
        _open(receiver, config, bound["tls"], certificates)
    _open(receiver, config, bound["node"], None)
    stopped = False
    while alive and not stop.wait(HEARTBEAT_S):
        alive = _beat(store, process, config.node.name, receiver.figures())
        asked = renew.is_set()
        if asked:
            renew.clear()
            config = _reload(receiver, config)
        if certificates is not None:
            certificates.renew(anyway=asked)
        if store.space.stopped is not stopped:
            stopped = store.space.stopped
            _LOG.warning("reception.stopped" if stopped else "reception.resumed", free_bytes=store.space.free_bytes)
    receiver.close(patience_s=_STOP_PATIENCE_S)
    close_log(store, patience_s=_STOP_PATIENCE_S)
    _retire(store, process)
    store.close()
    _LOG.event("receiver.stopped", reason="asked to" if alive else "its lease was taken away")
    return 0 if alive else Unavailable.exit_status


def _bounds(config: Config) -> Bounds:
    return Bounds(
        caps=Caps(
            associations=config.receive.max_associations,
            associations_per_peer=config.receive.max_associations_per_peer,
            connections_per_s=config.receive.connections_per_s,
        ),
        max_pdu_bytes=config.receive.max_pdu_bytes,
        idle_s=config.receive.idle_s,
        warn_of_conflict=config.receive.conflict_warning,
        commitment=commitment.Settings(
            reachable=frozenset(item.ae_title for item in config.destinations),
            patience=config.delivery.patience,
        ),
    )


def _reload(receiver: Receiver, config: Config) -> Config:
    """Peers and bounds of the file as it is now; a file that cannot be used changes nothing."""
    if config.file is None:
        return config
    try:
        now = changes.renewed(config, load(config.file))
    except Refused as error:
        _LOG.error("configuration.refused", reason=str(error))
        return config
    receiver.renew(now.peers, _bounds(now))
    _LOG.event("configuration.taken", name=changes.changed(config, now), count=len(now.peers))
    return now


def _open(receiver: Receiver, config: Config, bound: socket.socket, certificates: Certificates | None) -> None:
    kind = "node" if certificates is None else "tls"
    host, port = bound.getsockname()[:2]
    try:
        receiver.open(bound, certificates)
    except OSError as error:
        raise taken(error, host, port, kind) from error
    _LOG.event("receiver.opened", host=host, port=port, kind=kind, ae=config.node.ae_title, count=len(config.peers))


def _certificates(config: Config) -> Certificates | None:
    """What TLS needs; raises `Refused` when it is asked for and its files are of no use."""
    tls = config.tls
    if not tls.port or tls.certificate is None or tls.key is None or tls.authorities is None:
        return None
    return Certificates(Files(certificate=tls.certificate, key=tls.key, authorities=tls.authorities))


def _beat(store: Store, process: str, node: str, figures: Figures | None = None) -> bool:
    """Renew the lease, say how we stand, close what dead receivers left open; a database that is away is waited for."""
    try:
        with store.begin() as tx:
            now = store.clock.now()
            alive = executors.beat(tx, process, node, now, now + timedelta(seconds=LEASE_S), role="receiver")
            lost = associations.close_lost(tx, now)
            if figures is not None:
                log_figures.keep(tx, process, figures, until=now + timedelta(seconds=LEASE_S))
    except Unavailable as error:
        _LOG.warning("heartbeat.missed", reason=str(error))
        return True
    if lost:
        _LOG.warning("association.lost", count=lost)
    return alive


def _retire(store: Store, process: str) -> None:
    try:
        with store.begin() as tx:
            executors.retire(tx, process)
            log_figures.drop(tx, process)
    except Unavailable as error:
        _LOG.warning("heartbeat.missed", reason=str(error))
