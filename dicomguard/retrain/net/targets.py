"""Truth masks of a crop → the instances that the RPN and RoI heads learn. Arrays in, tensors out."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dicomguard.analyze.net.heads import ADDED, REAL, REMOVED

_SMALLEST_AREA = 24
_SMALLEST_SIDE = 4
# A lesion is "added" when this share of it was forged; a forged region is "removed" when at most this share is lesion.
_FORGED_LESION_SHARE = 0.4
_LESION_LEFT_SHARE = 0.3


def _components(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found = []
    for i in range(1, count):
        wide, high, area = stats[i, cv2.CC_STAT_WIDTH], stats[i, cv2.CC_STAT_HEIGHT], stats[i, cv2.CC_STAT_AREA]
        if area >= _SMALLEST_AREA and min(wide, high) >= _SMALLEST_SIDE:
            found.append(labels == i)
    return found


def instances(forged: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> list[tuple[NDArray[np.bool_], int]]:
    """H×W masks → (mask, label) of real, added and removed regions."""
    found: list[tuple[NDArray[np.bool_], int]] = []
    for part in _components(lesion):
        share = float(forged[part].mean())
        found.append((part, ADDED if share >= _FORGED_LESION_SHARE else REAL))
    for part in _components(forged):
        if float(lesion[part].mean()) <= _LESION_LEFT_SHARE:
            found.append((part, REMOVED))
    return found


def target(forged: NDArray[np.bool_], lesion: NDArray[np.bool_], device: torch.device) -> dict[str, Tensor]:
    """One image's target as torchvision's heads read it: boxes N×4 xyxy, labels N, masks N×H×W uint8."""
    found = instances(forged, lesion)
    height, width = forged.shape
    boxes = np.zeros((len(found), 4), dtype=np.float32)
    for i, (mask, _) in enumerate(found):
        x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
        boxes[i] = (x, y, x + w, y + h)
    masks = np.stack([mask for mask, _ in found]) if found else np.zeros((0, height, width), dtype=bool)
    return {
        "boxes": torch.as_tensor(boxes, device=device),
        "labels": torch.as_tensor([label for _, label in found], dtype=torch.int64, device=device),
        "masks": torch.as_tensor(masks.astype(np.uint8), device=device),
    }
