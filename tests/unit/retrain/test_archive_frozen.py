import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicomguard.clock import FakeClock
from dicomguard.errors import Broken, Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.archive import adding, contents, frozen, golden, review
from dicomguard.retrain.archive.case import Split
from dicomguard.retrain.archive.importers import dicom
from dicomguard.store.files import FakeDisk
from tests.unit.retrain.archive_cases import CLOCK, dicom_case, instance, new_case, plane

# One person at two places.
NAMED = ((21, "clinic"), (22, "ward"))


def put(root: Path, new: adding.NewCase, split: Split, curator: str = "ada", *, accepted: bool = True) -> str:
    case = adding.add(root, new, curator=curator, clock=CLOCK, disk=FakeDisk(), split_of=lambda _key: split)
    review.review(root, case.case_id, by="grace", accepted=accepted, clock=CLOCK, disk=FakeDisk())
    return case.case_id


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    splits: tuple[Split, ...] = ("train", "validation", "test", "test", "train")
    for seed, split in enumerate(splits, start=1):
        new = new_case(tmp_path / "in", seed, patient=f"p{seed}")
        put(root, new, split, "ada" if seed < 5 else "mary", accepted=seed != 5)
    golden.ensure(root, by="grace", clock=FakeClock(datetime(2026, 11, 24, tzinfo=UTC)), disk=FakeDisk())
    return root


def test_only_accepted_cases_are_used_and_golden_people_apart(root: Path, tmp_path: Path) -> None:
    made = frozen.freeze(root, tmp_path / "run")
    train, held = (dataset.read_index(tmp_path / "run" / name) for name in (frozen.TRAIN, frozen.GOLDEN))
    assert {series.patient for series in train} == {"p1", "p2"}
    assert {series.patient for series in held} == {"p3", "p4"}
    assert made.curators == ("ada",)
    assert frozen.Frozen.read(tmp_path / "run") == made
    first = dataset.read_pixels(tmp_path / "run" / frozen.TRAIN, train[0])
    assert np.array_equal(first.stored[0], plane(1)) and first.lesion.any()
    assert frozen.freeze(root, tmp_path / "run") == made


def test_the_list_says_what_labels_rest_on_and_reads_one_that_does_not(root: Path, tmp_path: Path) -> None:
    put(root, replace(new_case(tmp_path / "in", 6, patient="p6"), label_provenance="pathology"), "train")
    made = frozen.freeze(root, tmp_path / "run")
    assert made.label_provenances == ("clinic: not stated", "clinic: pathology")
    assert frozen.Frozen.read(tmp_path / "run") == made
    path = tmp_path / "run" / frozen.RECORD
    value = json.loads(path.read_bytes())
    del value["label_provenances"]
    path.write_text(json.dumps(value))
    assert frozen.Frozen.read(tmp_path / "run") == replace(made, label_provenances=())


def test_a_changed_file_stops_the_freeze(root: Path, tmp_path: Path) -> None:
    case = contents.read(root).accepted()[0].case
    (root / "cases" / case.case_id / "planes" / "1.png").write_bytes(b"other")
    with pytest.raises(Broken, match="was changed after it was added"):
        frozen.freeze(root, tmp_path / "run")


def test_an_archive_without_validation_cases_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a", new_case(tmp_path / "in", 1), "train")
    with pytest.raises(Refused, match="lacks accepted cases of the split train or validation"):
        frozen.freeze(tmp_path / "a", tmp_path / "run")


def test_a_person_has_one_key_in_the_index_under_whatever_source(root: Path, tmp_path: Path) -> None:
    """The splits of training go by the key: a second one would put the person into another split."""
    ids = [put(root, dicom_case(tmp_path, root, seed, source=source), "train") for seed, source in NAMED]
    frozen.freeze(root, tmp_path / "run")
    held = contents.read(root).accepted()
    patient = next(entry.case.patient for entry in held if entry.case.case_id == ids[0])
    found = [one for one in dataset.read_index(tmp_path / "run" / frozen.TRAIN) if one.patient == patient]
    assert {one.patient_key for one in found} == {f"clinic/{patient}"}
    assert [(one.group, len(one.planes)) for one in found] == [("", 1), ("ward", 1)]


def test_a_person_who_came_in_twice_before_is_found_in_golden_and_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive of the time in which persons were split by the name of the source."""
    root = tmp_path / "archive"
    splits: tuple[Split, ...] = ("train", "validation", "test")
    for seed, split in enumerate(splits, start=11):
        put(root, new_case(tmp_path / "in", seed, patient=f"p{seed}"), split)
    of_source: dict[str, Split] = {"clinic": "test", "ward": "train"}
    for seed, source in NAMED:
        monkeypatch.setattr(adding, "_split", lambda *_given, split=of_source[source]: split)
        put(root, dicom_case(tmp_path, root, seed, source=source), of_source[source])
    golden.ensure(root, by="grace", clock=CLOCK, disk=FakeDisk())
    (late,) = (e.case.case_id for e in contents.read(root).entries if e.case.source == "ward")
    with pytest.raises(Broken, match=f"golden set also has the training case {late}.*Decline it"):
        frozen.freeze(root, tmp_path / "run")
    review.review(root, late, by="grace", accepted=False, clock=CLOCK, disk=FakeDisk())
    assert late not in {case_id for case_id, _ in frozen.freeze(root, tmp_path / "run").train}


def test_dicom_becomes_planes_of_stored_values(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    signed = np.random.default_rng(7).integers(-1000, 1000, (16, 16), dtype=np.int16)
    one = instance(1, RescaleSlope=2, RescaleIntercept=-3)
    two = instance(2, PixelRepresentation=1, BitsStored=16, HighBit=15, PixelData=signed.tobytes())
    for name, ds in (("a", one), ("b", two)):
        ds.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    (new,) = dicom.read(folder, archive=root, source="clinic", licence="own", label="no_tumor")
    case_id = put(root, new, "train")
    frozen.freeze(root, tmp_path / "run")
    planes = sorted((tmp_path / "run" / "train" / "planes").glob(f"{case_id}_*.png"))
    stored = np.frombuffer(one.PixelData, np.uint16).reshape(16, 16)
    assert np.array_equal(np.asarray(Image.open(planes[0])), stored)
    assert np.array_equal(np.asarray(Image.open(planes[1])).astype(int) - (1 << 15), signed)
