"""`make demo`: start a node and a PACS, send four studies by C-STORE, show what comes back.

Exit status 0 when all four answers are right.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from demo.pacs import Pacs, end, start, wait_until
from demo.ports import free_port, listens
from dicomguard.core import wording
from dicomguard.sr import overlay

HERE = Path(__file__).resolve().parent
SCANS = HERE / "scans"
OUTPUT = HERE.parent / "demo-out"
COMMAND = [sys.executable, "-m", "dicomguard"]
PATIENCE_S = 420.0


def configuration(state: Path, pacs: Pacs) -> tuple[Path, int, int]:
    """Write the node's configuration; return it with the receiver's and the page's port."""
    receiver, health = free_port(), free_port()
    page = 8090 if not listens(8090) else free_port()
    path = state / "dicomguard.toml"
    path.write_text(
        f"""[node]
port = {receiver}
state = "var"
name = "demo"
[peers.demo]
ae_title = "DEMO"
addresses = ["127.0.0.1"]
[destinations.pacs]
ae_title = "{pacs.ae_title}"
host = "127.0.0.1"
port = {pacs.port}
[[routes]]
name = "everything to the PACS"
to = ["pacs"]
[completion]
quiet_s = 2
[storage]
low_bytes = 0
stop_bytes = 0
[web]
port = {page}
health_port = {health}
"""
    )
    return path, receiver, page


@contextlib.contextmanager
def node(config: Path, receiver: int, page: int) -> Iterator[subprocess.Popen[bytes]]:
    """The node itself, with its log beside the results."""
    with (OUTPUT / "node.log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, "serve", "--config", str(config)], stdout=log, stderr=log)
    try:
        wait_until(
            lambda: (listens(receiver) and listens(page)) or process.poll() is not None, seconds=90, what="the node"
        )
        if process.poll() is not None:
            raise SystemExit(f"demo: the node ended with status {process.returncode}. Read {OUTPUT / 'node.log'}.")
        yield process
    finally:
        end(process)


def answer_of(report: pydicom.Dataset) -> str:
    """Category of a report by its title (docs/conformance.md)."""
    titles = {"DG0001": "real", "DG0002": "absent", "DG0003": "added", "DG0004": "removed", "DG0005": "not_analysable"}
    return titles[report.ConceptNameCodeSequence[0].CodeValue]


def summary_of(report: pydicom.Dataset) -> str:
    """The sentence for the reader (DG1012)."""
    for item in report.ContentSequence:
        for inner in item.get("ContentSequence", []):
            name = inner.get("ConceptNameCodeSequence")
            if name and name[0].CodeValue == "DG1012":
                return str(inner.TextValue)
    return ""


def draw_overlays(folder: Path, segmentation: pydicom.Dataset, category: str) -> int:
    """One PNG per segmented slice: the outline that a viewer would show. Return their number."""
    sources = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, sorted(folder.glob("*.dcm")))}
    frames = np.atleast_3d(segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns))
    target = OUTPUT / folder.name
    target.mkdir(parents=True, exist_ok=True)
    for mask, functional in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        uid = functional.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        pixels = sources[uid].pixel_array.astype(np.float32)
        low, high = np.percentile(pixels, (0.5, 99.8))
        grey = (np.clip((pixels - low) / max(high - low, 1.0), 0, 1) * 255).astype(np.uint8)
        image = overlay.render(grey, [(mask.astype(bool), category)])  # type: ignore[list-item]
        Image.fromarray(image).save(target / f"slice-{int(sources[uid].InstanceNumber):03d}.png")
    return len(frames)


def run(pacs: Pacs, receiver: int) -> bool:
    """Send each study, wait for its report in the PACS, print one line; True when all are right."""
    right = True
    expected: dict[str, dict[str, str]] = json.loads((SCANS / "expected.json").read_text())
    for name in expected:
        target = f"DICOMGUARD@127.0.0.1:{receiver}"
        subprocess.run(
            [*COMMAND, "send", "--as", "DEMO", "--to", target, str(SCANS / name)], check=True, capture_output=True
        )
    for name, truth in expected.items():
        study = str(pydicom.dcmread(next((SCANS / name).glob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)
        wait_until(
            lambda study=study: any(one.Modality == "SR" for one in pacs.results(study)),  # type: ignore[misc]
            seconds=PATIENCE_S,
            what=f"the report on {name}",
        )
        results = pacs.results(study)
        report = next(one for one in results if one.Modality == "SR")
        answer, segmentations = answer_of(report), [one for one in results if one.Modality == "SEG"]
        correct = answer == truth["category"]
        right &= correct
        drawn = sum(draw_overlays(SCANS / name, one, answer) for one in segmentations)
        print(f"\n{truth['what']}")
        print(f"  {'right' if correct else 'WRONG'}  {wording.answer(answer)}")  # type: ignore[arg-type]
        print(f"  {summary_of(report)}")
        print(f"  SR  {report.SOPInstanceUID}")
        for one in segmentations:
            print(f"  SEG {one.SOPInstanceUID}  {len(one.SegmentSequence)} region(s), {drawn} slice(s) drawn")
    return right


def main() -> int:
    """Run the demonstration; stay for the page when a person watches."""
    # Ended from outside, the demonstration still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    with tempfile.TemporaryDirectory(prefix="dicomguard-demo-") as folder, start(Path(folder) / "pacs") as pacs:
        config, receiver, page = configuration(Path(folder), pacs)
        with node(config, receiver, page) as process:
            print(f"dicomguard listens as DICOMGUARD on 127.0.0.1:{receiver}; the PACS is {pacs.name}.")
            right = run(pacs, receiver)
            print(f"\n{'All four answers are right' if right else 'NOT all answers are right'}", end="")
            print(f" after {time.monotonic() - began:.0f} s. Pictures: {OUTPUT}/")
            print(f"The page: http://127.0.0.1:{page}/")
            if sys.stdin.isatty() and sys.stdout.isatty():
                print("Press Ctrl-C to end the node and the PACS.")
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
