"""Content brought from elsewhere: geometry (turn, scale, random displacement), interpolation, brightness."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from dicomguard.retrain.tamper.filters import depth_inside, float32
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels
from dicomguard.retrain.tamper.region import SMALLEST_AREA_PX
from dicomguard.retrain.tamper.third_hand.smooth import blurred

METHODS = ("bilinear", "bicubic", "lanczos", "quintic", "fourier", "nearest")
_FLAGS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}
_QUANTILES = np.linspace(0.05, 0.95, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """From crop coordinates (of the target) to source coordinates: turn, scale, flip, wobble."""

    # Source position (row, column) of the crop's point `pivot`.
    source: tuple[float, float]
    pivot: tuple[float, float]
    turn: float
    scale: float
    flip: bool
    # Largest displacement of the random field, px.
    wobble: float
    method: str

    def grid(self, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Rows and columns in the source for every pixel of the crop."""
        rows = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(self.pivot[0])
        cols = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(self.pivot[1])
        cosine, sine = np.cos(self.turn) / self.scale, np.sin(self.turn) / self.scale
        down = cosine * rows + sine * cols
        right = (cosine * cols - sine * rows) * (-1 if self.flip else 1)
        if self.wobble > 0:
            bend = [blurred(rng.standard_normal(shape, dtype=np.float32), 9.0) for _ in range(2)]
            down, right = (
                axis + field * np.float32(self.wobble / max(float(np.abs(field).max()), 1e-6))
                for axis, field in zip((down, right), bend, strict=True)
            )
        return float32(down + self.source[0]), float32(right + self.source[1])


def sampled(plane: Pixels, rows: Pixels, cols: Pixels, method: str) -> Pixels:
    """Values at fractional places; `fourier` zooms the spectrum twofold first and then reads bilinearly."""
    top, left = max(0, int(rows.min()) - 8), max(0, int(cols.min()) - 8)
    bottom, right = min(plane.shape[0], int(rows.max()) + 9), min(plane.shape[1], int(cols.max()) + 9)
    if bottom - top < 8 or right - left < 8:
        top, left, bottom, right = 0, 0, *plane.shape
    part = plane[top:bottom, left:right]
    rows, cols = rows - np.float32(top), cols - np.float32(left)
    if method == "quintic":
        return float32(ndimage.map_coordinates(part, [rows, cols], order=5, mode="reflect"))
    if method == "nearest":
        return float32(cv2.remap(part, np.rint(cols), np.rint(rows), cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT))
    if method == "fourier":
        part, rows, cols = zoomed(part), 2 * rows, 2 * cols
        method = "bilinear"
    return float32(cv2.remap(part, cols, rows, _FLAGS[method], borderMode=cv2.BORDER_REFLECT))


def zoomed(plane: Pixels) -> Pixels:
    """Twice the size by zeros around the spectrum; sample 2i of the result is sample i of the plane."""
    height, width = plane.shape
    framed = np.pad(plane, ((0, height % 2 + 4), (0, width % 2 + 4)), mode="reflect")
    tall, wide = framed.shape
    spectrum = np.fft.fftshift(np.fft.fft2(framed))
    padded = np.pad(spectrum, ((tall // 2, tall // 2), (wide // 2, wide // 2)))
    fine = np.fft.ifft2(np.fft.ifftshift(padded)).real * 4
    return float32(fine[: 2 * height - 1, : 2 * width - 1])


def draw_method(rng: np.random.Generator) -> str:
    return str(rng.choice(METHODS[:-1], p=[0.22, 0.22, 0.22, 0.17, 0.17]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """A lesion to carry: slice, middle, the radius of its area, its mask in the whole slice."""

    z: int
    row: float
    col: float
    radius: float
    mask: Mask


def lesion_of(canvas: Canvas, rng: np.random.Generator) -> Find | None:
    """One part of a lesion, as large as is useful; None without one."""
    planes = np.flatnonzero(canvas.lesion.sum(axis=(1, 2)) >= SMALLEST_AREA_PX)
    if planes.size == 0:
        return None
    z = int(planes[rng.integers(planes.size)])
    count, labels, stats, _ = cv2.connectedComponentsWithStats(canvas.lesion[z].astype(np.uint8))
    parts = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= SMALLEST_AREA_PX]
    if not parts:
        return None
    mask = labels == parts[int(rng.integers(len(parts)))]
    rows, cols = np.nonzero(mask)
    return Find(
        z=z,
        row=float(rows.min() + rows.max()) / 2,
        col=float(cols.min() + cols.max()) / 2,
        radius=float(np.sqrt(rows.size / np.pi)),
        mask=mask,
    )


def healthy_of(canvas: Canvas, z: int, radius: float, aim: float, rng: np.random.Generator) -> tuple[int, int] | None:
    """The middle of a disc of lesion-free brain in slice z, of some places the one nearest to brightness `aim`."""
    depth = depth_inside(canvas.head[z] & ~canvas.lesion[z])
    rows, cols = np.nonzero(depth > radius)
    if rows.size == 0:
        return None
    side = 2 * max(1, int(0.8 * radius)) + 1
    mean = cv2.blur(canvas.pixels[z], (side, side))
    spread = np.sqrt(np.maximum(cv2.blur(canvas.pixels[z] ** 2, (side, side)) - mean**2, 0))
    # Skull, fluid and vessels make a bad patch: a forger looks about before he copies.
    unlike = np.abs(mean - aim) + spread
    best = min(rng.integers(rows.size, size=int(rng.integers(2, 12))), key=lambda i: float(unlike[rows[i], cols[i]]))
    return int(rows[best]), int(cols[best])


def matched(content: Pixels, seen: Mask, pixels: Pixels, tissue: Mask, how: str) -> Pixels:
    """Brightness of the content brought to the tissue's: `offset`, `linear`, `histogram` (quantiles), or `none`.

    `seen` says which pixels of the content are compared.
    """
    if how == "none" or int(seen.sum()) < 20 or int(tissue.sum()) < 20:
        return content
    if how == "histogram":
        here = np.quantile(content[seen], _QUANTILES) + np.arange(_QUANTILES.size) * 1e-3
        there = np.quantile(pixels[tissue], _QUANTILES)
        slope = float(np.clip((there[-1] - there[0]) / max(float(here[-1] - here[0]), 1e-3), 0.4, 2.5))
        inner = np.interp(content, here, there)
        beyond = np.where(content < here[0], content - here[0], np.where(content > here[-1], content - here[-1], 0))
        return float32(inner + slope * beyond)
    offset = float(np.median(pixels[tissue]) - np.median(content[seen]))
    if how == "offset":
        return float32(content + offset)
    spread = float(pixels[tissue].std()) / max(float(content[seen].std()), 1e-3)
    middle = float(np.median(content[seen]))
    return float32((content - middle) * np.clip(spread, 0.5, 2.0) + middle + offset)
