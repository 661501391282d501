"""The small diffusion network of family 11, run in NumPy: `evaluate` makes forgeries without torch.

A U-Net over 64×64 patches, folded 2×2 into channels (32² · 16² · 8²), under 300,000 parameters. Trained by
`sealed.diffusion`; the file is safetensors in half precision.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard.errors import Broken
from dicomguard.retrain.sealed.shapes import Mask, Plane

Tensor: TypeAlias = NDArray[np.float32]

# Side of the patches; widths at their three resolutions.
MATRIX = 64
WIDTHS = (40, 44, 48)
GROUPS = 4
LEVEL_WIDTH = 32
SHIPPED = Path(__file__).parent / "denoiser.safetensors"
# `torch.nn.GroupNorm`'s.
_EPSILON = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Stored values into the network's: 0 becomes -1, the head's 99th percentile +1."""

    white: float

    @classmethod
    def of(cls, plane: Plane, head: Mask) -> Self:
        """The unit of a slice, by the pixels of its head (by all where there is none)."""
        return cls(white=max(1.0, float(np.percentile(plane[head] if head.any() else plane, 99))))

    def into(self, plane: Plane) -> Plane:
        """Stored values to units, at most 2."""
        return np.asarray(np.minimum(plane * np.float32(2 / self.white) - np.float32(1), np.float32(2)), np.float32)

    def back(self, plane: Plane) -> Plane:
        """Units to stored values."""
        return (plane + np.float32(1)) * np.float32(self.white / 2)


def embed(angle: NDArray[np.float32]) -> Tensor:
    """N angles of the schedule (0 clean … π/2 noise) as N×32 sines and cosines."""
    frequencies = np.exp(np.linspace(0, np.log(60), LEVEL_WIDTH // 2)).astype(np.float32)
    waves = angle[:, None] * frequencies[None]
    return np.concatenate((np.sin(waves), np.cos(waves)), axis=1).astype(np.float32)


@cache
def shipped() -> "Network":
    """The network of this package."""
    return Network.read(SHIPPED)


class Network:
    """Weights by name; `__call__` is `sealed.diffusion.Denoiser`'s forward."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._weights = weights

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a safetensors file of half or single precision; `Broken` when it is none."""
        data = path.read_bytes() if path.is_file() else b""
        try:
            size = int.from_bytes(data[:8], "little")
            head = json.loads(data[8 : 8 + size])
            weights = {
                name: np.frombuffer(
                    data[8 + size + entry["data_offsets"][0] : 8 + size + entry["data_offsets"][1]],
                    dtype={"F16": "<f2", "F32": "<f4"}[entry["dtype"]],
                )
                .reshape(entry["shape"])
                .astype(np.float32)
                for name, entry in head.items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError) as error:
            raise Broken(
                f"{path} holds no weights of the diffusion network. Restore it from the repository, or train it: "
                "python -m dicomguard.retrain.sealed.diffusion."
            ) from error
        return cls(weights)

    def __call__(self, seen: Tensor, angle: float) -> Tensor:
        """N×4×64×64 (noisy, known, hole, lesion) at one angle of the schedule to v, N×64×64."""
        level = _silu(self._linear("level1", embed(np.array([angle], np.float32))))
        n, _, height, width = seen.shape
        folded = seen.reshape(n, 4, height // 2, 2, width // 2, 2).transpose(0, 1, 3, 5, 2, 4)
        x0 = self._block("block0", self._conv("stem", folded.reshape(n, 16, height // 2, width // 2)), level)
        x1 = self._block("block1", self._conv("down1", x0, stride=2), level)
        x2 = self._block("block2", self._conv("down2", x1, stride=2), level)
        x1 = self._block("block3", self._conv("up1", np.concatenate((_doubled(x2), x1), axis=1)), level)
        x0 = self._block("block4", self._conv("up0", np.concatenate((_doubled(x1), x0), axis=1)), level)
        out = self._conv("out", _silu(self._norm("norm", x0)))
        return out.reshape(n, 2, 2, height // 2, width // 2).transpose(0, 3, 1, 4, 2).reshape(n, height, width)

    def _block(self, name: str, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = np.split(self._linear(f"{name}.level", level)[0, :, None, None], 2)
        hidden = self._conv(f"{name}.conv1", _silu(self._norm(f"{name}.norm1", x)))
        hidden = self._norm(f"{name}.norm2", hidden) * (1 + scale) + shift
        return x + self._conv(f"{name}.conv2", _silu(hidden))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        grouped = x.reshape(n, GROUPS, -1)
        centred = grouped - grouped.mean(axis=2, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=2, keepdims=True) + np.float32(_EPSILON))
        normal = (centred / spread).reshape(n, channels, height, width)
        weight, bias = (self._weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return np.asarray(normal * weight + bias, np.float32)

    def _conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """3×3, padded by one: nine shifted copies side by side, one matrix product."""
        weight = self._weights[f"{name}.weight"]
        n, channels, height, width = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        shape = (height // stride, width // stride)
        columns = np.empty((n, channels, 9, *shape), np.float32)
        for place in range(9):
            down, right = divmod(place, 3)
            columns[:, :, place] = padded[:, :, down : down + height : stride, right : right + width : stride]
        product = weight.reshape(len(weight), -1) @ columns.reshape(n, channels * 9, -1)
        return product.reshape(n, len(weight), *shape) + self._weights[f"{name}.bias"][:, None, None]


def _silu(x: Tensor) -> Tensor:
    return np.asarray(x / (1 + np.exp(-x)), np.float32)


def _doubled(x: Tensor) -> Tensor:
    return x.repeat(2, axis=2).repeat(2, axis=3)
