"""A slice blended with its own altered copy: no attacker does this; it teaches seams and noise contrast as such.

Source: self-blended images (arXiv 2204.08376), here with blobs inside the head.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.blend import FEATHERS, feather
from dicomguard.retrain.tamper.filters import (
    bilateral,
    float32,
    gaussian,
    jpeg,
    median,
    noise_sigma,
    resize,
    smooth_noise,
    unsharp,
)
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Pixels
from dicomguard.retrain.tamper.grain import draw_way, grain
from dicomguard.retrain.tamper.region import Region, on_healthy, over_lesion
from dicomguard.retrain.tamper.resample import draw_method, sample

_ALTERATIONS = (
    "resample",
    "blur",
    "sharpen",
    "noise",
    "denoise",
    "median",
    "shift",
    "gain",
    "jpeg",
    "regrain",
    "gamma",
    "turn",
    "elastic",
)
_WEIGHTS = np.array([0.13, 0.09, 0.08, 0.1, 0.08, 0.05, 0.14, 0.08, 0.05, 0.08, 0.04, 0.04, 0.04])


def _grid(shape: tuple[int, int]) -> tuple[Pixels, Pixels]:
    rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    return rows, cols


def _moved(plane: Pixels, way: str, amount: float, rng: np.random.Generator) -> Pixels:
    shape = (plane.shape[0], plane.shape[1])
    rows, cols = _grid(shape)
    if way == "shift":
        turn = float(rng.uniform(0, 2 * np.pi))
        reach = 0.3 + 3.5 * amount
        if rng.random() < 0.3:
            down, right = round(reach * float(np.sin(turn))), round(reach * float(np.cos(turn)))
            return np.roll(plane, (down or 1, right), (0, 1))
        return sample(
            plane, rows + np.float32(reach * np.sin(turn)), cols + np.float32(reach * np.cos(turn)), draw_method(rng)
        )
    if way == "turn":
        angle = float(rng.uniform(2, 8)) * np.pi / 180 * (1 if rng.random() < 0.5 else -1)
        row, col = rows - shape[0] / 2, cols - shape[1] / 2
        turned_rows = row * np.cos(angle) - col * np.sin(angle) + shape[0] / 2
        turned_cols = row * np.sin(angle) + col * np.cos(angle) + shape[1] / 2
        return sample(plane, turned_rows.astype(np.float32), turned_cols.astype(np.float32), draw_method(rng))
    size = np.float32(0.6 + 1.6 * amount)
    return sample(
        plane,
        rows + size * smooth_noise(shape, 6.0, rng),
        cols + size * smooth_noise(shape, 6.0, rng),
        draw_method(rng),
    )


def _altered(plane: Pixels, way: str, amount: float, region: Region, z: int, rng: np.random.Generator) -> Pixels:
    shape = (plane.shape[0], plane.shape[1])
    core = region.core[z]
    low, high = float(plane.min()), float(plane.max())
    span = max(1.0, high - low)
    sigma = max(0.5, noise_sigma(plane, ~core))
    if way in ("shift", "turn", "elastic"):
        return _moved(plane, way, amount, rng)
    if way == "resample":
        factor = float(rng.choice([0.5, 0.6, 0.7, 0.8, 0.9, 1.2, 1.5, 2.0]))
        other = (max(4, round(shape[0] * factor)), max(4, round(shape[1] * factor)))
        there, back = rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4], 2)
        return resize(resize(plane, other, int(there)), shape, int(back))
    if way == "blur":
        return gaussian(plane, 0.35 + 0.9 * amount)
    if way == "sharpen":
        return unsharp(plane, sigma=float(rng.uniform(0.7, 1.5)), amount=0.25 + 0.9 * amount)
    if way == "noise":
        return plane + np.float32(sigma * (0.4 + 1.2 * amount)) * rng.standard_normal(shape, dtype=np.float32)
    if way == "denoise":
        return bilateral(plane, sigma_value=(1 + 4 * amount) * sigma, sigma_px=1.5)
    if way == "median":
        return median(plane, 3)
    if way == "gain":
        sign = 1 if rng.random() < 0.5 else -1
        return float32(plane * (1 + sign * (0.02 + 0.1 * amount)) + rng.normal(0, 0.02) * span)
    if way == "jpeg":
        return jpeg(plane, int(95 - 35 * amount), low=low, high=high)
    if way == "gamma":
        power = float(rng.uniform(0.8, 1.25))
        return float32(np.clip((plane - low) / span, 0, 1) ** power * span + low)
    smooth = gaussian(plane, 0.6 + 0.6 * amount)
    return smooth + grain(smooth, plane, core, draw_way(rng), float(rng.uniform(0.7, 1.2)), rng)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    del donor
    region = over_lesion(canvas, rng, margin=16) if rng.random() < 0.3 else None
    region = region or on_healthy(canvas, rng, margin=16)
    if region is None:
        return None
    count = 1 if rng.random() < 0.45 else 2
    ways = [str(w) for w in rng.choice(_ALTERATIONS, size=count, replace=False, p=_WEIGHTS / _WEIGHTS.sum())]
    amounts = [float(rng.uniform(0, 1)) for _ in ways]
    seam = str(rng.choice(FEATHERS, p=[0.3, 0.2, 0.2, 0.2, 0.1]))
    width = float(np.exp(rng.uniform(0, np.log(6.0))))
    opacity = np.float32(1.0 if rng.random() < 0.4 else rng.uniform(0.5, 1.0))
    seed = int(rng.integers(2**32))
    base = region.of(canvas.pixels)
    edited, alpha = base.copy(), np.zeros_like(base)
    for z in np.flatnonzero(region.core.any(axis=(1, 2))):
        # Geometry is the same in every slice; noise is not, or the grain would go straight through the volume.
        chance = np.random.default_rng([seed, 0 if ways[0] in ("shift", "turn", "elastic") else int(z)])
        other = base[z]
        for way, amount in zip(ways, amounts, strict=True):
            other = _altered(other, way, amount, region, int(z), chance)
        alpha[z] = opacity * feather(region.core[z], seam, width, chance)
        edited[z] = base[z] + alpha[z] * (other - base[z])
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="blend",
        lesion=region.of_mask(canvas.lesion),
        family="self-blend",
        variant="+".join(ways),
        parameters={"seam": seam, "opacity": round(float(opacity), 3)},
        touch_up=bool(rng.random() < 0.25),
    )
