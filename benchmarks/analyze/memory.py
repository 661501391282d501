"""Memory of `dicomguard analyze` as a study grows: the largest of its processes at its peak."""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dicomguard.analyze import weights
from tests import studies

# A study of a few slices shows what program, libraries and weights take.
_FEW = 2


def peak_mib(slices: int) -> tuple[float, float]:
    """MiB of the largest process ended so far, and seconds, of one study; call with rising numbers of slices."""
    with tempfile.TemporaryDirectory() as folder:
        studies.save(Path(folder), studies.series(slices, size=(256, 256), step_mm=(0.0, 0.0, 1.0)))
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "dicomguard", "analyze", "--json", folder], stdout=subprocess.DEVNULL, check=True
        )
        seconds = time.monotonic() - began
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, seconds


def main() -> None:
    """Print both peaks and what the slices take beyond program and weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=2000)
    given = parser.parse_args()
    floor, _ = peak_mib(_FEW)
    peak, seconds = peak_mib(given.slices)
    size = weights.shipped().stat().st_size / 2**20
    print(f"{_FEW} slices of 256 x 256: peak {floor:.0f} MiB, of which the weights' file is {size:.1f}")
    print(f"{given.slices} slices: peak {peak:.0f} MiB, {peak - floor:.0f} beyond that, {seconds:.0f} s")


if __name__ == "__main__":
    main()
