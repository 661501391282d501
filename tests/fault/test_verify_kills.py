"""SIGKILL during retention and backup, before some of their effects; before every one in tests/long."""

from pathlib import Path

from tests.keeping_kills import kill_backup, kill_removal_of_a_study, kill_retention_of_images


def test_retention_of_images_can_be_cut_off_anywhere(tmp_path: Path) -> None:
    assert kill_retention_of_images(tmp_path, every=4) >= 3


def test_removal_of_a_study_can_be_cut_off_anywhere(tmp_path: Path) -> None:
    assert kill_removal_of_a_study(tmp_path, every=4) >= 3


def test_a_backup_can_be_cut_off_anywhere(tmp_path: Path) -> None:
    assert kill_backup(tmp_path, every=8) >= 3
