"""Mutated datasets: the door refuses or quarantines, what it lets in ends in a report, codecs die in their child."""

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dicomguard import headers
from dicomguard.analyze.pixels import Reader
from dicomguard.errors import Refused
from dicomguard.store.identity import read_identity
from tests.fuzz import datasets
from tests.fuzz.reading import Campaign
from tests.fuzz.values import UNDEFINED
from tests.instances import PYDICOM, part10_bytes, part10_file


def campaign(folder: Path, *options: str) -> dict[str, Any]:
    """Run `python -m tests.fuzz datasets` and read what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "datasets", "--folder", str(folder), *options],
        capture_output=True, text=True, check=False, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "options",
    [
        ("--seed", "11", "--count", "80", "--report-every", "16"),
        ("--seed", "12", "--count", "20", "--report-every", "40", "--rows"),
    ],
    ids=["readers", "store"],
)
def test_mutants_end_at_the_door_or_in_a_report(tmp_path: Path, options: tuple[str, ...]) -> None:
    said = campaign(tmp_path, *options)
    assert said["faults"] == {}
    assert said["count"] >= 90
    assert said["slowest_s"] < 5
    assert said["peak_mib"] < 700
    # The mutators reach everything: refused, taken without being readable in full, and judged.
    assert any(end.startswith("not taken") or end == "quarantined" for end in said["ends"])
    assert any(end.endswith("removed, read") for end in said["ends"])


def nested(depth: int) -> bytes:
    """Patient ID as a sequence of sequences around an element that no parser can read."""
    head = struct.pack("<HH2sHI", 0x0010, 0x0020, b"SQ", 0, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    bad = struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 3) + b"abc"
    closed = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return head * depth + bad + closed * depth


def test_sequence_in_the_place_of_a_text_is_refused_without_being_printed(tmp_path: Path) -> None:
    """pydicom prints it with the trace of its error, twice as long at each level: 8 kB became 20 GB."""
    path = part10_file(tmp_path)
    data = path.read_bytes()
    element = next(item for item in datasets.walk(data) if (item.group, item.number) == (0x0010, 0x0020))
    damaged = data[: element.begin] + nested(14) + data[element.end :]
    with pytest.raises(Refused, match="TypeError"):
        read_identity(io.BytesIO(damaged))


def test_sequence_in_the_place_of_a_text_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "damaged.dcm"
    data = part10_bytes(SeriesDescription="AX T1")
    element = next(item for item in datasets.walk(data) if (item.group, item.number) == (0x0008, 0x103E))
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    head = struct.pack("<HH2sHI", 0x0008, 0x103E, b"SQ", 0, len(item))
    path.write_bytes(data[: element.begin] + head + item + data[element.end :])
    with pytest.raises(Refused, match="TypeError"):
        headers.read_header(path)


def test_conflict_of_what_is_no_image_is_reported(tmp_path: Path) -> None:
    """A dose or a presentation state has no slice in the manifest that the sentence could name."""
    with Reader() as reader:
        campaign = Campaign(tmp_path, reader, ordinal=1)
        campaign.run([datasets.Mutant("dose", (PYDICOM / "rtdose_1frame.dcm").read_bytes())])
    assert campaign.faults == {}
    assert [*campaign.ends] == ["reported not_analysable, read"]


def test_seeds_are_read_as_they_are() -> None:
    seeds = datasets.seeds()
    assert len({seed.name for seed in seeds}) > 70
    assert sum(bool(seed.elements) for seed in seeds) > 0.9 * len(seeds)
