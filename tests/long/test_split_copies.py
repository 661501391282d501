"""No plane of one split is a near copy of a plane of another, over all planes that the shipped weights know."""

from pathlib import Path

from dicomguard.retrain import dataset


def test_no_near_copies_across_the_frozen_split(shared_data: Path) -> None:
    parts = dataset.by_split(dataset.read_index(shared_data))
    hashes = {split: dataset.near_copy_hashes(shared_data, series) for split, series in parts.items()}
    assert all(len(members) > 100 for members in hashes.values())
    dataset.assert_no_near_copies(hashes)
