"""The network's shapes, the factored head's algebra, and that its parts learn."""

import pytest
import torch
from torch.nn import functional

from dicomguard.analyze.channels import NAMES
from dicomguard.analyze.net.heads import joint_log_probabilities
from dicomguard.analyze.net.model import Network


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network()


def test_it_is_small(network: Network) -> None:
    assert sum(p.numel() for p in network.parameters()) < 1_000_000


def test_maps_are_at_half_resolution(network: Network) -> None:
    with torch.inference_mode():
        assert network.look(torch.zeros(1, len(NAMES), 96, 128))[1].shape == (1, 3, 48, 64)


def test_joint_is_the_product_of_two_answers() -> None:
    lesion, forged = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    joint = joint_log_probabilities(lesion, forged)
    assert torch.allclose(joint.softmax(dim=1), joint.exp(), atol=1e-6)
    assert torch.allclose(joint.exp()[:, 1] + joint.exp()[:, 2], lesion.sigmoid())
    assert torch.allclose(joint.exp()[:, 2] + joint.exp()[:, 3], forged.sigmoid())


def test_cross_entropy_of_the_joint_is_the_sum_of_two_binary_losses() -> None:
    lesion, forged = torch.tensor([0.7]), torch.tensor([-1.2])
    added = functional.cross_entropy(joint_log_probabilities(lesion, forged), torch.tensor([2]))
    assert float(added) == pytest.approx(
        float(-functional.logsigmoid(lesion) - functional.logsigmoid(forged)), abs=1e-6
    )


def test_detections_lie_in_the_image_with_probabilities(network: Network) -> None:
    network.eval()
    with torch.inference_mode():
        features = network.features(torch.randn(2, len(NAMES), 96, 96, generator=torch.Generator().manual_seed(1)))
        found = network.detect(features, 2, (96, 96))
    assert len(found) == 2
    for one in found:
        assert ((one.boxes >= 0) & (one.boxes <= 96)).all()
        assert torch.allclose(one.joint.sum(dim=1), torch.ones(len(one.boxes)), atol=1e-4)
        assert one.masks.shape[1:] == (28, 28)


def test_every_part_gets_a_gradient(network: Network) -> None:
    network.train()
    torch.manual_seed(3)
    x = torch.randn(2, len(NAMES), 96, 96)
    mask = torch.zeros(1, 96, 96, dtype=torch.uint8)
    mask[0, 30:60, 40:70] = 1
    box = {"boxes": torch.tensor([[40.0, 30, 70, 60]]), "labels": torch.tensor([2]), "masks": mask}
    features = network.features(x)
    losses = network.losses(features, [box, box], (96, 96))
    (sum(losses.values()) + network.dense(features["2"]).mean()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []
    network.zero_grad()


@pytest.mark.parametrize("count", [1, 2])
def test_slices_without_any_proposal_have_no_box(network: Network, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.rcnn.rpn, "min_size", 1e9)
    network.eval()
    with torch.inference_mode():
        features, _ = network.look(torch.zeros(count, len(NAMES), 96, 128))
        found = network.detect(features, count, (96, 128))
    assert [tuple(one.boxes.shape) for one in found] == [(0, 4)] * count
    assert [len(one.joint) for one in found] == [len(one.masks) for one in found] == [0] * count
