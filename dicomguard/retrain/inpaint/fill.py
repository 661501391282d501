"""Running a trained inpainting network on the hole of a forger: arrays in, arrays out.

The weights are files of the package; where one is missing its network is not offered.
"""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from dicomguard.retrain.inpaint.nets import NETS, STRIDE, complete

FOLDER = Path(__file__).parent / "weights_data"
# Holes are brought down to this side before they are filled: the networks were trained with holes up to this.
LARGEST_HOLE_PX = 48


def levels(pixels: NDArray[np.float32], head: NDArray[np.bool_]) -> tuple[float, float]:
    """Grey level that becomes -1 and the half-width that becomes 1: percentiles 1 and 99 of the head."""
    inside = pixels[head]
    if inside.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(inside[:: max(1, inside.size // 5000)], [1, 99])
    return float(low), max(1.0, float(high - low) / 2)


def offered() -> tuple[str, ...]:
    """Names of the networks whose weights are there."""
    return tuple(name for name in NETS if (FOLDER / f"{name}.safetensors").is_file())


@cache
def _load(name: str, folder: Path) -> nn.Module:
    net = NETS[name]()
    net.load_state_dict({key: value.float() for key, value in load_file(folder / f"{name}.safetensors").items()})
    return net.eval().requires_grad_(False)


def fill(
    name: str,
    planes: NDArray[np.float32],
    hole: NDArray[np.bool_],
    label: NDArray[np.bool_],
    scale: tuple[float, float],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Z×h×w stored values with the hole filled by one network.

    `label` is true where a lesion is wanted; `scale` comes from `levels`. Planes without hole come back as they are.
    """
    low, half = scale
    rows, cols = np.flatnonzero(hole.any(axis=(0, 2))), np.flatnonzero(hole.any(axis=(0, 1)))
    if not rows.size:
        return planes
    height, width = planes.shape[1:]
    shrink = min(1.0, LARGEST_HOLE_PX / (1 + max(rows[-1] - rows[0], cols[-1] - cols[0])))
    shape = (max(STRIDE, round(height * shrink)), max(STRIDE, round(width * shrink)))
    pad = ((0, 0), (0, -shape[0] % STRIDE), (0, -shape[1] % STRIDE))
    filled = planes.copy()
    used = np.flatnonzero(hole.any(axis=(1, 2)))

    def small(stack: NDArray[np.float32]) -> NDArray[np.float32]:
        if shape != (height, width):
            stack = np.stack([cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_AREA) for plane in stack])
        return np.pad(stack, pad, mode="edge")

    image = small((planes[used] - np.float32(low)) / np.float32(half) - 1)
    inside = (small(hole[used].astype(np.float32)) > 0).astype(np.float32)
    wanted = (small(label[used].astype(np.float32)) >= 0.5).astype(np.float32)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    with torch.inference_mode():
        tensors = [torch.from_numpy(stack[:, None]) for stack in (image, inside, wanted, noise)]
        made = complete(_load(name, FOLDER), *tensors)[:, 0, : shape[0], : shape[1]].numpy()
    for index, plane in zip(used, made, strict=True):
        large = plane
        if shape != (height, width):
            large = cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC)
        filled[index] = np.where(hole[index], (large + 1) * np.float32(half) + np.float32(low), planes[index])
    return filled
