"""What a stranger's file meets inside: the door of the store, the frozen list, the decoding child, the report.

Each mutant goes as far as a real one would. Only the errors of the house may come out, each within `MOST_S`; everything
else is a `Fault` that names the mutant and keeps it.
"""

import collections
import hashlib
import json
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dicomguard import headers, part10
from dicomguard.analyze import masks, study
from dicomguard.analyze.judging import JudgedRegion, JudgedStack, Plane
from dicomguard.analyze.pixels import Reader
from dicomguard.core import freeze
from dicomguard.core.instance import Header, Instance
from dicomguard.core.job import AnalysisJob
from dicomguard.core.study import Manifest
from dicomguard.core.verdict import Model, ModelScope, OperatingPoint, Software, Verdict
from dicomguard.errors import DicomguardError, Refused, Unavailable
from dicomguard.sr import build as sr_build
from dicomguard.store.db import Store
from dicomguard.store.files import SystemDisk, read_pieces
from dicomguard.store.identity import Identity, read_identity
from dicomguard.store.intake import Outcome, Sender, open_instance, receive_file
from tests import sr_cases
from tests.fuzz import memory
from tests.fuzz.datasets import Mutant

MOST_S = 5.0
STRANGER = Sender(peer="ct1", calling_ae="CT1", called_ae="DICOMGUARD", address="192.0.2.7")
SCOPE = ModelScope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair",))
MODEL = Model(
    id="m", name="dicomguard", version="1", weights_sha256="", architecture="", card="", scope=SCOPE,
    operating_point=OperatingPoint(
        name="alert", forgery=0.6, tumor=0.5, false_alarm_upper=0.06, n_authentic=100, flagged=2
    ),
)  # fmt: skip
_PAST = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class LooseDisk(SystemDisk):
    """Flushes nothing: a campaign asks whether bytes are understood, not whether they survive."""

    def sync(self, file: Any) -> None:
        """Nothing."""
        file.flush()

    def sync_folder(self, folder: Path) -> None:
        """Nothing."""


class Discs:
    """Judges every stack alike: a tumor on its first slice, a forgery on its last, so that regions are drawn."""

    def stack(
        self,
        slices: Sequence[Plane],
        *,
        positions_mm: Sequence[float | None],
        spacing_mm: tuple[float, float] | None,
        elsewhere: int,
    ) -> JudgedStack:
        """As `analyze.judging.Judge`."""
        count = len(slices)

        def disc(plane: Plane) -> Any:
            y, x = np.mgrid[0 : plane.shape[0], 0 : plane.shape[1]]
            return np.hypot(y - plane.shape[0] / 2, x - plane.shape[1] / 2) < min(plane.shape) / 8

        regions = (
            JudgedRegion(masks={0: disc(slices[0])}, p_forged=0.1, p_tumor=0.9, p_lesion=0.9),
            JudgedRegion(masks={count - 1: disc(slices[-1])}, p_forged=0.95, p_tumor=0.2, p_lesion=0.2),
        )
        return JudgedStack(
            scores=(0.7,) * count, skipped=("",) * count, head_pixels=(1000,) * count, regions=regions, forgery=0.95,
            tumor=0.9, smoothing=1.5, edited_alike=False,
        )  # fmt: skip


@dataclass
class Campaign:
    """Runs mutants and counts how they ended."""

    folder: Path
    reader: Reader
    # None: through the readers only, without rows.
    store: Store | None = None
    # One in so many is also reported on; a report costs more than all the rest.
    report_every: int = 1
    # Without a store: which copy under its UID each mutant is; above 0 it is in conflict with another.
    ordinal: int = 0
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: dict[str, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    _seen: set[str] = field(default_factory=set)

    def run(self, mutants: Iterable[Mutant], *, on_new: Callable[[Mutant], None] = lambda mutant: None) -> None:
        """All of them; `on_new` gets each that ended in a way not seen before."""
        with warnings.catch_warnings():
            # pydicom's on odd values; what is wrong with a value shows where it is used.
            warnings.simplefilter("ignore")
            self._run(mutants, on_new)

    def _run(self, mutants: Iterable[Mutant], on_new: Callable[[Mutant], None]) -> None:
        for mutant in mutants:
            # Under a name of its own: the decoding child keeps the last file open by its path.
            path = self.folder / f"mutant-{self.count:07d}.dcm"
            path.write_bytes(mutant.data)
            began = time.thread_time()
            signature = self._one(mutant, path)
            spent = time.thread_time() - began
            path.unlink()
            self.slowest_s = max(self.slowest_s, spent)
            if spent > MOST_S:
                self._fault(mutant, f"took {spent:.1f} s")
            if signature not in self._seen:
                self._seen.add(signature)
                on_new(mutant)

    @property
    def count(self) -> int:
        """Mutants so far."""
        return sum(self.ends.values())

    def document(self) -> dict[str, Any]:
        """How they ended, for a test and for a person."""
        return {
            "count": self.count,
            "ends": dict(self.ends.most_common()),
            "ways": len(self._seen),
            "slowest_s": round(self.slowest_s, 2),
            "peak_mib": memory.peak_mib(),
            "faults": self.faults,
        }

    def _one(self, mutant: Mutant, path: Path) -> str:
        try:
            end = self._through(path)
        except DicomguardError as error:
            # Only the door may refuse; what it let in has to reach its report.
            end = f"broke: {type(error).__name__}"
            self._fault(mutant, _place(error))
        except Exception as error:  # noqa: BLE001 -- anything else is what this looks for.
            end = f"broke: {type(error).__name__}"
            self._fault(mutant, _place(error))
        self.ends[end.split(" at ")[0]] += 1
        return end

    def _fault(self, mutant: Mutant, what: str) -> None:
        if what not in self.faults:
            kept = self.folder / f"fault-{len(self.faults):03d}.dcm"
            kept.write_bytes(mutant.data)
            (self.folder / f"fault-{len(self.faults):03d}.txt").write_text(f"{what}\n{mutant.recipe}\n")
            self.faults[what] = kept.name

    def _through(self, path: Path) -> str:
        if self.store is not None:
            outcome = _received(self.store, path)
            if isinstance(outcome, str):
                return outcome
            if outcome.study_key == "":
                return "quarantined"
            file, instance, root = self.store.root / outcome.instance.path, outcome.instance, self.store.root
        else:
            try:
                meta = part10.read_meta(path)
                with path.open("rb") as opened:
                    identity = read_identity(opened)
                identity.check(sop_class_uid=identity.sop_class, sop_instance_uid=identity.sop_uid)
            except Refused as error:
                return f"not taken at {_cause(error)}"
            file, root = path, Path("/")
            instance = replace(_instance(identity, path, meta), ordinal=self.ordinal)
        _pixels(file)
        try:
            header = headers.read_header(file)
            end = "read"
        except Refused as error:
            header = freeze.unreadable(instance)
            end = f"header unread at {_cause(error)}"
        return self._analysed(header, instance, root) + f", {end}"

    def _analysed(self, header: Header, instance: Instance, root: Path) -> str:
        manifest = freeze.freeze(
            [(header, instance)], study_instance_uid=instance.study_instance_uid, revision=1, opened_because="first",
            calling_ae="CT1", rules=(), scope=SCOPE,
        )  # fmt: skip
        assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
        answer = study.examine(
            AnalysisJob(manifest=manifest, files_root=str(root), output="", weights=""),
            judge=Discs(),
            source=self.reader,
            model=MODEL,
            software=Software(name="dicomguard", version="0", analyze_version="1"),
            created=lambda: "2026-01-02T03:04:05+00:00",
        )
        verdict = Verdict.from_json(json.loads(json.dumps(answer.verdict.to_json())))
        try:
            heads = {instance.sop_instance_uid: part10.read_dataset_head(root / instance.path)}
        except Refused as error:
            return f"{verdict.category} without head at {_cause(error)}"
        if self.count % self.report_every:
            return f"judged {verdict.category}"
        drawn = (
            masks.unpack(answer.masks, verdict.findings, lambda uid: (int(heads[uid].Rows), int(heads[uid].Columns)))
            if answer.masks is not None
            else {}
        )
        built = sr_build.build(verdict, manifest, headers=heads, masks=drawn, node=sr_cases.NODE)
        sr_build.fallback(built[-1].dataset)
        return f"reported {verdict.category}"


def _received(store: Store, path: Path) -> Outcome | str:
    """As C-STORE brings it: UIDs of the request that fit when there are any, dataset bytes as they are."""
    try:
        meta = part10.read_meta(path)
    except Refused:
        try:
            return receive_file(store, STRANGER, path, channel="upload")
        except Refused as error:
            return f"not taken at {_cause(error)}"
    with path.open("rb") as file:
        try:
            identity = read_identity(file)
        except Refused:
            identity = Identity.unknown(meta.sop_instance_uid)
    try:
        with open_instance(
            store,
            STRANGER,
            sop_class_uid=identity.sop_class or meta.sop_class_uid,
            sop_instance_uid=identity.sop_uid or meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            association_id=None,
        ) as incoming:
            for piece in read_pieces(path, start=meta.dataset_offset):
                incoming.write(piece)
            return incoming.commit()
    except (Refused, Unavailable) as error:
        return f"not taken at {_cause(error)}"


def _pixels(file: Path) -> None:
    try:
        part10.pixel_sha256(file)
    except Refused:
        return


def _instance(identity: Identity, path: Path, meta: part10.FileMeta) -> Instance:
    data = path.read_bytes()[meta.dataset_offset :]
    return Instance(
        sop_instance_uid=identity.sop_uid, sop_class_uid=identity.sop_class, study_instance_uid=identity.study_uid,
        series_instance_uid=identity.series_uid, transfer_syntax_uid=meta.transfer_syntax_uid,
        sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), path=str(path.relative_to("/")),
        calling_ae="CT1", called_ae="DICOMGUARD", address="192.0.2.7", received_at=_PAST,
    )  # fmt: skip


def _cause(error: BaseException) -> str:
    """Where the first error of the chain arose: what a new path through the readers looks like."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno}" if last else type(error).__name__


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "dicomguard" in frame.filename]
    ours = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    return f"{type(error).__name__}: {str(error)[:120]} at {ours} (first {_cause(error)})"
