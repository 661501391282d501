import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from dicomguard.core import canon
from dicomguard.errors import Refused, Unavailable
from dicomguard.retrain.archive import adding, contents, golden, manifest, review, verify
from dicomguard.retrain.archive.adding import NewCase, NewFile
from dicomguard.retrain.archive.case import Case, Split
from dicomguard.store.files import Died, FakeDisk
from tests.unit.retrain.archive_cases import CLOCK, add, dicom_case, in_test, in_train, new_case


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


@pytest.mark.parametrize(
    ("by", "remark", "what"),
    [("g" * 401, "", "name of the person"), ("grace\x1b[2J", "", "name of the person"), ("grace", "x\ny", "remark")],
)
def test_a_review_whose_texts_cannot_be_shown_leaves_the_case_as_it_was(
    root: Path, tmp_path: Path, by: str, remark: str, what: str
) -> None:
    case_id = add(root, new_case(tmp_path / "in", 1))
    with pytest.raises(Refused, match=what):
        review.review(root, case_id, by=by, accepted=True, remark=remark, clock=CLOCK, disk=FakeDisk())
    assert contents.read(root).entries[0].state == "to review"
    with pytest.raises(Refused, match="name of the curator"):
        adding.add(root, new_case(tmp_path / "in", 2), curator="a\tb", clock=CLOCK, disk=FakeDisk(), split_of=in_train)
    assert len(contents.read(root).entries) == 1 and not list((root / "incoming").glob("*"))


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


def test_an_empty_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is no archive"):
        contents.read(tmp_path)
