"""How new content meets old: soft ramps, dithered edges, bands of a pyramid, a cheapest closed path."""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32, signed_distance
from dicomguard.retrain.tamper.forged import Mask, Pixels
from dicomguard.retrain.tamper.third_hand.smooth import blurred

RAMPS = ("hard", "smoothstep", "erf", "dithered")
_ANGLES = 96
_RADII = 14


def ramp(level: Pixels, core: Mask, how: str, width: float, rng: np.random.Generator) -> Pixels:
    """Alpha from a level plane: 1 deep inside, 0 outside the footprint; `width` px from one to the other.

    The ramp lies inside the footprint, so that no pixel outside is touched.
    """
    if how == "hard":
        return core.astype(np.float32)
    share = np.clip((level + 0.5) / np.float32(max(width, 1.0)), 0, 1)
    if how == "smoothstep":
        alpha = share * share * (3 - 2 * share)
    elif how == "erf":
        alpha = 1 - np.exp(-3.0 * share**2)
    else:
        # Each pixel is old or new, by chance that grows inwards; a slight blur hides the salt.
        alpha = blurred((rng.random(level.shape, dtype=np.float32) < share).astype(np.float32), 0.5)
    return float32(np.where(core, alpha, 0))


def draw_ramp(level: Pixels, core: Mask, rng: np.random.Generator, *, hard: bool = True) -> tuple[Pixels, str]:
    """A ramp drawn at random; `hard` allows a step, for content that already fits."""
    names = RAMPS if hard else RAMPS[1:]
    how = names[int(rng.integers(len(names)))]
    return ramp(level, core, how, float(rng.uniform(1.5, 6.0)), rng), how


def mixed(old: Pixels, new: Pixels, alpha: Pixels) -> Pixels:
    return float32(old + alpha * (new - old))


def multiband(old: Pixels, new: Pixels, alpha: Pixels, *, bands: int = 4) -> Pixels:
    """Each band mixed under a mask as soft as the band is coarse, without decimation (Burt & Adelson 1983)."""
    made, rest_old, rest_new = np.zeros_like(old), old, new
    for band in range(bands):
        sigma = float(2**band)
        if band == bands - 1:
            part_old, part_new = rest_old, rest_new
        else:
            low_old, low_new = blurred(rest_old, sigma), blurred(rest_new, sigma)
            part_old, part_new = rest_old - low_old, rest_new - low_new
            rest_old, rest_new = low_old, low_new
        # Softened inwards only: outside the footprint nothing is to move.
        soft = np.where(alpha > 0, blurred(alpha, 0.7 * sigma), 0)
        made += part_old + soft * (part_new - part_old)
    return float32(np.where(alpha > 0, made, old))


def cheapest_path(old: Pixels, new: Pixels, level: Pixels, core: Mask) -> Mask:
    """The footprint cut back to the closed path along which old and new differ least.

    Dynamic programming over a polar map around the deepest point: minimum error boundary cut (Efros & Freeman 2001).
    """
    row, col = np.unravel_index(int(np.argmax(level)), level.shape)
    angles = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    # From each ray's outline inwards to half of it.
    reach = np.arange(1, int(max(level.shape)) + 1, dtype=np.float32)
    ray_rows, ray_cols = row + reach[None, :] * np.sin(angles)[:, None], col + reach[None, :] * np.cos(angles)[:, None]
    inside = cv2.remap(core.astype(np.float32), float32(ray_cols), float32(ray_rows), cv2.INTER_NEAREST)
    outline = np.maximum(2, inside.cumprod(axis=1).sum(axis=1))
    shares = np.linspace(0.55, 1.0, _RADII)
    radii = outline[:, None] * shares[None, :]
    error = blurred((new - old) ** 2, 0.8)
    rows, cols = row + radii * np.sin(angles)[:, None], col + radii * np.cos(angles)[:, None]
    cost = cv2.remap(error, float32(cols), float32(rows), cv2.INTER_LINEAR).astype(np.float64)
    total, back = cost[0].copy(), np.zeros((_ANGLES, _RADII), np.intp)
    ring = np.arange(_RADII)
    steps = np.full((3, _RADII), np.inf)
    for ray in range(1, _ANGLES):
        steps[0, 1:], steps[1], steps[2, :-1] = total[:-1], total, total[1:]
        best = steps.argmin(axis=0)
        back[ray] = ring + best - 1
        total = steps[best, ring] + cost[ray]
    path = np.empty(_ANGLES, np.intp)
    path[-1] = int(total.argmin())
    for ray in range(_ANGLES - 1, 0, -1):
        path[ray - 1] = back[ray, path[ray]]
    chosen = radii[np.arange(_ANGLES), path]
    points = np.stack([col + chosen * np.cos(angles), row + chosen * np.sin(angles)], axis=1)
    filled = np.zeros(core.shape, np.uint8)
    cv2.fillPoly(filled, [np.rint(points).astype(np.int32)], 1)
    cut = (filled > 0) & core
    return cut if int(cut.sum()) >= 0.3 * int(core.sum()) else core


def of_cut(cut: Mask, width: float) -> Pixels:
    """Alpha of a footprint that was cut back: a short ramp inwards."""
    return float32(np.where(cut, np.clip((signed_distance(cut) + 0.5) / max(width, 1.0), 0, 1), 0))
