"""A store with a study that was received, judged, built and delivered: what verify, backup and retention look after."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dicomguard.core.delivery import Delivery, Item, State
from dicomguard.core.result import ResultKind, ResultObject
from dicomguard.core.study import Manifest
from dicomguard.store import deliveries, results, studies
from dicomguard.store.db import Store
from dicomguard.store.files import write_durably
from dicomguard.store.intake import receive_file
from tests.instances import CT1, ROOT, part10_file

SR = "1.2.840.10008.5.1.4.1.1.88.34"


@dataclass(frozen=True)
class Kept:
    """Where everything of one study lies."""

    key: str
    # Relative to the root.
    instances: tuple[str, ...]
    results: tuple[ResultObject, ...]
    verdict: str


def receive(store: Store, folder: Path, *, study: int = 1, slices: int = 2, first: int = 0) -> tuple[str, ...]:
    """Instances of a study; their paths relative to the root, the study's key in front."""
    uid = f"{ROOT}.{study}"
    outcomes = [
        receive_file(
            store,
            CT1,
            part10_file(folder, study=uid, series=f"{uid}.1", sop=f"{uid}.1.{number}", InstanceNumber=number),
            channel="cli",
        )
        for number in range(first, first + slices)
    ]
    return (outcomes[0].study_key, *(outcome.instance.path for outcome in outcomes))


def deliver(store: Store, key: str, number: int, kept: tuple[ResultObject, ...], state: State = State.SENT) -> None:
    """One delivery to `archive`, its items in `state`."""
    now = store.clock.now()
    items = tuple(Item(kind=value.kind, forms=(value.sop_instance_uid,), state=state) for value in kept)
    waits = now if state is State.WAITING else None
    delivery = Delivery(
        study_key=key, revision=number, destination="archive", items=items, planned_at=now, next_at=waits
    )
    with store.begin() as tx:
        deliveries.plan(tx, [delivery])


def result(kind: ResultKind, content: bytes, *, study: int = 1, number: int = 1, order: int = 0) -> ResultObject:
    """A result whose UID says what it is."""
    return ResultObject(
        kind=kind,
        sop_class_uid=SR,
        sop_instance_uid=f"{ROOT}.{study}.99.{number}.{order}",
        series_instance_uid=f"{ROOT}.{study}.99",
        sha256=hashlib.sha256(content).hexdigest(),
        order=order,
    )


def judge(store: Store, key: str, *, study: int = 1, state: str = "done") -> tuple[str, tuple[ResultObject, ...]]:
    """Close the collection, and keep manifest, verdict and results of the revision; returns the verdict's path."""
    now = store.clock.now()
    with store.begin() as tx:
        opened = studies.open_revision(tx, key, closed_because="quiet", now=now)
        manifest = Manifest(
            study_instance_uid=opened.study_instance_uid, revision=opened.number, opened_because="first", series=()
        )
        studies.keep_manifest(tx, key, opened.number, manifest)
    content = f'{{"study": "{key}", "revision": {opened.number}}}'.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    path = f"results/{key}/r{opened.number}/{sha256[:16]}/verdict.json"
    write_durably(store.disk, store.root, path, [content])
    with store.begin() as tx:
        studies.keep_verdict(
            tx,
            key,
            opened.number,
            verdict_sha256=sha256,
            path=path,
            category="real",
            score=0.1,
            complete=True,
            model_id="m",
            now=now,
        )
        studies.advance(tx, key, opened.number, state, from_=("opened",))
    report = f"report {key} {opened.number}".encode()
    picture = f"segmentation {key} {opened.number}".encode()
    objects = [
        (result("SEG", picture, study=study, number=opened.number), picture),
        (result("SR", report, study=study, number=opened.number, order=1), report),
    ]
    return path, results.keep(store, key, opened.number, objects)


def finished(store: Store, folder: Path, *, study: int = 1, slices: int = 2) -> Kept:
    """A study that is done."""
    key, *paths = receive(store, folder / f"in{study}", study=study, slices=slices)
    verdict, kept = judge(store, key, study=study)
    deliver(store, key, 1, kept)
    return Kept(key=key, instances=tuple(paths), results=kept, verdict=verdict)


def pass_time(store: Store, delta: timedelta) -> None:
    """Of the store's fake clock."""
    store.clock.advance(delta)  # type: ignore[attr-defined]
