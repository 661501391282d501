"""Archives of authentic DICOM as others packed them: unpacked inside a folder that goes away, or not at all."""

import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomguard import part10
from dicomguard.errors import Refused
from dicomguard.retrain.evaluate.scoring import study_of


@contextmanager
def unpacked(archive: Path) -> Iterator[list[list[Path]]]:
    """The studies of a tar archive, unpacked into a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as file:
            # Names stay inside the folder, and only plain files are taken: a filter of tarfile needs Python 3.11.4.
            plain = [member for member in file.getmembers() if member.isfile()]
            if any(Path(member.name).is_absolute() or ".." in Path(member.name).parts for member in plain):
                raise Refused(f"{archive.name} holds a path outside itself. Pack the folder again.")
            file.extractall(folder, members=plain)
        by_study: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(Path(folder).rglob("*")):
            study = study_of(path) if path.is_file() else None
            if study is not None:
                by_study[study].append(path)
        yield [by_study[study] for study in sorted(by_study)]


def patient_of(path: Path) -> str | None:
    """Patient ID of an instance; None where it says none: others may then be of the same person."""
    return str(part10.read_dataset_head(path, tags=("PatientID",)).get("PatientID") or "") or None
