"""The heads of the detector: dense maps, RoI pooling, factored box head, class-agnostic masks. Tensors only.

The RoI head has two logits, lesion ℓ and forged f. Their joint log-probabilities (background, real, added, removed)
are what torchvision calls class logits: softmax gives the joint back, and cross-entropy is the sum of the two binary
losses. Labels: 0 background, 1 real (lesion, not forged), 2 added (lesion, forged), 3 removed (forged, no lesion).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from dicomguard.analyze.net import ops

ops.prepare()

from torchvision.ops import MultiScaleRoIAlign  # noqa: E402

REAL, ADDED, REMOVED = 1, 2, 3
# A box of this side (pixels) is pooled from the /8 map; smaller ones from /4, larger ones from /16.
_CANONICAL_SIDE = 48


class DenseHead(nn.Module):
    """/2 features → three logits at /2: forgery, lesion, and addition: put in rather than wiped away, where forged."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(features, features, 3, padding=1)
        self.out = nn.Conv2d(features, 3, 1)
        # Forgeries and lesions are rare: begin near their share so that the first steps do not flood the maps.
        self.out.bias = nn.Parameter(torch.tensor([-2.0, -2.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(functional.relu(self.mix(x)))
        return logits


class TwoViewPool(nn.Module):
    """7×7 from the pyramid level that fits the box, beside 7×7 from the /2 map, where forensic traces are finest."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = MultiScaleRoIAlign(
            featmap_names=["4", "8", "16"],
            output_size=7,
            sampling_ratio=2,
            canonical_scale=_CANONICAL_SIDE,
            canonical_level=3,
        )
        self.fine = MultiScaleRoIAlign(featmap_names=["2"], output_size=7, sampling_ratio=2)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        return torch.cat((self.pyramid(x, boxes, image_shapes), self.fine(x, boxes, image_shapes)), dim=1)


class BoxHead(nn.Module):
    """N×2F×7×7 pooled features → N×`width`."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * features, 64, 3, padding=1)
        self.fc = nn.Linear(64 * 9, width)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(functional.relu(self.conv(x)), 3)
        return functional.relu(self.fc(pooled.flatten(start_dim=1)))


class FactoredPredictor(nn.Module):
    """N×width → joint class log-probabilities N×4 and class-agnostic box deltas, repeated for the labels, N×16."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.evidence = nn.Linear(width, 2)
        self.deltas = nn.Linear(width, 4)
        nn.init.constant_(self.evidence.bias, -1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lesion, forged = self.evidence(x).float().unbind(dim=1)
        return joint_log_probabilities(lesion, forged), self.deltas(x).float().repeat(1, 4)


def joint_log_probabilities(lesion: Tensor, forged: Tensor) -> Tensor:
    """Two logits (N) → N×4 log-probabilities of background, real, added, removed."""
    yes_lesion, no_lesion = functional.logsigmoid(lesion), functional.logsigmoid(-lesion)
    yes_forged, no_forged = functional.logsigmoid(forged), functional.logsigmoid(-forged)
    return torch.stack(
        (no_lesion + no_forged, yes_lesion + no_forged, yes_lesion + yes_forged, no_lesion + yes_forged), dim=1
    )


class MaskHead(nn.Sequential):
    """N×F×14×14 → N×F×14×14."""

    def __init__(self, features: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(3):
            layers[f"conv{i}"] = nn.Conv2d(features, features, 3, padding=1)
            layers[f"relu{i}"] = nn.ReLU()
        super().__init__(layers)


class AgnosticMaskPredictor(nn.Module):
    """N×F×14×14 → N×4×28×28: one mask, shown under each label because torchvision picks by label."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(features, features, 2, stride=2)
        self.out = nn.Conv2d(features, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        mask: Tensor = self.out(functional.relu(self.up(x)))
        return mask.expand(-1, 4, -1, -1)
