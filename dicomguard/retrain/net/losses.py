"""Losses of the dense maps. Tensors only; the RPN and RoI losses are torchvision's.

Logits are N×H/2×W/2; truths N×H×W in 0…1, averaged to the logits' grid here; `weight` is 0 where nothing is known.
"""

import torch
from torch import Tensor
from torch.nn import functional

from dicomguard.analyze.scores import FEWEST_PEAK, PEAK_SHARE

# Beside the forgery and the lesion, which carry the judgement.
_ADDITION_WEIGHT = 0.5
# A forged pixel weighs this much more than an authentic one: forgeries cover a tenth of a crop.
_FORGED_WEIGHT = 1.5
_LESION_WEIGHT = 1.5
# A slice is judged by its strongest places: a loss on all pixels hardly sees the one place that raises a false alarm.
_PEAK_WEIGHT = 0.25


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


def _within(logits: Tensor, added: Tensor, weight: Tensor) -> Tensor:
    """Mean cross-entropy inside the forged pixels of each image whose kind is known: a region has one truth."""
    weight = weight * (added >= 0).to(weight.dtype)[:, None, None]
    truth = added.clamp(min=0)[:, None, None].expand_as(logits)
    cross = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    area = weight.sum(dim=(1, 2))
    mean = (cross * weight).sum(dim=(1, 2)) / area.clamp(min=1.0)
    return mean.sum() / (area > 0).to(mean.dtype).sum().clamp(min=1.0)


def _peaks(logits: Tensor, marked: Tensor, weight: Tensor) -> Tensor:
    """What `scores.terms` reads of each image: low outside its forgery, high inside; logits smoothed as there.

    Softplus of the mean of the strongest logits, averaged over the images' parts; 0 where nothing is known.
    """
    # Smoothing reaches into air and blend bands, where nothing is taught.
    felt = torch.where(weight > 0, logits, logits.detach())
    smooth = functional.avg_pool2d(felt[:, None], 5, stride=1, padding=2, count_include_pad=False)[:, 0]
    terms = []
    for image, truth, known in zip(smooth, marked > 0, weight > 0, strict=True):
        count = max(FEWEST_PEAK, round(PEAK_SHARE * int(known.sum())))
        for part, sign in ((image[known & ~truth], 1.0), (image[known & truth], -1.0)):
            if len(part):
                terms.append(functional.softplus(sign * part.topk(min(count, len(part))).values.mean()))
    return torch.stack(terms).mean() if terms else logits.sum() * 0.0


def _to_grid(truth: Tensor) -> Tensor:
    return functional.avg_pool2d(truth[:, None], 2)[:, 0]


def dense_losses(
    maps: Tensor, *, forged: Tensor, lesion: Tensor, valid: Tensor, lesion_known: Tensor, added: Tensor
) -> dict[str, Tensor]:
    """Losses of N×3×H/2×W/2 maps.

    `valid` excludes blend bands and air, `lesion_known` (N) unmarked sequences; `added` (N) is 1 where the forgery was
    put in, 0 where it wiped something away, below 0 where it is neither.
    """
    weight = (_to_grid(valid) > 0.75).to(maps.dtype)
    known = weight * lesion_known[:, None, None]
    marked = (_to_grid(forged) > 0.5).to(maps.dtype)
    return {
        "forgery_peak": _PEAK_WEIGHT * _peaks(maps[:, 0], marked, weight),
        "forgery_map": _binary_and_dice(maps[:, 0], marked, weight, _FORGED_WEIGHT),
        "lesion_map": _binary_and_dice(maps[:, 1], (_to_grid(lesion) > 0.5).to(maps.dtype), known, _LESION_WEIGHT),
        "addition_map": _ADDITION_WEIGHT * _within(maps[:, 2], added, marked * weight),
    }
