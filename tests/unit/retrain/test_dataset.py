"""People stay on their side of the split, and the data folder is read as it says."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicomguard.errors import Broken, Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.dataset import Plane, Series


def series(patient: str, sha: str = "", source: str = "own", group: str = "g", number: int = 1) -> Series:
    plane = Plane(number=number, file="f", mask="", bits=8, sha256=sha or f"{source}{patient}{group}{number}")
    return Series(source=source, patient=patient, group=group, sequence="t1", planes=(plane,))


def folder(root: Path, numbers: tuple[int, ...] = (1, 2, 4)) -> Path:
    rows = []
    for number in numbers:
        Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(root / f"{number}.png")
        rows.append(
            dict(
                zip(
                    dataset.COLUMNS,
                    ("own", "p", "g", number, "t1", f"{number}.png", "", 0, 8, 8, 8, f"h{number}"),
                    strict=True,
                )
            )
        )
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:4, 2:4] = 255
    Image.fromarray(mask).save(root / "m.png")
    rows[0]["mask"] = "m.png"
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, dataset.COLUMNS)
        writer.writeheader()
        writer.writerows(reversed(rows))
    return root


def test_planes_come_in_order_with_masks_and_neighbours(tmp_path: Path) -> None:
    (one,) = dataset.read_index(folder(tmp_path))
    pixels = dataset.read_pixels(tmp_path, one)
    assert [int(plane[0, 0]) for plane in pixels.stored] == [1, 2, 4]
    assert pixels.touching == (True, False)
    assert pixels.lesion[0].sum() == 4 and not pixels.lesion[1:].any()


def test_folder_without_index_or_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        dataset.read_index(tmp_path)
    (tmp_path / "index.csv").write_text("source,patient\n")
    with pytest.raises(Refused, match="group"):
        dataset.read_index(tmp_path)


def test_frozen_lists_hold_each_person_once_and_all_parts() -> None:
    frozen = dataset.frozen_splits()
    assert {key.split("/")[0] for key in frozen} == {"lgg", "cheng", "btp", "openms"}
    for source in ("lgg", "cheng", "btp", "openms"):
        assert {split for key, split in frozen.items() if key.startswith(source)} == set(dataset.SPLITS)
    share = sum(split == "test" for split in frozen.values()) / len(frozen)
    assert share == pytest.approx(0.30, abs=0.02)


def test_unknown_people_fall_by_their_key_and_stay_there() -> None:
    keys = [f"own/{i}" for i in range(2000)]
    splits = [dataset.split_of(key, {}) for key in keys]
    assert splits == [dataset.split_of(key, {}) for key in keys]
    assert splits.count("train") / 2000 == pytest.approx(0.55, abs=0.04)
    assert dataset.split_of("own/1", {"own/1": "test"}) == "test"


def test_proposal_keeps_shares_within_source_and_group() -> None:
    people = [series(f"p{i}", source="lgg", group="DU" if i < 40 else "HT") for i in range(60)]
    (parts,) = dataset.propose_splits(people).values()
    assert {name: len(keys) for name, keys in parts.items()} == {"train": 33, "validation": 9, "test": 18}
    ht = {f"lgg/p{i}" for i in range(40, 60)}
    assert len(ht & set(parts["test"])) == 6
    assert dataset.propose_splits(people) == dataset.propose_splits(list(reversed(people)))


def test_one_person_or_one_plane_on_both_sides_is_broken() -> None:
    dataset.assert_disjoint({"train": [series("a")], "test": [series("b")]})
    with pytest.raises(Broken):
        dataset.assert_disjoint({"train": [series("a")], "test": [series("a", group="h")]})
    with pytest.raises(Broken):
        dataset.assert_disjoint({"train": [series("a", sha="same")], "test": [series("b", sha="same")]})


def test_lesions_drawn_on_another_sequence_are_unknown() -> None:
    marked = Plane(number=1, file="f", mask="m", bits=8, sha256="x")
    for sequence, known in (("flair", True), ("t1", False)):
        one = Series(source="lgg", patient="p", group="DU", sequence=sequence, planes=(marked,))
        assert one.lesion_known is known


def test_a_near_copy_has_nearly_the_same_difference_hash() -> None:
    rng = np.random.default_rng(0)
    plane = np.kron(rng.uniform(0, 200, (12, 12)), np.ones((16, 16)))
    copy = np.clip(plane * 1.1 + rng.normal(0, 2, plane.shape), 0, 255)
    other = np.kron(rng.uniform(0, 200, (12, 12)), np.ones((16, 16)))
    hashes = [dataset.difference_hash(p) for p in (plane, copy, other)]
    assert (hashes[0] ^ hashes[1]).bit_count() < 60 < (hashes[0] ^ hashes[2]).bit_count()


def test_a_near_copy_on_the_other_side_is_broken_with_both_names() -> None:
    rng = np.random.default_rng(0)
    plane = np.kron(rng.uniform(0, 200, (12, 12)), np.ones((16, 16)))
    copy = np.clip(np.rint(plane * 0.9 + rng.normal(0, 1, plane.shape)), 0, 255)[::2, ::2]
    other = np.kron(rng.uniform(0, 200, (12, 12)), np.ones((16, 16)))
    own, near, far = (dataset.difference_hash(p) for p in (plane, copy, other))
    dataset.assert_no_near_copies({"train": [("a.png", own)], "test": [("b.png", far)]})
    dataset.assert_no_near_copies({"train": [("a.png", own), ("b.png", near)], "test": []})
    with pytest.raises(Broken, match=r"a\.png in train and b\.png in test are near copies"):
        dataset.assert_no_near_copies({"train": [("c.png", far), ("a.png", own)], "test": [("b.png", near)]})
    # Empty planes are alike in every scan.
    dataset.assert_no_near_copies({"train": [("a.png", 0)], "validation": [("b.png", 0)], "test": []})
