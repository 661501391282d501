"""SIGKILL before every single effect of retention and of backup."""

from pathlib import Path

from tests.keeping_kills import kill_backup, kill_removal_of_a_study, kill_retention_of_images


def test_every_effect_of_retention_and_backup(tmp_path: Path) -> None:
    counts = []
    for number, kill in enumerate((kill_retention_of_images, kill_removal_of_a_study, kill_backup)):
        folder = tmp_path / str(number)
        folder.mkdir()
        counts.append(kill(folder, every=1))
    print(f"{sum(counts)} kills: {counts}")
    assert min(counts) >= 10
