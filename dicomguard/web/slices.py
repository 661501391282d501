"""The slices of a study as the viewer wants them: series, order, outlines, scores. Pure but for sizes in headers.

Outlines go to the page as points of an SVG polygon over the picture, so that the pixels in question stay visible and
the browser can hide the lines; their strokes are those of `sr.overlay`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from dicomguard import part10
from dicomguard.core import wording
from dicomguard.core.finding import Finding, FindingSlice
from dicomguard.core.places import Places
from dicomguard.core.study import CONFLICT_COPY, Manifest, SeriesPlan, SliceFile
from dicomguard.core.verdict import SliceReport, Verdict
from dicomguard.errors import Refused
from dicomguard.store.db import Store

Ref = tuple[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """One finding on one slice."""

    id: str
    category: str
    # "F1 added, signs of forgery".
    label: str
    # "x,y x,y …" in pixels, (0, 0) the outer corner of the first one.
    points: str
    # Where the id is written: right of the upper right corner of the box.
    label_at: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One slice as the page shows it without scripts."""

    series: int
    index: int
    count: int
    name: str
    # "" or why the slice was not analysed.
    skipped: str
    rows: int
    columns: int
    # Height of a pixel over its width.
    stretch: float
    outlines: tuple[Outline, ...]


def locate(manifest: Manifest, series: int, index: int) -> SliceFile:
    """Slice `index` of series `series`, both from 0."""
    if not 0 <= series < len(manifest.series) or not 0 <= index < len(manifest.series[series].slices):
        raise HTTPException(404, "There is no such slice. Look at the study's page.")
    return manifest.series[series].slices[index]


def key_slice(verdict: Verdict, manifest: Manifest) -> tuple[int, int]:
    """Where to begin: the key slice of the headline finding, else the middle of the first analysed series."""
    if verdict.findings:
        headline = verdict.findings[0]
        wanted = headline.slices[headline.key_slice]
        for number, series in enumerate(manifest.series):
            for index, item in enumerate(series.slices):
                if (item.sop_instance_uid, item.frame) == (wanted.sop_instance_uid, wanted.frame):
                    return number, index
    analysed = [number for number, series in enumerate(manifest.series) if series.analysed and series.slices]
    some = [number for number, series in enumerate(manifest.series) if series.slices]
    if not some:
        raise HTTPException(404, "This study has no slices. Look at the reasons on its page.")
    number = (analysed or some)[0]
    return number, len(manifest.series[number].slices) // 2


def asked(request: Request, verdict: Verdict, manifest: Manifest) -> tuple[int, int]:
    """Series and slice of the query, else where to begin; (-1, -1) when there is no slice at all."""
    if not any(series.slices for series in manifest.series):
        return -1, -1
    series, index = request.query_params.get("series", ""), request.query_params.get("slice", "")
    if series.isdecimal() and index.isdecimal() and int(series) < len(manifest.series):
        # The form of a page without scripts counts slices from 1.
        count = len(manifest.series[int(series)].slices)
        return int(series), min(max(int(index) - 1, 0), count - 1)
    return key_slice(verdict, manifest)


def view(store: Store, verdict: Verdict, manifest: Manifest, *, series: int, index: int) -> View | None:
    """The slice with its outlines; None when there is none to show."""
    if series < 0 or index < 0:
        return None
    item = manifest.series[series].slices[index]
    ref = (item.sop_instance_uid, item.frame)
    rows, columns = _size(store, item)
    return View(
        series=series,
        index=index,
        count=len(manifest.series[series].slices),
        name=wording.slice_name(ref, manifest),
        skipped=_skipped(item, _reports(verdict).get(_key(item)), Places(manifest)),
        rows=rows,
        columns=columns,
        stretch=_stretch(manifest.series[series]),
        outlines=tuple(_outlines(verdict).get(ref, ())),
    )


def listing(request: Request, verdict: Verdict, manifest: Manifest) -> dict[str, Any]:
    """JSON for the viewer: series with slices in order, and where to begin."""
    reports, outlines, places = _reports(verdict), _outlines(verdict), Places(manifest)
    first = key_slice(verdict, manifest)
    base = request.url.path.removesuffix("slices.json")
    return {
        "start": list(first),
        "threshold": verdict.model.operating_point.forgery,
        "series": [
            {
                "name": series_name(plan),
                "stretch": _stretch(plan),
                "slices": [
                    {
                        "src": f"{base}slices/{number}/{index}.png",
                        "name": places.name([(item.sop_instance_uid, item.frame)]),
                        "skipped": _skipped(item, reports.get(_key(item)), places),
                        "score": _score(reports.get(_key(item))),
                        "outlines": [
                            {
                                "id": line.id,
                                "category": line.category,
                                "label": line.label,
                                "points": line.points,
                                "at": line.label_at,
                            }
                            for line in outlines.get((item.sop_instance_uid, item.frame), ())
                        ],
                    }
                    for index, item in enumerate(plan.slices)
                ],
            }
            for number, plan in enumerate(manifest.series)
        ],
    }


def series_name(plan: SeriesPlan) -> str:
    """ "Series 3, MR FLAIR, 24 slices"."""
    number = f"Series {plan.series_number}" if plan.series_number is not None else "Series"
    kind = " ".join(part for part in dict.fromkeys((plan.modality, plan.sequence.upper())) if part)
    count = f"{len(plan.slices)} slice{'s' if len(plan.slices) != 1 else ''}"
    return ", ".join(part for part in (number, kind, count) if part)


def place_of(finding: Finding, manifest: Manifest) -> tuple[int, int]:
    """Series and slice of a finding's key slice, from 0."""
    wanted = finding.slices[finding.key_slice]
    for number, series in enumerate(manifest.series):
        for index, item in enumerate(series.slices):
            if (item.sop_instance_uid, item.frame) == (wanted.sop_instance_uid, wanted.frame):
                return number, index
    return 0, 0


def _stretch(plan: SeriesPlan) -> float:
    """Pixels are shown as they lie in the patient, not as squares."""
    return round(plan.pixel_spacing_mm[0] / plan.pixel_spacing_mm[1], 4) if plan.pixel_spacing_mm else 1.0


def _reports(verdict: Verdict) -> Mapping[tuple[Ref, bool], SliceReport]:
    """By slice, and whether it is the copy of a conflict that was not analysed."""
    return {
        ((report.sop_instance_uid, report.frame), report.reason == CONFLICT_COPY): report for report in verdict.slices
    }


def _key(item: SliceFile) -> tuple[Ref, bool]:
    return (item.sop_instance_uid, item.frame), item.skipped == CONFLICT_COPY


def _score(report: SliceReport | None) -> float | None:
    return None if report is None else report.forgery


def _skipped(item: SliceFile, report: SliceReport | None, places: Places) -> str:
    if report is not None:
        return places.why(report)
    return item.skipped or "not analysed"


def _outlines(verdict: Verdict) -> Mapping[Ref, list[Outline]]:
    found: dict[Ref, list[Outline]] = defaultdict(list)
    for finding in verdict.findings:
        for place in finding.slices:
            found[(place.sop_instance_uid, place.frame)].append(_outline(finding, place))
    return found


def _outline(finding: Finding, place: FindingSlice) -> Outline:
    top, _, _, right = place.box_px
    return Outline(
        id=finding.id,
        category=finding.category,
        label=wording.segment_label(finding.id, finding.category),
        points=" ".join(f"{x:g},{y:g}" for x, y in place.outline_px),
        label_at=(float(right) + 2, float(top)),
    )


def _size(store: Store, item: SliceFile) -> tuple[int, int]:
    """Rows and columns from the header; (1, 1) when the file is gone or its header says nothing."""
    try:
        ds = part10.read_dataset_head(store.root / item.path, tags=("Rows", "Columns"))
    except (Refused, FileNotFoundError):
        return 1, 1
    return int(ds.get("Rows") or 1), int(ds.get("Columns") or 1)
