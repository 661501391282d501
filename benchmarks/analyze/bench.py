"""Time of a whole analysis, and of the detector beside torchvision's stock Mask R-CNN in the same process."""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
import torch

from dicomguard.analyze import weights
from dicomguard.analyze.net import ops

OPERATORS = ops.prepare()

from torchvision.models.detection import maskrcnn_resnet50_fpn  # noqa: E402

from dicomguard.analyze.net.detector import Detector, Slice  # noqa: E402
from tests import studies  # noqa: E402

STOCK_SLICES = 3
ROUNDS = 3
# Slices that the detector judges at once in a round.
BATCH = 24


def whole(folder: Path) -> tuple[float, dict[str, object]]:
    """Seconds of `dicomguard analyze --json` on the folder, and its verdict."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dicomguard", "analyze", "--json", str(folder)], capture_output=True, check=True
    )
    return time.monotonic() - began, json.loads(done.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        studies.save(Path(folder), studies.series(given.slices, size=(256, 256), step_mm=(0.0, 0.0, 1.0)))
        seconds, verdict = whole(Path(folder))
        planes = [pydicom.dcmread(path).pixel_array.astype(np.float32) for path in sorted(Path(folder).glob("*.dcm"))]
    detector = Detector.load(weights.shipped(), device="cpu", threads=given.threads)
    stock = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    ours, theirs = [], []
    for _ in range(ROUNDS):
        slices = [
            Slice(key=str(i), pixels=plane, position_mm=float(i), spacing_mm=(1.0, 1.0))
            for i, plane in enumerate(planes[:BATCH])
        ]
        began = time.monotonic()
        detector.series(slices)
        ours.append((time.monotonic() - began) / len(slices))
        batch = [torch.from_numpy(plane / plane.max()).expand(3, -1, -1) for plane in planes[:STOCK_SLICES]]
        began = time.monotonic()
        with torch.inference_mode():
            for image in batch:
                stock([image])
        theirs.append((time.monotonic() - began) / STOCK_SLICES)
    result = {
        "slices": given.slices,
        "threads": given.threads,
        "torch": torch.__version__,
        "operators": OPERATORS,
        "analyze_seconds": round(seconds, 1),
        "slices_analysed": verdict["coverage"]["slices_analysed"],  # type: ignore[index]
        "detector_seconds_per_slice": round(statistics.median(ours), 4),
        "stock_seconds_per_slice": round(statistics.median(theirs), 4),
        "ratio": round(statistics.median(theirs) / statistics.median(ours), 1),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    for name, value in result.items():
        print(f"{name:28} {value}")
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
