"""Results of a very large study: 2,000 slices of 512², findings on 600 of them."""

import resource
import time
from dataclasses import replace
from io import BytesIO

import highdicom
import numpy as np
from pydicom.dataset import Dataset

from tests.sr_cases import Spot, case, disc, frames, single_frame

SLICES, MASKED, SIDE = 2000, 600, 512


def test_two_thousand_slices() -> None:
    def large(ds: Dataset) -> None:
        ds.Rows = ds.Columns = SIDE

    stack = frames(single_frame(SLICES, change=large))
    made = case("added", [stack], [Spot(category="added", places=range(2))])
    finding = made.verdict.findings[0]
    mask = np.zeros((SIDE, SIDE), bool)
    mask[: disc((20, 18), 6).shape[0], : disc((20, 18), 6).shape[1]] = disc((20, 18), 6)
    sops = [str(header.SOPInstanceUID) for header, _ in stack[700 : 700 + MASKED]]
    slices = tuple(replace(finding.slices[0], sop_instance_uid=sop) for sop in sops)
    verdict = replace(made.verdict, findings=(replace(finding, slices=slices),))
    large_case = replace(made, verdict=verdict, masks={"F1": [(sop, None, mask) for sop in sops]})

    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    built = large_case.build()
    seconds = time.monotonic() - started
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{seconds:.1f} s, {grown_mib:.0f} MiB more, SEG {len(built[0].data) / 1e6:.1f} MB, SR {len(built[1].data)} B"
    )
    assert seconds < 30 and grown_mib < 700

    seg = highdicom.seg.segread(BytesIO(built[0].data))
    pixels = seg.get_pixels_by_source_instance([sops[0], sops[-1]], [1], ignore_spatial_locations=True)
    assert (pixels[..., 0].astype(bool) == mask).all()
    assert int(seg.NumberOfFrames) == MASKED
