"""What earlier steps and revisions left in the store, read back and verified."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import pydicom

from dicomguard import headers, log, part10
from dicomguard.analyze import masks
from dicomguard.core import freeze
from dicomguard.core.instance import Header, Instance
from dicomguard.core.job import AnalysisReport
from dicomguard.core.study import CONFLICT_COPY, Manifest
from dicomguard.core.verdict import Predecessor, Verdict
from dicomguard.errors import Broken, Refused, shortage
from dicomguard.flow.states import BEGAN_DELIVERY
from dicomguard.sr.build import Earlier, tracking_uids
from dicomguard.store import results, studies
from dicomguard.store.db import Store, Tx

Masks = Mapping[str, list[tuple[str, int | None, masks.Mask]]]
T = TypeVar("T")

_log = log.get("flow")


def present(value: T | None, what: str) -> T:
    """The value, which a finished step has kept; `Broken` when it is gone."""
    if value is None:
        raise Broken(f"The {what} of the revision is missing though its step is done. Open a new revision.")
    return value


def verified(path: Path, sha256: str) -> bytes:
    """The bytes of a file whose hash was taken when it was written."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Broken(f"{path.name} differs from the hash taken when it was written. Analyse the study again.")
    return content


def read_report(report: AnalysisReport) -> tuple[Verdict, bytes | None]:
    """Verdict and mask file of a finished job."""
    verdict = Verdict.from_json(json.loads(verified(Path(report.verdict_path), report.verdict_sha256)))
    if report.masks_path is None:
        return verdict, None
    return verdict, verified(Path(report.masks_path), present(report.masks_sha256, "hash of the masks"))


def verdict(store: Store, study_key: str, number: int) -> tuple[Verdict, Path]:
    """The verdict of a revision, and the folder that also holds its masks."""
    with store.read() as tx:
        kept = present(studies.kept_verdict(tx, study_key, number), "verdict")
    path = store.root / kept.path
    return Verdict.from_json(json.loads(verified(path, kept.sha256))), path.parent


def drop_other_verdicts(store: Store, study_key: str, number: int) -> None:
    """Remove the folders of verdicts that another has replaced."""
    with store.read() as tx:
        kept = present(studies.kept_verdict(tx, study_key, number), "verdict")
    counts = (store.root / kept.path).parent
    for folder in (store.root / "results" / study_key / f"r{number}").iterdir():
        if folder.is_dir() and folder != counts:
            shutil.rmtree(folder, ignore_errors=True)


def header(store: Store, instance: Instance) -> Header:
    """The header of a kept file; one that cannot be read costs its own slice and not the study."""
    try:
        return headers.read_header(store.root / instance.path)
    except (Refused, FileNotFoundError) as error:
        refuse_shortage(error)
        _log.error("header.unreadable", kind=type(error).__name__)
        return freeze.unreadable(instance)


def refuse_shortage(error: Exception) -> None:
    """Raise `Shortage` where a file could not be read because of the machine: it says nothing about the file."""
    passing = shortage(error)
    if passing is not None:
        raise passing from error


def dataset_heads(store: Store, manifest: Manifest, instances: Iterable[Instance] = ()) -> dict[str, pydicom.Dataset]:
    """Datasets without pixels by SOP Instance UID; of several copies the one that counts.

    `instances` stand in for a manifest without slices. A head that cannot be read is left out.
    """
    # Copies that were not analysed come first and are overwritten; at another place they have a stack of their own.
    paths = {
        item.sop_instance_uid: item.path
        for other in (True, False)
        for plan in manifest.series
        for item in plan.slices
        if (item.skipped == CONFLICT_COPY) == other
    } or {instance.sop_instance_uid: instance.path for instance in instances}
    heads = {}
    for uid, path in paths.items():
        head = dataset_head(store, path)
        if head is not None:
            heads[uid] = head
    return heads


def dataset_head(store: Store, path: str, *, tags: tuple[str, ...] | None = None) -> pydicom.Dataset | None:
    """A kept dataset without pixels, of `tags` (keywords) only where they are given; None when it cannot be read."""
    try:
        return part10.read_dataset_head(store.root / path, tags=tags)
    except (Refused, FileNotFoundError) as error:
        refuse_shortage(error)
        return None


def unpacked_masks(folder: Path, verdict: Verdict, headers: Mapping[str, pydicom.Dataset]) -> Masks:
    """Masks by finding; empty without findings."""
    if verdict.masks is None:
        return {}
    content = verified(folder / "masks.npz", verdict.masks.sha256)
    return masks.unpack(content, verdict.findings, lambda uid: (int(headers[uid].Rows), int(headers[uid].Columns)))


def predecessor(tx: Tx, study_key: str, number: int) -> Predecessor | None:
    """The last revision that began delivery; one that was cancelled before is never named."""
    for earlier in reversed(studies.revisions(tx, study_key)):
        if earlier.number >= number or studies.state(tx, study_key, earlier.number) not in BEGAN_DELIVERY:
            continue
        kept = studies.kept_verdict(tx, study_key, earlier.number)
        report = next((r for r in results.of_revision(tx, study_key, earlier.number) if r.kind == "SR"), None)
        if kept is not None and report is not None:
            return Predecessor(
                verdict_sha256=kept.sha256,
                revision=earlier.number,
                sr_sop_instance_uid=report.sop_instance_uid,
                sr_sop_class_uid=report.sop_class_uid,
                sr_series_instance_uid=report.series_instance_uid,
            )
    return None


def earlier(store: Store, study_key: str, number: int) -> Earlier | None:
    """The revision that this one replaces, as `sr.build` wants it: regions that stay keep their tracking UID."""
    with store.read() as tx:
        named = predecessor(tx, study_key, number)
        if named is None:
            return None
        manifest = present(studies.manifest(tx, study_key, named.revision), "manifest")
        reports = [item for item in results.of_revision(tx, study_key, named.revision) if item.kind == "SR"]
    old, folder = verdict(store, study_key, named.revision)
    headers = dataset_heads(store, manifest)
    # Without the images that retention deleted, regions cannot be compared; they get tracking UIDs of their own.
    whole = all(place.sop_instance_uid in headers for finding in old.findings for place in finding.slices)
    return Earlier(
        verdict=old,
        masks=unpacked_masks(folder, old, headers) if whole else {},
        tracking_uids=tracking_uids(pydicom.dcmread(results.bytes_path(store, reports[0]))),
    )
