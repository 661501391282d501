"""Files and folders as studies: what is taken once, what is named, and order that does not depend on the disk."""

from pathlib import Path

import numpy as np
import pytest

from dicomguard.analyze import folder
from dicomguard.core import uid
from dicomguard.core.verdict import ModelScope
from dicomguard.errors import Refused
from tests import studies

SCOPE = ModelScope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair",))


def test_folders_are_read_below_and_grouped_by_study(tmp_path: Path) -> None:
    studies.save(tmp_path / "a" / "deep", studies.series(3, study="one"))
    studies.save(tmp_path / "b", studies.series(2, study="two"))
    found = folder.gather([tmp_path])
    assert [len(copies) for copies in found.studies.values()] == [3, 2]
    assert found.skipped == ()


def test_what_is_no_instance_is_named_with_a_reason(tmp_path: Path) -> None:
    studies.save(tmp_path, studies.series(2))
    (tmp_path / "notes.txt").write_text("see you at noon")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "torn.dcm").write_bytes((tmp_path / "0001.dcm").read_bytes()[:200])
    (tmp_path / ".hidden").write_text("x")
    found = folder.gather([tmp_path])
    assert sorted(item.path.name for item in found.skipped) == ["empty.dcm", "notes.txt", "torn.dcm"]
    assert all(item.reason.endswith(".") for item in found.skipped)
    assert "noon" not in str(found.skipped)


def test_same_file_twice_is_one_and_other_pixels_are_a_conflict(tmp_path: Path) -> None:
    first, second, third = studies.series(1)[0], studies.series(1)[0], studies.series(1)[0]
    second.SeriesDescription = "renamed on the way"
    studies.put_pixels(third, np.zeros((128, 128), np.uint16))
    paths = studies.save(tmp_path / "x", [first, second, third])
    found = folder.gather([*paths, tmp_path])
    ((_, copies),) = found.studies.items()
    assert [instance.ordinal for _, instance in copies] == [0, 1]
    assert [item.path.name for item in found.skipped] == ["0002.dcm"]


def test_a_study_exported_anew_with_slices_changed_is_whole(tmp_path: Path) -> None:
    """New Study Instance UID, old SOP Instance UIDs, one slice forged: both studies have all their slices."""
    again = studies.series(3)
    for ds in again:
        ds.StudyInstanceUID = "1.2.3.4"
    studies.put_pixels(again[1], np.zeros((128, 128), np.uint16))
    studies.save(tmp_path / "a", studies.series(3))
    studies.save(tmp_path / "b", again)
    found = folder.gather([tmp_path / "a", tmp_path / "b"])
    assert [[instance.ordinal for _, instance in copies] for copies in found.studies.values()] == [[0, 0, 0]] * 2
    assert found.skipped == ()


def test_missing_identifiers_are_made_up_once(tmp_path: Path) -> None:
    datasets = studies.series(3)
    for ds in datasets:
        ds.StudyInstanceUID = ds.SeriesInstanceUID = ""
    studies.save(tmp_path, datasets)
    ((uid, copies),) = folder.gather([tmp_path]).studies.items()
    assert uid.startswith("2.25.")
    assert len({header.series_instance_uid for header, _ in copies}) == 1
    assert list(folder.gather([tmp_path]).studies) == [uid]


def test_manifest_does_not_depend_on_file_names(tmp_path: Path) -> None:
    datasets = studies.series(4)
    forward = folder.gather([*studies.save(tmp_path / "f", datasets)])
    backward = folder.gather([*studies.save(tmp_path / "b", datasets[::-1])])
    plans = []
    for found in (forward, backward):
        ((uid, copies),) = found.studies.items()
        plans.append(folder.manifest_of(uid, copies, rules=(), scope=SCOPE).series[0])
    assert [i.sop_instance_uid for i in plans[0].slices] == [i.sop_instance_uid for i in plans[1].slices]


def test_echoes_of_one_series_are_stacks_whichever_files_are_lost(tmp_path: Path) -> None:
    """Classic images of two echoes, one file lost, positions printed a little apart, no Instance Number."""
    datasets = []
    for echo in (1, 2):
        one = studies.series(20, origin=(-64.0, -64.0, 0.002 * (echo - 1)))
        for index, ds in enumerate(one):
            ds.SOPInstanceUID = uid.derive("test", "echo", echo, index)
            ds.EchoNumbers, ds.EchoTime, ds.InstanceNumber = echo, 30 * echo, None
        datasets += one
    del datasets[3]
    ((study, copies),) = folder.gather(studies.save(tmp_path, datasets)).studies.items()
    echo_of = {str(ds.SOPInstanceUID): int(ds.EchoNumbers) for ds in datasets}
    plans = folder.manifest_of(study, copies, rules=(), scope=SCOPE).series
    assert [[echo_of[item.sop_instance_uid] for item in plan.slices] for plan in plans] == [[2] * 20, [1] * 19]
    assert [plan.kind for plan in plans] == ["regular", "unequal"]


def test_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not exist"):
        folder.gather([tmp_path / "nothing"])
