import csv
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomguard import part10
from dicomguard.clock import FakeClock
from dicomguard.core import canon
from dicomguard.errors import Broken, Refused, Unavailable
from dicomguard.retrain.archive import adding, contents, deidentify, golden, manifest, pixels, review, verify
from dicomguard.retrain.archive.adding import NewCase, NewFile
from dicomguard.retrain.archive.case import Case, Split
from dicomguard.retrain.archive.importers import dicom, slices
from dicomguard.retrain.dataset import COLUMNS
from dicomguard.store.files import Died, FakeDisk

CLOCK = FakeClock(datetime(2026, 11, 23, 9, 0, tzinfo=UTC))


def in_train(_key: str) -> Split:
    return "train"


def in_test(_key: str) -> Split:
    return "test"


def plane(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)


def new_case(folder: Path, seed: int, *, patient: str = "p1", source: str = "clinic") -> NewCase:
    folder.mkdir(parents=True, exist_ok=True)
    path, mask = folder / f"{seed}.png", folder / f"{seed}-mask.png"
    Image.fromarray(plane(seed)).save(path)
    Image.fromarray(np.where(plane(seed) > 200, 255, 0).astype(np.uint8)).save(mask)
    return NewCase(
        source=source,
        patient=patient,
        group="",
        label="tumor",
        licence="own",
        files=(
            NewFile(path="masks/1.png", source=mask, role="mask"),
            NewFile(
                path="planes/1.png",
                source=path,
                role="plane",
                pixel_sha256=pixels.sha256_of(plane(seed)),
                sequence="flair",
                number=1,
                rows=16,
                columns=16,
                bits=8,
                mask="masks/1.png",
            ),
        ),
    )


def add(root: Path, new: NewCase, disk: FakeDisk | None = None, split_of: object = in_train) -> str:
    made = adding.add(root, new, curator="ada", clock=CLOCK, disk=disk or FakeDisk(), split_of=split_of)  # type: ignore[arg-type]
    return made.case_id


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def test_a_case_counts_only_once_a_second_person_accepted_it(root: Path, tmp_path: Path) -> None:
    case_id = add(root, new_case(tmp_path / "in", 1))
    assert contents.read(root).accepted() == ()
    with pytest.raises(Refused, match="second person"):
        review.review(root, case_id, by=" Ada ", accepted=True, clock=CLOCK, disk=FakeDisk())
    entry = review.review(root, case_id[:6], by="grace", accepted=True, remark="clear", clock=CLOCK, disk=FakeDisk())
    assert (entry.state, entry.reviewer, entry.remark) == ("accepted", "grace", "clear")
    assert [e.case.case_id for e in contents.read(root).accepted()] == [case_id]
    review.review(root, case_id, by="grace", accepted=False, clock=CLOCK, disk=FakeDisk())
    assert contents.read(root).accepted() == ()


def test_review_of_an_unknown_or_ambiguous_case_is_refused(root: Path, tmp_path: Path) -> None:
    add(root, new_case(tmp_path / "in", 1))
    for case_id, sentence in (("zzz", "no case"), ("", "no case")):
        with pytest.raises(Refused, match=sentence):
            review.review(root, case_id, by="grace", accepted=True, clock=CLOCK, disk=FakeDisk())


def test_the_same_pixels_are_refused_under_another_name_and_person(root: Path, tmp_path: Path) -> None:
    add(root, new_case(tmp_path / "in", 1))
    with pytest.raises(Refused, match=r"1\.png are already in the archive, in case .* of clinic/p1"):
        add(root, new_case(tmp_path / "other", 1, patient="p2"))
    twice = new_case(tmp_path / "in", 2)
    doubled = NewCase(
        **{name: getattr(twice, name) for name in ("source", "patient", "group", "label", "licence")},
        files=(*twice.files, replace(twice.files[1], path="planes/2.png")),
    )
    with pytest.raises(Refused, match="come twice"):
        add(root, doubled)


def test_one_person_cannot_be_in_two_splits(root: Path, tmp_path: Path) -> None:
    add(root, new_case(tmp_path / "in", 1))
    with pytest.raises(Refused, match='already has cases in "train"; one person cannot also be in "test"'):
        add(root, new_case(tmp_path / "in", 2), split_of=in_test)
    assert len(contents.read(root).entries) == 1


def by_clinic(key: str) -> Split:
    return "train" if key.startswith("clinic/") else "test"


def dicom_case(folder: Path, archive: Path, seed: int, *, source: str) -> NewCase:
    """A study of one slice of MRN-77, whom every source knows by that Patient ID."""
    home = folder / f"study{seed}"
    home.mkdir(parents=True)
    instance(seed, StudyInstanceUID=f"1.2.3.{seed}0").save_as(home / "1.dcm", enforce_file_format=True)
    (new,) = dicom.read(home, archive=archive, source=source, licence="own", label="no_tumor")
    return new


def test_a_dicom_person_stays_in_one_split_whatever_the_source_is_called(root: Path, tmp_path: Path) -> None:
    def taken(new: NewCase) -> Case:
        return adding.add(root, new, curator="ada", clock=CLOCK, disk=FakeDisk(), split_of=by_clinic)

    first = taken(dicom_case(tmp_path, root, 1, source="clinic"))
    other = taken(dicom_case(tmp_path, root, 2, source="ward"))
    picture = taken(new_case(tmp_path / "in", 3, patient=first.patient, source="ward"))
    assert {(case.patient, case.split) for case in (first, other, picture)} == {(first.patient, "train")}
    # What a curator calls a person holds within a source only.
    named = [
        taken(new_case(tmp_path / "in", seed, patient="p1", source=source))
        for seed, source in ((4, "clinic"), (5, "ward"))
    ]
    assert [case.split for case in named] == ["train", "test"]


def test_a_dicom_person_under_two_sources_is_one_of_the_golden_set(root: Path, tmp_path: Path) -> None:
    for seed, source in ((1, "clinic"), (2, "ward")):
        case_id = add(root, dicom_case(tmp_path, root, seed, source=source), split_of=in_test)
        review.review(root, case_id, by="grace", accepted=True, clock=CLOCK, disk=FakeDisk())
    with pytest.raises(Refused, match="test cases of 1 people"):
        golden.ensure(root, by="grace", clock=CLOCK, disk=FakeDisk())


def test_a_second_account_of_the_curator_is_no_second_person(root: Path, tmp_path: Path) -> None:
    case_id = add(root, new_case(tmp_path / "in", 1))
    with pytest.raises(Refused, match="grace and ada count as one person"):
        review.review(
            root, case_id, by="grace", accepted=True, clock=CLOCK, disk=FakeDisk(), counts_as=lambda _name: "ada"
        )
    assert contents.read(root).accepted() == ()


def test_the_split_is_that_of_the_frozen_lists(root: Path, tmp_path: Path) -> None:
    case = adding.add(
        root, new_case(tmp_path / "in", 1, source="btp", patient="btp-05"), curator="ada", clock=CLOCK, disk=FakeDisk()
    )
    assert case.split == "test"


def test_labels_and_masks_must_agree(root: Path, tmp_path: Path) -> None:
    case = new_case(tmp_path / "in", 1)
    fields = {name: getattr(case, name) for name in ("source", "patient", "group", "licence")}
    with pytest.raises(Refused, match="nothing is marked"):
        add(root, NewCase(**fields, label="tumor", files=case.files[1:]))
    with pytest.raises(Refused, match="has masks"):
        add(root, NewCase(**fields, label="no_tumor", files=case.files))
    with pytest.raises(Refused, match="has no licence"):
        add(root, NewCase(**{**fields, "licence": " "}, label="tumor", files=case.files))
    with pytest.raises(Refused, match="leads out"):
        add(root, NewCase(**fields, label="tumor", files=(NewFile(path="../x", source=b"x", role="plane"),)))
    with pytest.raises(Refused, match="no files"):
        add(root, NewCase(**fields, label="tumor", files=()))


@pytest.mark.parametrize("name", ["source", "patient", "group", "licence", "label_provenance"])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x" * 401, "401 letters; 400 are allowed"),
        ("drawn\nby ada", r"U\+000A, which cannot be shown"),
        ("drawn\x00", r"U\+0000"),
        ("\x1b[2J", r"U\+001B"),
        ("\u202edesrever", r"U\+202E"),
        # What a shell passes on for a byte that is no UTF-8.
        ("\udcff", r"U\+DCFF"),
    ],
)
def test_a_text_that_cannot_be_shown_on_a_line_is_refused(
    root: Path, tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    with pytest.raises(Refused, match=f"The {name.replace('_', ' ')} has .*{sentence}"):
        add(root, replace(new_case(tmp_path / "in", 1), **{name: text}))
    assert not root.exists()


def test_what_the_label_rests_on_is_kept_and_under_the_chain(root: Path, tmp_path: Path) -> None:
    said = " manual outlines by one radiologist on FLAIR (Buda et al. 2019) "
    case_id = add(root, replace(new_case(tmp_path / "in", 1), label_provenance=said))
    review.review(root, case_id, by="grace", accepted=True, clock=CLOCK, disk=FakeDisk())
    (entry,) = contents.read(root).accepted()
    assert entry.case.label_provenance == entry.case.label_rests_on == said.strip()
    path = root / manifest.MANIFEST
    path.write_bytes(path.read_bytes().replace(b"one radiologist", b"two radiologist"))
    assert verify.verify(root).faults[0].place == "line 2"


def test_an_archive_from_before_labels_said_what_they_rest_on_stays_as_it_is(root: Path, tmp_path: Path) -> None:
    """1. An earlier version adds a case. 2. This one reads, verifies and reviews it, and adds another."""
    add(root, new_case(tmp_path / "in", 1))
    path = root / manifest.MANIFEST
    line = json.loads(path.read_bytes())
    del line["body"]["label_provenance"]
    old = canon.encode(line) + b"\n"
    path.write_bytes(old)
    head = {"number": 1, "sha256": hashlib.sha256(old[:-1]).hexdigest()}
    (root / manifest.HEAD).write_bytes(canon.encode(head))
    assert verify.verify(root).faults == ()
    now = contents.read(root)
    assert now.head == head["sha256"]
    case = now.entries[0].case
    assert (case.label_provenance, case.label_rests_on) == ("", "not stated")
    review.review(root, case.case_id, by="grace", accepted=True, clock=CLOCK, disk=FakeDisk())
    add(root, replace(new_case(tmp_path / "in", 2), label_provenance="pathology"))
    assert path.read_bytes().startswith(old)
    done = verify.verify(root)
    assert (done.faults, done.lines, done.cases) == ((), 3, 2)
    assert [entry.case.label_provenance for entry in contents.read(root).entries] == ["", "pathology"]


@pytest.mark.parametrize("step", ["write", "sync", "rename", "sync_folder"])
@pytest.mark.parametrize("after", range(12))
def test_death_at_any_step_leaves_the_archive_sound_and_the_case_addable(
    root: Path, tmp_path: Path, step: str, after: int
) -> None:
    """1. one case is in. 2. A second is added; the writer dies before the n-th step of a kind. 3. It is added again."""
    add(root, new_case(tmp_path / "in", 1))

    class Mortal(FakeDisk):
        left = after

        def _step(self, name: str) -> None:
            if name == step:
                if self.left == 0:
                    raise Died(name)
                self.left -= 1
            super()._step(name)

    second = new_case(tmp_path / "in", 2, patient="p2")
    try:
        add(root, second, Mortal())
    except Died:
        assert verify.verify(root).faults == ()
        known = {entry.case.patient for entry in contents.read(root).entries}
        assert known in ({"p1"}, {"p1", "p2"})
        if known == {"p1"}:
            add(root, second)
    done = verify.verify(root)
    assert (done.faults, done.unnamed, done.cases) == ((), (), 2)


def test_a_torn_last_line_was_never_said(root: Path, tmp_path: Path) -> None:
    add(root, new_case(tmp_path / "in", 1))
    with (root / manifest.MANIFEST).open("ab") as file:
        file.write(b'{"schema":"dicomguard.archive/1","number":2,"ki')
    assert verify.verify(root).faults == ()
    add(root, new_case(tmp_path / "in", 2))
    assert verify.verify(root).lines == 2


def test_two_writers_at_once_are_told_to_wait(root: Path, tmp_path: Path) -> None:
    with manifest.locked(root), pytest.raises(Unavailable, match="someone else"):
        add(root, new_case(tmp_path / "in", 1))


def three_lines(root: Path, folder: Path) -> None:
    add(root, new_case(folder, 1))
    case_id = add(root, new_case(folder, 2, patient="p2"))
    review.review(root, case_id, by="grace", accepted=True, clock=CLOCK, disk=FakeDisk())


def test_verify_names_the_changed_line_and_the_remedy(root: Path, tmp_path: Path) -> None:
    three_lines(root, tmp_path / "in")
    path = root / manifest.MANIFEST
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"p2"', b'"p9"'))
    (fault,) = verify.verify(root).faults
    assert fault.place == "line 3"
    assert "changed" in fault.sentence and "Restore" in fault.sentence
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    assert "cut off" in verify.verify(root).faults[0].sentence
    path.write_bytes(lines[0] + lines[2])
    assert verify.verify(root).faults[0].place == "line 2"
    with pytest.raises(Broken):
        contents.read(root)
    path.write_bytes(lines[0] + b"not json\n")
    assert "not readable" in verify.verify(root).faults[0].sentence


def test_verify_names_a_case_that_cannot_be(root: Path, tmp_path: Path) -> None:
    three_lines(root, tmp_path / "in")
    path = root / manifest.MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"label":"tumor"', b'"label":"tumour"'))
    *chain, case = verify.verify(root).faults
    assert chain and "changed" in chain[0].sentence
    assert 'The label "tumour" is unknown' in case.sentence and "backup" in case.sentence


def test_verify_names_the_changed_and_the_missing_file(root: Path, tmp_path: Path) -> None:
    three_lines(root, tmp_path / "in")
    first, second = (root / "cases" / e.case.case_id / "planes" / "1.png" for e in contents.read(root).entries)
    first.write_bytes(b"other")
    second.unlink()
    seen: list[tuple[int, int]] = []
    faults = verify.verify(root, progress=lambda done, total: seen.append((done, total))).faults
    assert [fault.place for fault in faults] == [str(p.relative_to(root)) for p in (first, second)]
    assert "was changed" in faults[0].sentence and "missing" in faults[1].sentence
    assert seen[-1] == (4, 4)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(min_value=0), byte=st.integers(0, 255))
def test_any_changed_byte_of_the_manifest_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    root = tmp_path_factory.mktemp("chain") / "archive"
    three_lines(root, root.parent / "in")
    path = root / manifest.MANIFEST
    content = bytearray(path.read_bytes())
    place = position % len(content)
    if content[place] == byte:
        return
    content[place] = byte
    path.write_bytes(content)
    assert verify.verify(root).faults


def test_no_changed_byte_of_the_last_line_goes_unnoticed_or_ends_the_check(root: Path, tmp_path: Path) -> None:
    """Only the head knows the last line's hash, so that what the line says is read although it was changed."""
    three_lines(root, tmp_path / "in")
    path = root / manifest.MANIFEST
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for place in range(last, len(whole) - 1):
        for byte in b' "1':
            if whole[place] != byte:
                path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
                assert verify.verify(root).faults, (place, byte)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"number": 3}', b'{"number": "x", "sha256": ""}', b"\xff"])
def test_a_head_that_cannot_be_read_is_a_fault_with_its_remedy(root: Path, tmp_path: Path, content: bytes) -> None:
    three_lines(root, tmp_path / "in")
    (root / manifest.HEAD).write_bytes(content)
    (fault,) = verify.verify(root).faults
    assert fault.place == manifest.HEAD
    assert "Restore it" in fault.sentence
    with pytest.raises(Broken, match="Restore it"):
        contents.read(root)


def test_the_golden_set_is_frozen_once(root: Path, tmp_path: Path) -> None:
    def ensure() -> contents.Golden:
        return golden.ensure(root, by="grace", clock=CLOCK, disk=FakeDisk())

    for seed, patient in ((1, "p1"), (2, "p2")):
        case_id = add(root, new_case(tmp_path / "in", seed, patient=patient), split_of=in_test)
        with pytest.raises(Refused, match="golden set needs 2"):
            ensure()
        review.review(root, case_id, by="grace", accepted=True, clock=CLOCK, disk=FakeDisk())
    frozen = ensure()
    late = add(root, new_case(tmp_path / "in", 3, patient="p3"), split_of=in_test)
    review.review(root, late, by="grace", accepted=True, clock=CLOCK, disk=FakeDisk())
    assert ensure() == frozen
    assert {case.patient for case in golden.cases(contents.read(root))} == {"p1", "p2"}
    with pytest.raises(Refused, match="frozen golden set"):
        review.review(root, frozen.members[0][0], by="grace", accepted=False, clock=CLOCK, disk=FakeDisk())


def test_slices_come_in_by_patient_and_group(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for number, (patient, mask) in enumerate((("a", "m0.png"), ("a", ""), ("b", ""))):
            Image.fromarray(plane(number)).save(folder / f"{number}.png")
            if mask:
                Image.fromarray(np.full((16, 16), 255, np.uint8)).save(folder / mask)
            row = {"source": "lgg", "patient": patient, "group": "DU", "slice": number, "sequence": "flair"}
            sizes = {"rows": 16, "cols": 16, "bits": 8, "tumor_px": 0}
            sha256 = pixels.sha256_of(plane(number))
            writer.writerow({**row, **sizes, "file": f"{number}.png", "mask": mask, "sha256": sha256})
    cases = list(slices.read(folder, licence="CC BY 4.0"))
    assert [(case.patient, case.label, len(case.files)) for case in cases] == [("a", "tumor", 3), ("b", "no_tumor", 1)]
    assert {case.label_provenance for case in cases} == {slices.FROM_MASKS}
    (drawn, _) = slices.read(folder, licence="CC BY 4.0", label_provenance="drawn by ada")
    assert drawn.label_provenance == "drawn by ada"
    assert {len(list((root / "cases" / add(root, case)).rglob("*.png"))) for case in cases} == {3, 1}
    Image.fromarray(plane(9)).save(folder / "2.png")
    with pytest.raises(Refused, match=r"2\.png is not the picture"):
        list(slices.read(folder, licence="CC BY 4.0"))
    with pytest.raises(Refused, match="lists no plane of btp"):
        list(slices.read(folder, licence="CC BY 4.0", sources=frozenset({"btp"})))


def instance(number: int, **changes: object) -> pydicom.Dataset:
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID(f"1.2.3.{number}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Roe^Jane", "MRN-77", "19700101"
    ds.ReferringPhysicianName, ds.AccessionNumber, ds.InstitutionName = "Dr^Who", "ACC-5", "St Elsewhere"
    ds.SeriesDescription, ds.StudyDescription = "Ax FLAIR Jane Roe", "Brain Roe"
    ds.Modality, ds.Rows, ds.Columns, ds.InstanceNumber = "MR", 16, 16, number
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 16, 12, 11, 0, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 5.0 * number], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.EchoTime, ds.RepetitionTime, ds.InversionTime = [1, 1], 100, 9000, 2500
    ds.PixelData = np.random.default_rng(number).integers(0, 4000, (16, 16), dtype=np.uint16).tobytes()
    private = ds.private_block(0x0029, "ROE SCANNER", create=True)
    private.add_new(1, "LO", "Jane Roe, bed 7")
    for name, value in changes.items():
        setattr(ds, name, value)
    return ds


def test_a_dicom_study_comes_in_without_its_person(tmp_path: Path, root: Path) -> None:
    folder, masks = tmp_path / "study", tmp_path / "masks"
    folder.mkdir()
    masks.mkdir()
    for number in (3, 1, 2, 6):
        instance(number).save_as(folder / f"im{number}.dcm", enforce_file_format=True)
    (folder / "notes.txt").write_text("no DICOM")
    disc = instance(9)
    disc.SOPClassUID = UID(part10.DIRECTORY_CLASS)
    disc.save_as(folder / "DICOMDIR", enforce_file_format=True)
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(masks / "im2.png")
    (new,) = dicom.read(
        folder, archive=root, source="clinic", licence="own", label="tumor", label_provenance="pathology", masks=masks
    )
    case_id = add(root, new)
    written = b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())
    for secret in (b"Roe", b"MRN-77", b"1970", b"ACC-5", b"Elsewhere", b"Who", b"ROE SCANNER", b"1.2.3.4\0", b"im2"):
        assert secret not in written
    case = contents.read(root).entries[0].case
    assert "private" in case.deidentified
    assert case.label_provenance == "pathology"
    files = [file for file in case.files if file.role == "dicom"]
    # 3 and 6 are no neighbours: numbers are left out between them.
    assert [file.number for file in files] == [1, 2, 3, 5]
    assert [bool(file.mask) for file in files] == [False, True, False, False]
    kept = pydicom.dcmread(root / "cases" / case_id / files[0].path)
    assert kept.PatientIdentityRemoved == "YES" and kept.PatientID == case.patient
    assert kept.EchoTime == 100 and kept.SeriesDescription == "flair"
    assert kept.PixelData == instance(1).PixelData
    assert kept.SeriesInstanceUID.startswith("2.25.")


def test_the_echoes_of_one_series_come_in_as_two_stacks(tmp_path: Path, root: Path) -> None:
    for number in range(1, 7):
        # Instance numbers do not tell which echo comes first at a position.
        first = number in (1, 4, 5)
        one = instance(number, EchoTime=20 if first else 90, EchoNumbers=1 if first else 2)
        one.ImagePositionPatient = [0, 0, 5.0 * ((number + 1) // 2)]
        one.save_as(tmp_path / f"im{number}.dcm", enforce_file_format=True)
    (new,) = dicom.read(tmp_path, archive=root, source="clinic", licence="own", label="no_tumor")
    case_id = add(root, new)
    files = sorted(contents.read(root).entries[0].case.files, key=lambda file: file.number or 0)
    times = [pydicom.dcmread(root / "cases" / case_id / file.path).EchoTime for file in files]
    assert [file.number for file in files] == [1, 2, 3, 5, 6, 7]
    assert times in ([20] * 3 + [90] * 3, [90] * 3 + [20] * 3), "neighbours are of one echo"


def test_the_same_person_keeps_one_key_in_one_archive_only(tmp_path: Path) -> None:
    key = deidentify.read_key(tmp_path / "a")
    assert deidentify.read_key(tmp_path / "a") == key
    assert (tmp_path / "a" / deidentify.KEY_FILE).stat().st_mode & 0o077 == 0

    def patient(key: bytes, **changes: object) -> str:
        return deidentify.clean(instance(1, **changes), key=key, sequence="").patient

    assert patient(key) == patient(key, PatientName="Other^Name")
    assert patient(key) != patient(key, IssuerOfPatientID="B")
    assert patient(key) != patient(deidentify.read_key(tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned"),
        ({"SyntheticData": "YES"}, "authentic"),
        ({"RecognizableVisualFeatures": "YES"}, "face"),
        ({"PatientID": ""}, "no Patient ID"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "no CT or MR"),
    ],
)
def test_what_must_not_enter_is_refused(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        deidentify.clean(instance(1, **changes), key=b"k" * 32, sequence="")


def test_a_line_of_another_version_is_refused(root: Path, tmp_path: Path) -> None:
    add(root, new_case(tmp_path / "in", 1))
    path = root / manifest.MANIFEST
    line = json.loads(path.read_bytes())
    path.write_text(json.dumps({**line, "schema": "dicomguard.archive/2"}) + "\n")
    assert "Use the version" in verify.verify(root).faults[0].sentence


def test_an_empty_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is no archive"):
        contents.read(tmp_path)
