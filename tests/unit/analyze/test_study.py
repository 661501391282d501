"""From manifest to verdict with a judge that says what the test wants and pixels from memory."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dicomguard.analyze import folder, masks, study
from dicomguard.analyze.decoding import Decoder, facts
from dicomguard.analyze.judging import JudgedRegion, JudgedStack, Plane
from dicomguard.analyze.pixels import Reader, Slice, Undecoded
from dicomguard.core.job import AnalysisJob
from dicomguard.core.verdict import Model, ModelScope, OperatingPoint, Software, Verdict
from dicomguard.errors import Broken
from tests import studies

POINT = OperatingPoint(name="alert", forgery=0.6, tumor=0.5, false_alarm_upper=0.06, n_authentic=100, flagged=2)
SCOPE = ModelScope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair",))
MODEL = Model(
    id="m", name="dicomguard", version="1", weights_sha256="", architecture="", card="", scope=SCOPE,
    operating_point=POINT,
)  # fmt: skip


@dataclass
class Source:
    """Decodes in this process; refuses the files named."""

    refused: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, Callable[[Plane], Plane]] = field(default_factory=dict)

    def read(self, path: Path, frame: int | None) -> Slice | Undecoded:
        if path.name in self.refused:
            return Undecoded(reason=self.refused[path.name])
        decoder = Decoder()
        got = decoder.frame(str(path), frame)
        change = self.changed.get(path.name)
        pixels = got.pixels if change is None else change(got.pixels)
        return Slice(pixels=pixels, sha256=got.sha256, colour=got.colour, facts=facts(decoder.dataset(str(path))))


@dataclass
class Judge:
    """Says the same of every stack: given regions on given slices."""

    regions: tuple[JudgedRegion, ...] = ()
    no_head: tuple[int, ...] = ()
    asked: list[tuple[int, list[float | None]]] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)

    def stack(
        self,
        slices: Sequence[Plane],
        *,
        positions_mm: Sequence[float | None],
        spacing_mm: tuple[float, float] | None,
        elsewhere: int,
    ) -> JudgedStack:
        self.elsewhere.append(elsewhere)
        self.asked.append((len(slices), list(positions_mm)))
        return JudgedStack(
            scores=tuple(None if i in self.no_head else 0.1 for i in range(len(slices))),
            skipped=tuple("no head" if i in self.no_head else "" for i in range(len(slices))),
            head_pixels=tuple(0 if i in self.no_head else 1000 for i in range(len(slices))),
            regions=self.regions,
            smoothing=2.0,
            edited_alike=False,
            forgery=max((r.p_forged for r in self.regions), default=0.05),
            tumor=max((r.p_tumor for r in self.regions), default=0.04),
        )


def disc(row: int, column: int, radius: int, size: tuple[int, int] = (128, 128)) -> Any:
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    return np.hypot(y - row, x - column) <= radius


def region(*places: int, forged: float = 0.1, tumor: float = 0.9, row: int = 60, radius: int = 6) -> JudgedRegion:
    return JudgedRegion(
        masks={i: disc(row, 50, radius) for i in places}, p_forged=forged, p_tumor=tumor, p_lesion=tumor
    )


def job_of(tmp_path: Path, datasets: Sequence[Any]) -> AnalysisJob:
    found = folder.gather(studies.save(tmp_path / "in", datasets))
    ((uid, copies),) = found.studies.items()
    manifest = folder.manifest_of(uid, copies, rules=(), scope=SCOPE)
    return AnalysisJob(manifest=manifest, files_root="/", output=str(tmp_path / "out"), weights="")


def examined(job: AnalysisJob, judge: Judge, source: study.Source | None = None, **options: Any) -> study.Answer:
    return study.examine(
        job,
        judge=judge,
        source=source or Source(),
        model=MODEL,
        software=Software(name="dicomguard", version="0", analyze_version="1"),
        created=lambda: "2026-01-02T03:04:05+00:00",
        **options,
    )


def reasons(verdict: Verdict) -> list[str]:
    return [item.reason for item in verdict.slices]


def test_absent(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    job = job_of(tmp_path, studies.series(5))
    answer = examined(job, Judge(), authentic_scores=(0.01, 0.2), progress=lambda d, t: steps.append((d, t)))
    verdict = answer.verdict
    assert (verdict.category, verdict.findings, answer.masks) == ("absent", (), None)
    assert verdict.coverage.complete
    assert (verdict.coverage.slices_total, verdict.coverage.head_area_share) == (5, 1.0)
    assert verdict.score.authentic_rank is not None
    assert (verdict.score.authentic_rank.as_high, verdict.score.authentic_rank.of) == (1, 2)
    assert [done for done, _ in steps] == [1, 2, 3, 4, 5, 10]
    assert {total for _, total in steps} == {10}


def test_finding_is_measured_in_the_patient(tmp_path: Path) -> None:
    datasets = studies.series(5, origin=(-64.0, -64.0, 20.0))
    for ds in datasets:
        ds.PixelSpacing = [0.5, 2.0]
    answer = examined(job_of(tmp_path, datasets), Judge(regions=(region(1, 2, 3, forged=0.9),)))
    (finding,) = answer.verdict.findings
    area = np.count_nonzero(disc(60, 50, 6))
    assert (finding.id, finding.category, answer.verdict.headline_finding) == ("F1", "added", "F1")
    assert [item.sop_instance_uid for item in finding.slices] == [ds.SOPInstanceUID for ds in datasets[1:4]]
    assert finding.slices[0].area_mm2 == area * 1.0
    assert finding.volume_mm3 == pytest.approx(3 * area * 5.0)
    # Column 50 of 2 mm, row 60 of 0.5 mm, middle slice.
    assert finding.centroid_lps_mm == pytest.approx((-64 + 100, -64 + 30, 30))
    assert finding.key_slice == 0
    assert not finding.touches_skipped_slice
    assert answer.masks is not None
    assert answer.verdict.masks is not None
    assert answer.verdict.masks.sha256 == hashlib.sha256(answer.masks).hexdigest()
    back = masks.unpack(answer.masks, answer.verdict.findings, lambda sop: (128, 128))
    assert all(np.array_equal(mask, disc(60, 50, 6)) for _, _, mask in back["F1"])


def test_tilted_stack_counts_the_way_along_the_normal(tmp_path: Path) -> None:
    datasets = studies.series(5, step_mm=(0.0, 1.6729, 5.0))
    answer = examined(job_of(tmp_path, datasets), Judge(regions=(region(2),)))
    assert answer.verdict.series[0].geometry.kind == "tilted"
    assert answer.verdict.series[0].geometry.tilt_deg == pytest.approx(18.5, abs=0.05)
    assert answer.verdict.findings[0].volume_mm3 == pytest.approx(np.count_nonzero(disc(60, 50, 6)) * 5.0)


def test_stronger_region_keeps_shared_pixels(tmp_path: Path) -> None:
    weak, strong = region(2, forged=0.1, tumor=0.7, radius=10), region(2, forged=0.95, tumor=0.1, row=66)
    answer = examined(job_of(tmp_path, studies.series(5)), Judge(regions=(weak, strong)))
    first, second = answer.verdict.findings
    assert (first.category, second.category, answer.verdict.category) == ("removed", "real", "removed")
    assert answer.masks is not None
    back = masks.unpack(answer.masks, answer.verdict.findings, lambda sop: (128, 128))
    assert not np.any(back["F1"][0][2] & back["F2"][0][2])
    assert np.array_equal(back["F1"][0][2], disc(66, 50, 6))


def test_region_swallowed_by_a_stronger_one_is_not_reported(tmp_path: Path) -> None:
    swallowed = region(2, forged=0.1, tumor=0.6, radius=3)
    answer = examined(job_of(tmp_path, studies.series(3)), Judge(regions=(swallowed, region(2, forged=0.9, radius=12))))
    assert [item.id for item in answer.verdict.findings] == ["F1"]


def test_what_cannot_be_decoded_lowers_coverage_and_is_named(tmp_path: Path) -> None:
    job = job_of(tmp_path, studies.series(5))
    judge = Judge(regions=(region(1),), no_head=(3,))
    source = Source(refused={"0003.dcm": "undecodable"})
    verdict = examined(job, judge, source).verdict
    assert reasons(verdict) == ["", "", "undecodable", "", "no head"]
    assert [item.state for item in verdict.slices] == ["analysed", "analysed", "skipped", "analysed", "skipped"]
    assert (verdict.coverage.slices_analysed, verdict.coverage.complete) == (3, False)
    assert verdict.coverage.head_area_share == 0.75
    assert verdict.findings[0].touches_skipped_slice
    # The decoder's gap stands in the positions that the judge sees.
    assert judge.asked == [(4, [0.0, 5.0, 15.0, 20.0])]


def test_nothing_decodable_is_not_analysable(tmp_path: Path) -> None:
    source = Source(refused={f"000{i}.dcm": "time limit" for i in range(1, 4)})
    verdict = examined(job_of(tmp_path, studies.series(3)), Judge(), source).verdict
    assert (verdict.category, verdict.score.forgery) == ("not_analysable", None)
    assert verdict.series[0].reason == "It was chosen, but no slice could be analysed: time limit."
    assert not verdict.series[0].analysed


def test_each_stack_knows_in_how_many_other_slices_a_forgery_is_searched_for(tmp_path: Path) -> None:
    long = studies.series(7, name="t2", number=2, description="AX T2")
    scout = studies.series(3, name="scout", number=3, description="LOCALIZER")
    for one in scout:
        one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    judge = Judge()
    examined(job_of(tmp_path, [*studies.series(5), *long, *scout]), judge)
    assert [count for count, _ in judge.asked] == [5, 7]
    assert judge.elsewhere == [7, 5]


def test_a_series_of_which_nothing_was_decoded_lowers_the_share_of_the_head(tmp_path: Path) -> None:
    """Its slices count as the usual one of the other series."""
    one, two = studies.series(5), studies.series(20, name="other", number=2)
    job = job_of(tmp_path, [*one, *two])
    broken = {Path(item.path).name: "undecodable" for item in job.manifest.series[1].slices}
    verdict = examined(job, Judge(), Source(refused=broken)).verdict
    assert (verdict.coverage.slices_analysed, verdict.coverage.head_area_share) == (5, 0.2)
    everything = {Path(item.path).name: "undecodable" for plan in job.manifest.series for item in plan.slices}
    nothing = examined(job, Judge(), Source(refused=everything)).verdict
    assert nothing.coverage.head_area_share == 0.0


def test_a_slice_of_no_unit_costs_only_itself(tmp_path: Path) -> None:
    datasets = studies.series(6)
    datasets[2].RescaleSlope, datasets[2].RescaleIntercept = "1e33", "0"
    job = job_of(tmp_path, datasets)
    judge = Judge()
    with Reader() as reader:
        verdict = examined(job, judge, reader).verdict
    assert reasons(verdict) == ["", "", "undecodable", "", "", ""]
    assert judge.asked[0][0] == 5


def test_stack_beyond_the_memory_limit_is_analysed_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "MOST_PIXELS", 2 * 128 * 128)
    verdict = examined(job_of(tmp_path, studies.series(4)), Judge()).verdict
    assert reasons(verdict) == ["", "", "memory limit", "memory limit"]


def test_file_that_decodes_to_another_matrix_than_it_says_is_left_out(tmp_path: Path) -> None:
    source = Source(changed={"0002.dcm": lambda plane: plane[:100]})
    judge = Judge()
    verdict = examined(job_of(tmp_path, studies.series(4)), judge, source).verdict
    assert reasons(verdict) == ["", "undecodable", "", ""]
    assert judge.asked[0][0] == 3


def test_file_that_changed_since_it_was_frozen_stops_the_analysis(tmp_path: Path) -> None:
    job = job_of(tmp_path, studies.series(3))
    path = tmp_path / "in" / "0002.dcm"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Broken, match="not the one that was received"):
        examined(job, Judge())
    path.unlink()
    with pytest.raises(Broken, match="cannot be read"):
        examined(job, Judge())


def test_same_instance_with_other_pixels_is_a_conflict_and_said(tmp_path: Path) -> None:
    datasets = studies.series(3)
    other = studies.series(3)[1]
    studies.put_pixels(other, other.pixel_array // 2)
    verdict = examined(job_of(tmp_path, [*datasets, other]), Judge()).verdict
    (conflict,) = verdict.conflicts
    assert conflict.sop_instance_uid == datasets[1].SOPInstanceUID
    assert [copy.analysed for copy in conflict.copies] == [True, False]
    analysed = next(item for item in verdict.slices if item.sop_instance_uid == conflict.sop_instance_uid)
    assert conflict.copies[0].pixel_sha256 == analysed.pixel_sha256
    assert conflict.copies[1].pixel_sha256 != analysed.pixel_sha256
    assert sorted(reasons(verdict)) == ["", "", "", "conflict copy"]
    assert (verdict.coverage.slices_total, verdict.coverage.slices_analysed) == (4, 3)


def test_multi_frame_findings_name_frames(tmp_path: Path) -> None:
    job = job_of(tmp_path, [studies.enhanced(studies.series(6))])
    answer = examined(job, Judge(regions=(region(2, 3),)))
    (finding,) = answer.verdict.findings
    assert [item.frame for item in finding.slices] == [3, 4]
    assert answer.masks is not None
    assert list(masks.unpack(answer.masks, (finding,), lambda sop: (128, 128))) == ["F1"]
    assert finding.centroid_lps_mm == pytest.approx((-14.0, -4.0, 12.5))


def test_single_slice_uses_its_thickness(tmp_path: Path) -> None:
    answer = examined(job_of(tmp_path, studies.series(1)), Judge(regions=(region(0),)))
    assert answer.verdict.series[0].geometry.kind == "single"
    assert answer.verdict.findings[0].volume_mm3 == pytest.approx(np.count_nonzero(disc(60, 50, 6)) * 5.0)


def test_loose_pictures_have_area_zero_and_no_place(tmp_path: Path) -> None:
    datasets = [studies.instance(studies.head(seed=i), index=i, modality="OT") for i in range(3)]
    answer = examined(job_of(tmp_path, datasets), Judge(regions=(region(1),)))
    (finding,) = answer.verdict.findings
    assert (finding.volume_mm3, finding.extent_mm, finding.centroid_lps_mm) == (0.0, 0.0, None)
    assert answer.verdict.coverage.outside_scope
    assert answer.verdict.series[0].geometry.kind == "mixed"


def test_predecessor_is_carried(tmp_path: Path) -> None:
    job = replace(
        job_of(tmp_path, studies.series(2)),
        predecessor={
            "verdict_sha256": "aa", "revision": 1, "sr_sop_instance_uid": "2.25.1", "sr_sop_class_uid": "1.2",
            "sr_series_instance_uid": "2.25.2",
        },
    )  # fmt: skip
    predecessor = examined(job, Judge()).verdict.study.predecessor
    assert predecessor is not None
    assert predecessor.sr_sop_instance_uid == "2.25.1"


def test_no_patient_enters_the_document(tmp_path: Path) -> None:
    document = examined(job_of(tmp_path, studies.series(2)), Judge(regions=(region(0),))).verdict.to_bytes()
    for text in (b"Fixture", b"FIXTURE-1", b"19700101", b"A1"):
        assert text not in document


def test_a_saturated_slice_is_not_judged(tmp_path: Path) -> None:
    def overexposed(pixels: Plane) -> Plane:
        return np.minimum(pixels, np.float32(300))

    verdict = examined(job_of(tmp_path, studies.series(5)), Judge(), Source(changed={"0002.dcm": overexposed})).verdict
    assert reasons(verdict) == ["", "saturated", "", "", ""]
    assert not verdict.coverage.complete


def test_a_series_unlike_the_training_is_judged_outside_the_scope(tmp_path: Path) -> None:
    """By its pixels alone: the headers of the manifest lie inside."""
    job = job_of(tmp_path, studies.series(5))
    assert job.manifest.series[0].scope == "inside"
    verdict = examined(job, Judge()).verdict
    assert (verdict.category, verdict.coverage.outside_scope) == ("absent", True)
    assert (verdict.series[0].scope, verdict.series[0].scope_reasons) == ("outside", ("matrix 128 × 128",))


def as_jpeg(pixels: Plane) -> Plane:
    white = float(pixels.max())
    coded = cv2.imencode(".jpg", (pixels / white * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    return np.asarray(np.rint(np.asarray(decoded) * (white / 255)), np.float32)


@pytest.mark.parametrize("compressed", [["0003.dcm"], [f"000{i}.dcm" for i in range(1, 6)]])
def test_compression_that_only_the_pixels_show_is_outside_the_scope(tmp_path: Path, compressed: list[str]) -> None:
    """One slice is enough, as one header is; no score moves."""
    where = {2: disc(120, 100, 8, (256, 256))}
    judge = Judge(regions=(JudgedRegion(masks=where, p_forged=0.9, p_tumor=0.8, p_lesion=0.8),))
    job = job_of(tmp_path, studies.series(5, size=(256, 256)))
    plain = examined(job, judge).verdict
    verdict = examined(job, judge, Source(changed=dict.fromkeys(compressed, as_jpeg))).verdict
    assert (plain.series[0].scope, plain.coverage.outside_scope) == ("inside", False)
    assert (verdict.series[0].scope, verdict.coverage.outside_scope) == ("outside", True)
    assert verdict.series[0].scope_reasons == ("traces of lossy compression",)
    assert [(item.kind, len(item.slices)) for item in verdict.evidence] == [("compression_traces", len(compressed))]
    assert (verdict.category, verdict.score) == (plain.category, plain.score) and plain.category == "added"
    assert [item.forgery for item in verdict.slices] == [item.forgery for item in plain.slices]


def test_compression_that_the_header_states_is_said_once(tmp_path: Path) -> None:
    datasets = studies.series(3, size=(256, 256))
    for ds in datasets:
        ds.LossyImageCompression = "01"
    changed = {f"000{i}.dcm": as_jpeg for i in range(1, 4)}
    verdict = examined(job_of(tmp_path, datasets), Judge(), Source(changed=changed)).verdict
    assert (verdict.series[0].scope_reasons, verdict.evidence) == (("lossy compression",), ())


def test_evidence_of_the_files_changes_no_score(tmp_path: Path) -> None:
    regions = (region(1, 2, forged=0.9),)
    datasets = studies.series(6)
    quiet = examined(job_of(tmp_path / "a", datasets), Judge(regions=regions)).verdict
    datasets[3].PixelData = datasets[4].PixelData
    datasets[2].SyntheticData, datasets[2].SoftwareVersions = "YES", "editor"
    loud = examined(job_of(tmp_path / "b", datasets), Judge(regions=regions)).verdict
    assert {item.kind for item in loud.evidence} >= {"identical_pixels", "synthetic", "header_changes"}
    assert loud.evidence != quiet.evidence
    assert (loud.category, loud.score, loud.findings) == (quiet.category, quiet.score, quiet.findings)
    assert [item.forgery for item in loud.slices] == [item.forgery for item in quiet.slices]
