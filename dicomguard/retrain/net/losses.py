"""Losses of the dense maps. Tensors only; the RPN and RoI losses are torchvision's.

Logits are N×H/2×W/2; truths N×H×W in 0…1, averaged to the logits' grid here; `weight` is 0 where nothing is known.
"""

from torch import Tensor
from torch.nn import functional

# A forged pixel weighs this much more than an authentic one: forgeries cover a tenth of a crop.
_FORGED_WEIGHT = 1.5
_LESION_WEIGHT = 1.5


def _binary_and_dice(logits: Tensor, truth: Tensor, weight: Tensor, positive: float) -> Tensor:
    factor = weight * (1 + (positive - 1) * truth)
    cross = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    binary = (cross * factor).sum() / weight.sum().clamp(min=1.0)
    share = logits.sigmoid() * weight
    marked = (truth * weight).sum(dim=(1, 2))
    overlap = (share * truth).sum(dim=(1, 2))
    dice = 1 - (2 * overlap + 1) / (share.sum(dim=(1, 2)) + marked + 1)
    # Dice has no meaning where nothing is marked: there the cross-entropy alone keeps the map quiet.
    has_truth = (marked > 4).to(dice.dtype)
    return binary + 0.5 * (dice * has_truth).sum() / has_truth.sum().clamp(min=1.0)


def _to_grid(truth: Tensor) -> Tensor:
    return functional.avg_pool2d(truth[:, None], 2)[:, 0]


def dense_losses(
    maps: Tensor, *, forged: Tensor, lesion: Tensor, valid: Tensor, lesion_known: Tensor
) -> dict[str, Tensor]:
    """Losses of N×2×H/2×W/2 maps; `valid` excludes blend bands and air, `lesion_known` (N) unmarked sequences."""
    weight = (_to_grid(valid) > 0.75).to(maps.dtype)
    known = weight * lesion_known[:, None, None]
    return {
        "forgery_map": _binary_and_dice(maps[:, 0], (_to_grid(forged) > 0.5).to(maps.dtype), weight, _FORGED_WEIGHT),
        "lesion_map": _binary_and_dice(maps[:, 1], (_to_grid(lesion) > 0.5).to(maps.dtype), known, _LESION_WEIGHT),
    }
