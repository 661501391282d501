"""What calibration looks at: of a stack the whole and three parts of it, each with slices enough to be a stack."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from dicomguard.analyze.channels import Prepared
from dicomguard.analyze.net.detector import Detector, Seen
from dicomguard.retrain import dataset
from dicomguard.retrain.dataset import Pixels
from dicomguard.retrain.net import shown
from tests.unit.retrain.net import archive, looks


class Blind(Detector):
    """Sees nothing in any slice, and remembers how many slices it was shown."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def look_at(self, prepared: Prepared, small: Prepared, chosen: Sequence[int]) -> list[Seen]:
        self.shown.append(len(prepared.slices))
        return list(looks.run("own", [0.0] * len(chosen)).seen)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    """Twenty planes, a head on each."""
    folder = archive.write(tmp_path_factory.mktemp("archive"), people=1, planes=20)
    return dataset.read_pixels(folder, dataset.read_index(folder)[0])


def test_a_stack_is_looked_at_whole_and_in_three_parts(stack: Pixels) -> None:
    detector = Blind()
    whole, *parts = shown.authentic_stacks(detector, [stack])
    assert detector.shown == [20, 16, 16, 16]
    assert whole.pixels is stack and not whole.excerpt and whole.planes == tuple(range(20))
    assert len(parts) == 3
    for first, part in zip((0, 2, 4), parts, strict=True):
        assert part.excerpt and not part.family
        assert np.array_equal(part.pixels.stored, stack.stored[first : first + 16])
        assert np.array_equal(part.pixels.lesion, stack.lesion[first : first + 16])
        # Counted from the part's own first plane.
        assert part.planes == tuple(range(16)) and len(part.seen) == 16
        assert all(np.array_equal(part.lesions[i], stack.lesion[first + i]) for i in part.planes)
        assert len(part.pixels.touching) == 15


@pytest.mark.parametrize(("heads", "kept"), [(9, [9, 9, 7, 5]), (8, [8, 8, 6])])
def test_an_end_of_a_stack_without_heads_is_no_loose_picture(stack: Pixels, heads: int, kept: list[int]) -> None:
    """Heads on the lowest planes alone: the upper part begins at the fifth, and below five slices there is no stack."""
    stored = stack.stored.copy()
    stored[heads:] = 0
    assert [len(run.planes) for run in shown.authentic_stacks(Blind(), [replace(stack, stored=stored)])] == kept


def test_a_stack_that_is_short_itself_has_no_parts(stack: Pixels) -> None:
    short = replace(stack, stored=stack.stored[:16], lesion=stack.lesion[:16], touching=stack.touching[:15])
    assert [run.excerpt for run in shown.authentic_stacks(Blind(), [short])] == [False]
