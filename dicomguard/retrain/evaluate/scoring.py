"""Files in, verdict out: the production path as the evaluation uses it.

Headers are read and a manifest is frozen exactly as for a received study; one warm analysis child judges all of them.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard import headers, part10
from dicomguard.analyze import client, masks
from dicomguard.core.freeze import freeze
from dicomguard.core.instance import Header, Instance
from dicomguard.core.job import AnalysisJob
from dicomguard.core.verdict import Model
from dicomguard.errors import Refused, Unavailable

# The manifest's hash covers no time; a fixed one keeps runs equal.
_RECEIVED_AT = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A finding of the verdict with its masks."""

    # real, added or removed.
    category: str
    p_forged: float
    p_tumor: float
    # SOP Instance UID → H×W.
    masks: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What the production path says of one study."""

    # The verdict document, `dicomguard.verdict/1`.
    document: dict[str, Any]
    # SOP Instance UID → H×W union of the regions found added or removed.
    forged: dict[str, NDArray[np.bool_]]
    # All findings.
    regions: tuple[Region, ...] = ()


Score: TypeAlias = Callable[[Sequence[Path]], Scored]


class Scorer(AbstractContextManager["Scorer"]):
    """Judges studies with one set of weights. Use it in a `with`; it owns the child."""

    def __init__(self, weights: Path, *, threads: int = 1, device: str = "") -> None:
        self._weights = weights.resolve()
        self._threads, self._device = threads, device
        self.model: Model = client.model_of(self._weights)
        self._analyst = client.Analyst()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._analyst.close()

    def __call__(self, files: Sequence[Path]) -> Scored:
        """Judge one study; files that are no DICOM images are left out as the receiver would leave them."""
        pairs = [pair for pair in map(_read, files) if pair is not None]
        if not pairs:
            raise Refused(f"None of the {len(files)} files is a DICOM instance. Give DICOM files.")
        manifest = freeze(
            pairs,
            study_instance_uid=pairs[0][0].study_instance_uid,
            revision=1,
            opened_because="first",
            calling_ae="",
            rules=(),
            scope=self.model.scope,
        )
        sizes = {header.sop_instance_uid: (header.rows, header.columns) for header, _ in pairs}
        with tempfile.TemporaryDirectory() as folder:
            job = AnalysisJob(
                manifest=manifest,
                files_root="/",
                output=folder,
                weights=str(self._weights),
                device=self._device,
                threads=self._threads,
            )
            try:
                report = self._analyst.run(job)
            except Unavailable:
                # The child died or hung; a second one is started, as the worker would. Twice is no accident.
                report = self._analyst.run(job)
            verdict = client.read_verdict(report)
            document = json.loads(Path(report.verdict_path).read_bytes())
            regions: tuple[Region, ...] = ()
            if report.masks_path is not None:
                found = masks.unpack(Path(report.masks_path).read_bytes(), verdict.findings, sizes.__getitem__)
                regions = tuple(
                    Region(
                        category=finding.category,
                        p_forged=finding.p_forged,
                        p_tumor=finding.p_tumor,
                        masks={sop: mask for sop, _, mask in found[finding.id]},
                    )
                    for finding in verdict.findings
                )
        return Scored(document=document, forged=_union(regions), regions=regions)


class Scorers(AbstractContextManager["Scorers"]):
    """So many scorers beside each other, for as many callers."""

    def __init__(self, weights: Path, *, count: int) -> None:
        self._all = [Scorer(weights) for _ in range(count)]
        self._free: SimpleQueue[Scorer] = SimpleQueue()
        for one in self._all:
            self._free.put(one)

    @property
    def model(self) -> Model:
        """What the weights say of themselves."""
        return self._all[0].model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._all:
            one.__exit__(kind, error, trace)

    def __call__(self, files: Sequence[Path]) -> Scored:
        """As `Scorer`; a caller waits while all are busy."""
        one = self._free.get()
        try:
            return one(files)
        finally:
            self._free.put(one)


def _union(regions: Sequence[Region]) -> dict[str, NDArray[np.bool_]]:
    forged: dict[str, NDArray[np.bool_]] = {}
    for region in regions:
        if region.category in ("added", "removed"):
            for sop, mask in region.masks.items():
                forged[sop] = forged[sop] | mask if sop in forged else mask
    return forged


def _read(path: Path) -> tuple[Header, Instance] | None:
    try:
        header = headers.read_header(path)
        offset = part10.dataset_offset(path)
    except Refused:
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(1 << 20):
            digest.update(block)
    return header, Instance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        sha256=digest.hexdigest(),
        size_bytes=path.stat().st_size,
        path=str(path.resolve().relative_to("/")),
        calling_ae="",
        called_ae="",
        address="",
        received_at=_RECEIVED_AT,
    )


def study_of(path: Path) -> str | None:
    """Study Instance UID of a file; None when it is no DICOM instance."""
    try:
        return headers.read_header(path).study_instance_uid
    except Refused:
        return None
