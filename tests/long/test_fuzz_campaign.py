"""A million mutated associations and a hundred thousand mutated datasets, in runs whose seeds say what they were.

What broke lies in the folder of its run with the recipe; `python -m tests.fuzz` repeats one run alone.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RUNS = 20
PDUS, DATASETS = 50_000, 5_000
_PATIENCE_S = 3600
Record = Callable[[str, object], None]


def run(folder: Path, what: str, *options: str) -> dict[str, Any]:
    """One run in a process of its own, whose memory is bounded."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", what, "--folder", str(folder), *options],
        capture_output=True, text=True, check=False, timeout=_PATIENCE_S,
        # Each panic of a codec in Rust would else print its frames, which costs more than the decoding.
        env={**os.environ, "OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = dict(json.loads(done.stdout.splitlines()[-1]))
    print(json.dumps(said))
    return said


@pytest.mark.parametrize("seed", range(1000, 1000 + RUNS))
def test_mutated_associations(tmp_path: Path, record_property: Record, seed: int) -> None:
    said = run(tmp_path, "pdus", "--seed", str(seed), "--count", str(PDUS), "--store-every", "500")
    assert said["faults"] == {}
    assert said["count"] >= PDUS
    record_property("mutated associations", said["count"])
    assert said["slowest_s"] < 5
    assert said["peak_mib"] < 500
    assert said["descriptors"] < 40


@pytest.mark.parametrize("seed", range(2000, 2000 + RUNS))
def test_mutated_datasets(tmp_path: Path, record_property: Record, seed: int) -> None:
    # One run in five takes every dataset through a whole store.
    rows = ("--rows",) if seed % 5 == 0 else ()
    said = run(tmp_path, "datasets", "--seed", str(seed), "--count", str(DATASETS), "--report-every", "100", *rows)
    assert said["faults"] == {}
    assert said["count"] >= DATASETS
    record_property("mutated datasets", said["count"])
    assert said["slowest_s"] < 5
    assert said["peak_mib"] < 1000
