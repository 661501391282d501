"""The gate of the results: every kind of verdict on every kind of source, judged by programs not written here.

dciodvfy finds no error and no warning outside the allow-list; DCMTK prints the report; highdicom reads the masks back
voxel by voxel and finds the groups. The sources are synthetic headers of the layouts that have caused trouble.
"""

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import pydicom.config
import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicomguard.core import wording
from dicomguard.core.finding import Coverage
from dicomguard.core.verdict import NO_MODEL, Predecessor
from dicomguard.sr.build import Built, Earlier, fallback, file_bytes, tracking_uids
from tests.sr_cases import NODE, Case, Change, Spot, case, enhanced, frames, identical_pixels, single_frame

Need = Callable[[str, str], str]
ADDED = [Spot(category="added", places=[2, 3, 4])]
OBLIQUE = (0.98480775, 0.0, -0.17364818, 0.03015369, 0.98480775, 0.17101007)


def _drop(*keywords: str) -> Change:
    def change(ds: Dataset) -> None:
        for keyword in keywords:
            delattr(ds, keyword)

    return change


def _noisy(ds: Dataset) -> None:
    # Every second slice prints its directions a little differently.
    if int(ds.InstanceNumber) % 2:
        ds.ImageOrientationPatient = [1, 1e-6, 0, -1e-6, 1, 0]


def _several() -> list[Spot]:
    return [
        Spot(category="added", places=[2, 3, 4]),
        Spot(category="removed", places=[3, 4], centre=(8, 8), radius=4, p_forged=0.7),
        Spot(category="real", places=[1, 2], centre=(32, 28), radius=3, p_forged=0.05),
    ]


def _revision_2() -> Case:
    before = case("added", [frames(single_frame(6))], ADDED)
    sr = before.build()[-1]
    predecessor = Predecessor(
        verdict_sha256=before.verdict.sha256,
        revision=1,
        sr_sop_instance_uid=sr.result.sop_instance_uid,
        sr_sop_class_uid=sr.result.sop_class_uid,
        sr_series_instance_uid=sr.result.series_instance_uid,
    )
    earlier = Earlier(verdict=before.verdict, masks=before.masks, tracking_uids=tracking_uids(sr.dataset))
    return case("added", [frames(single_frame(8))], ADDED, revision=2, predecessor=predecessor, earlier=earlier)


def _two_stacks() -> Case:
    """Magnitude and phase at the same positions of one Enhanced object; a finding in each."""
    (header,) = enhanced(6, stacks=2)
    stacks = [[(header, frame) for frame in range(first, 13, 2)] for first in (1, 2)]
    return case("added", stacks, [*ADDED, Spot(category="real", places=[1], stack=1, p_forged=0.1)])


def _no_images() -> Case:
    """A study of one object without pixels, on a node that cannot read its weights."""
    whole = case("not_analysable", [frames(single_frame(1))])
    manifest = replace(whole.manifest, series=(replace(whole.manifest.series[0], slices=()),))
    nothing = Coverage(slices_total=0, slices_analysed=0, head_area_share=0, complete=False, outside_scope=False)
    verdict = replace(
        whole.verdict,
        study=replace(whole.verdict.study, manifest_sha256=manifest.sha256),
        model=NO_MODEL,
        series=(replace(whole.verdict.series[0], slices_total=0),),
        slices=(),
        coverage=nothing,
    )
    return replace(whole, manifest=manifest, verdict=verdict)


def _enhanced() -> Case:
    (header,) = enhanced(6)
    return case("removed", [[(header, frame) for frame in range(1, 7)]], [Spot(category="removed", places=[2, 3])])


def _names(ds: Dataset) -> None:
    # Two-byte Japanese by code extension, first set left empty (legal).
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    ds.ReferringPhysicianName = ds.StudyDescription = "山^田"


def _synthetic(ds: Dataset) -> None:
    ds.SyntheticData = "YES"


MALFORMED = {"PatientBirthDate": "1961", "StudyTime": "10:11:12", "PatientSex": "f", "AccessionNumber": "A" * 20}


def _malformed(ds: Dataset) -> None:
    for keyword, value in MALFORMED.items():
        tag = tag_for_keyword(keyword) or 0
        ds[keyword] = DataElement(tag, dictionary_VR(tag), value, validation_mode=pydicom.config.IGNORE)


CASES: dict[str, Callable[[], Case]] = {
    "real": lambda: case("real", [frames(single_frame())], [Spot(category="real", places=[2, 3], p_forged=0.04)]),
    "absent": lambda: case("absent", [frames(single_frame())]),
    "added": lambda: case("added", [frames(single_frame())], ADDED),
    "removed": lambda: case("removed", [frames(single_frame())], [Spot(category="removed", places=[2, 3])]),
    "several": lambda: case("added", [frames(single_frame())], _several()),
    "not_analysable": lambda: case("not_analysable", [frames(single_frame())]),
    "no_images": _no_images,
    "partial": lambda: case("added", [frames(single_frame())], ADDED, skipped={(0, 0): "no head", (0, 6): "lossy"}),
    "outside_scope": lambda: case("added", [frames(single_frame(modality="CT"))], ADDED, outside=True),
    "files_evidence": lambda: case(
        "absent", [frames(single_frame())], evidence=[identical_pixels(single_frame()[2:4])]
    ),
    "conflict": lambda: case("added", [frames(single_frame())], ADDED, conflict=True),
    "revision_2": _revision_2,
    "one_slice": lambda: case("added", [frames(single_frame(1))], [Spot(category="added", places=[0])], kind="single"),
    "oblique": lambda: case("added", [frames(single_frame(orientation=OBLIQUE, step=(0.68, -0.67, 3.88)))], ADDED),
    "tilted_ct": lambda: case(
        "added", [frames(single_frame(modality="CT", step=(0.0, 1.34, 4.0)))], ADDED, kind="tilted"
    ),
    "unequal": lambda: case("added", [frames(single_frame(positions=[0, 1, 2, 4.5, 5, 8, 9]))], ADDED, kind="unequal"),
    "sagittal": lambda: case("added", [frames(single_frame(orientation=(0, 1, 0, 0, 0, -1), step=(1.0, 0, 0)))], ADDED),
    "enhanced": _enhanced,
    "two_stacks": _two_stacks,
    "two_series": lambda: case(
        "added",
        [frames(single_frame(series=3)), frames(single_frame(series=5))],
        [*ADDED, Spot(category="removed", places=[1, 2], stack=1, p_forged=0.7)],
    ),
    "no_frame_of_reference": lambda: case(
        "added", [frames(single_frame(change=_drop("FrameOfReferenceUID", "PositionReferenceIndicator")))], ADDED
    ),
    "noisy_orientation": lambda: case("added", [frames(single_frame(change=_noisy))], ADDED),
    "no_thickness": lambda: case("added", [frames(single_frame(change=_drop("SliceThickness")))], ADDED),
    "character_sets": lambda: case("added", [frames(single_frame(change=_names))], ADDED),
    "malformed": lambda: case("added", [frames(single_frame(change=_malformed))], ADDED),
    "synthetic": lambda: case("added", [frames(single_frame(change=_synthetic))], ADDED),
    "missing_type_2": lambda: case(
        "added",
        [frames(single_frame(change=_drop("PatientBirthDate", "PatientSex", "StudyID", "ReferringPhysicianName")))],
        ADDED,
    ),
}

# Anything else that dciodvfy says fails. A private scheme beginning with 99 is legal (PS3.16 section 8).
ALLOWED = [
    r"Warning - .*CodingSchemeDesignator.* - Unrecognized defined term = <99DCMGUARD>",
    r"Warning - .*CodingSchemeUID.* - Unrecognized defined term = <2\.25\.278205376883854103929361238101214697805>",
]
# Empty in the source, and so in ours.
EMPTY_IN_SOURCE = r"Warning - </StudyID.*> - Missing attribute or value that would be needed to build DICOMDIR"
# Synthetic Data is younger than the dictionary of the tool (2022), which takes it for an unknown even tag.
YOUNGER_THAN_THE_TOOL = r"(Error|Warning) - </\(0008,001c\)> - .*"
# Malformed in the source, and copied as it is.
MALFORMED_IN_SOURCE = rf"(Error|Warning) - </({'|'.join(MALFORMED)})\(.*"
KINDS = {"Segmentation", "Comprehensive3DSR", "ComprehensiveSR"}


@cache
def made(name: str) -> tuple[Case, tuple[Built, ...]]:
    """A case and its objects, the fall-back form of the report last."""
    whole = CASES[name]()
    objects = whole.build()
    return whole, (*objects, fallback(objects[-1].dataset))


@cache
def titled(name: str) -> Built:
    """The report of a case under the title of a measurement report."""
    return CASES[name]().build(title="126000")[-1]


def _run(argv: Sequence[str]) -> tuple[str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout, done.stderr


@pytest.mark.parametrize("name", CASES)
def test_dciodvfy(name: str, need: Need, tmp_path: Path) -> None:
    inherited = {
        "missing_type_2": [EMPTY_IN_SOURCE],
        "malformed": [MALFORMED_IN_SOURCE],
        "synthetic": [YOUNGER_THAN_THE_TOOL],
    }
    allowed = [*ALLOWED, *inherited.get(name, [])]
    for number, built in enumerate((*made(name)[1], titled(name))):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(built.data)
        # Its exit status is 1 with any warning, so what it says is read.
        said = subprocess.run(
            [need("dciodvfy", "dicom3tools"), "-new", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        lines = (said.stdout + said.stderr).splitlines()
        assert len(KINDS & set(lines)) == 1
        other = [
            line for line in lines if line not in KINDS and not any(re.fullmatch(pattern, line) for pattern in allowed)
        ]
        assert not other, f"{built.result.kind}: " + "\n".join(other)


@pytest.mark.parametrize("name", CASES)
def test_dcmtk_prints_the_report(name: str, need: Need, tmp_path: Path) -> None:
    whole, objects = made(name)
    summary = wording.compose(
        whole.verdict, whole.manifest, whole.predecessor.verdict if whole.predecessor else None
    ).summary
    for built in objects[-2:]:
        path = tmp_path / f"{built.result.kind}.dcm"
        path.write_bytes(built.data)
        text, errors = _run([need("dsrdump", "dcmtk"), "+Pl", "+U8", str(path)])
        assert summary in text
        html, more = _run([need("dsr2html", "dcmtk"), "+U8", str(path)])
        assert "Summary for the reader" in html and "Study result of the authenticity check" in html
        assert summary.split(". ")[0].replace("'", "&apos;").replace('"', "&quot;") in html.replace("&#39;", "&apos;")
        for line in (errors + more).splitlines():
            inherited = name == "malformed" and re.match(rf"W: ({'|'.join(MALFORMED)}) \(", line)
            assert inherited or "does not support this Specific Character Set: ISO_IR 192" in line, line


@pytest.mark.parametrize("name", CASES)
def test_highdicom_reads_every_mask_back(name: str) -> None:
    whole, objects = made(name)
    segmentations = [highdicom.seg.segread(BytesIO(built.data)) for built in objects if built.result.kind == "SEG"]
    read = {}
    for seg in segmentations:
        for number in seg.segment_numbers:
            description = seg.get_segment_description(number)
            read[description.SegmentLabel.split()[0]] = (seg, number)
    if name == "no_frame_of_reference":
        assert not segmentations
        return
    assert set(read) == set(whole.masks)
    for finding_id, (seg, number) in read.items():
        given = {(sop, frame): mask for sop, frame, mask in whole.masks[finding_id]}
        plan = next(
            plan
            for plan in whole.manifest.series
            if next(iter(given)) in {(item.sop_instance_uid, item.frame) for item in plan.slices}
        )
        for item in plan.slices:
            expected = given.get((item.sop_instance_uid, item.frame))
            pixels = _read(seg, item.sop_instance_uid, item.frame, number)
            assert pixels.sum() == (0 if expected is None else expected.sum()), (finding_id, item)
            if expected is not None:
                assert (pixels.astype(bool) == expected).all(), (finding_id, item)


def _read(seg: highdicom.seg.Segmentation, sop: str, frame: int | None, number: int) -> Any:
    # Never get_volume: with unequal gaps it invents slices.
    if frame is None:
        return seg.get_pixels_by_source_instance(
            source_sop_instance_uids=[sop],
            segment_numbers=[number],
            assert_missing_frames_are_empty=True,
            ignore_spatial_locations=True,
        )[0, ..., 0]
    return seg.get_pixels_by_source_frame(
        source_sop_instance_uid=sop,
        source_frame_numbers=[frame],
        segment_numbers=[number],
        assert_missing_frames_are_empty=True,
        ignore_spatial_locations=True,
    )[0, ..., 0]


@pytest.mark.parametrize("name", CASES)
def test_highdicom_finds_the_groups(name: str) -> None:
    whole, objects = made(name)
    sr = highdicom.sr.srread(BytesIO(objects[-2].data))
    content = sr.content
    tracked = {
        (seg.SOPInstanceUID, segment.SegmentNumber): segment.TrackingUID
        for seg in (built.dataset for built in objects if built.result.kind == "SEG")
        for segment in seg.SegmentSequence
    }
    if not whole.verdict.findings:
        (group,) = content.get_image_measurement_groups()
        assert group.tracking_identifier == "dicomguard study"
        return
    regions = content.get_planar_roi_measurement_groups()
    assert len(regions) == len(whole.verdict.findings)
    volumes = content.get_volumetric_roi_measurement_groups()
    assert len(volumes) == (0 if name == "no_frame_of_reference" else len(whole.verdict.findings))
    uids = {}
    for group in volumes:
        segment = group.referenced_segment
        (number,) = segment.referenced_segment_numbers
        assert tracked[segment.referenced_sop_instance_uid, number] == group.tracking_uid
        uids[group.tracking_identifier] = group.tracking_uid
    for group, finding in zip(regions, whole.verdict.findings, strict=True):
        assert group.tracking_identifier == f"dicomguard {finding.id} {finding.category}"
        assert uids.get(group.tracking_identifier, group.tracking_uid) == group.tracking_uid
        points = group.roi.value
        assert (points[0] == points[-1]).all() and len(points) <= 400
    referenced = {
        item.ReferencedSOPInstanceUID
        for series in sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert {sop for sop, _ in tracked} <= referenced


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("name", CASES)
def test_read_back_equals_what_was_built(name: str) -> None:
    for built in made(name)[1]:
        assert dcmread(BytesIO(built.data)) == built.dataset
        assert file_bytes(dcmread(BytesIO(built.data))) == built.data


def test_the_example_of_the_manual_is_true(need: Need, tmp_path: Path) -> None:
    """docs/reading-a-verdict.md shows a report exactly as DCMTK prints it."""
    example = case("added", [frames(single_frame())], ADDED, skipped={(0, 0): "no head"})
    path = tmp_path / "report.dcm"
    path.write_bytes(example.build()[-1].data)
    text, _ = _run([need("dsrdump", "dcmtk"), "-Ph", "+Pl", "+U8", str(path)])
    manual = (Path(__file__).parents[2] / "docs" / "reading-a-verdict.md").read_text()
    shown = manual.partition("dsrdump -Ph +Pl +U8 report.dcm`")[2].split("```")[1]
    assert [line.rstrip() for line in shown.strip().splitlines()] == [
        line.rstrip() for line in text.strip().splitlines()
    ]


def test_node_is_the_observer() -> None:
    built = made("added")[1][-2]
    assert built.dataset.InstanceCreatorUID == NODE.device_uid
