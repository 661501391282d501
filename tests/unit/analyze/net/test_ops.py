"""Our box operators against closed forms and against torchvision's own reference in Python."""

import pytest
import torch

from dicomguard.analyze.net import ops

ops.prepare()

from torchvision.ops.roi_align import _roi_align as reference  # noqa: E402


def test_nms_keeps_the_best_of_each_heap() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 10.0]])
    scores = torch.tensor([0.5, 0.9, 0.1, 0.5])
    assert ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert ops.nms(boxes, scores, 0.99).tolist() == [1, 0, 2]
    assert ops.nms(torch.zeros((0, 4)), torch.zeros(0), 0.5).tolist() == []


def test_nms_equals_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(150, 4, generator=generator) * 40
    boxes[:, 2:] = boxes[:, :2] + torch.rand(150, 2, generator=generator) * 30 + 1
    scores = torch.rand(150, generator=generator)
    left = scores.argsort(descending=True).tolist()
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if _iou(boxes[best], boxes[i]) <= 0.4]
    assert ops.nms(boxes, scores, 0.4).tolist() == kept


def _iou(a: torch.Tensor, b: torch.Tensor) -> float:
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp(min=0)
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def test_roi_align_of_a_plane_is_the_plane_at_the_bins_middle() -> None:
    """Bilinear samples of a linear function average to its value in the middle of the bin."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    features = (2 * x + 3 * y)[None, None]
    rois = torch.tensor([[0, 4.0, 6.0, 18.0, 20.0]])
    for ratio in (2, -1):
        pooled = ops.roi_align(features, rois, 1.0, 7, 7, ratio, True)[0, 0]
        middle = torch.arange(7) * 2 + 0.5
        expected = 2 * (4 + middle)[None, :] + 3 * (6 + middle)[:, None]
        assert torch.allclose(pooled, expected, atol=1e-4)


@pytest.mark.parametrize("ratio", [2, -1])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_equals_the_reference(ratio: int, aligned: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 5, 40, 50, generator=generator)
    boxes = torch.rand(12, 4, generator=generator) * 40
    boxes[:, 2:] = boxes[:, :2] + torch.rand(12, 2, generator=generator) * 30 + 1
    rois = torch.cat((torch.tensor([0.0, 1.0] * 6)[:, None], boxes), dim=1)
    plain = reference.__wrapped__
    expected = plain(features, rois, 0.5, 7, 7, ratio, aligned)
    assert torch.allclose(ops.roi_align(features, rois, 0.5, 7, 7, ratio, aligned), expected, atol=1e-4)


@pytest.mark.parametrize("ratio", [2, -1])
def test_roi_align_has_the_right_gradient(ratio: int) -> None:
    features = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(2), requires_grad=True)
    rois = torch.tensor([[0, 1.0, 1.0, 6.0, 7.0]])
    ops.roi_align(features, rois, 1.0, 2, 2, ratio, True)[0, 0, 0, 0].backward()
    gradient = features.grad
    assert gradient is not None
    # One bin is a weighted mean of one channel: its gradient is those weights.
    assert float(gradient[0, 0].sum()) == pytest.approx(1.0, abs=1e-5)
    assert not gradient[0, 1].any()


def test_no_box_no_crash_and_half_precision_stays() -> None:
    features = torch.rand(1, 3, 8, 8, dtype=torch.bfloat16)
    assert ops.roi_align(features, torch.zeros((0, 5)), 1.0, 7, 7, 2, True).shape == (0, 3, 7, 7)
    assert ops.roi_align(features, torch.tensor([[0, 0, 0, 4, 4.0]]), 1.0, 2, 2, 2, True).dtype == torch.bfloat16


def test_torchvision_uses_them() -> None:
    import torchvision

    boxes = torch.tensor([[0, 0, 10, 10.0], [0, 0, 10, 9.0]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.1, 0.2]), 0.5).tolist() == [1]
