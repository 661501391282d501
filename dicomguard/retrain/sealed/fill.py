"""Family 11: a diffusion model paints a lesion into a patch, or tissue over one.

What a real attacker would use: a public text-to-image inpainting model, fine-tuned on scans for an afternoon. He cuts a
square around the place, lets the model fill the hole (RePaint, Lugmayr et al. 2022, arXiv 2201.09865: the known
surround is put back at every step), at full strength or starting from the noised original (SDEdit, arXiv 2108.01073),
scales the square back, blends it in, and tops up grain where the model's pixels are too smooth. The sampler is DDIM
(Song et al. 2021, arXiv 2010.02502).
"""

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.sealed import denoiser, places
from dicomguard.retrain.sealed.denoiser import MATRIX, Network, Tensor, Unit
from dicomguard.retrain.sealed.shapes import Mask, Patch, Plane, patch_around
from dicomguard.retrain.tamper.forged import Canvas, Forged

_STEPS = (15, 25)
# Steps that are taken twice (noised again and denoised), so that the fill and its surround agree.
_REPEATED_SHARE = 0.35
# Side of the patch over the largest extent of the hole.
_CONTEXT = 1.5
# Of the noise that the slices of a run have in common.
_IN_COMMON = 0.8


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Remove the marked lesion or add one; the donor is not needed."""
    place = places.choose(canvas, rng)
    if place is None:
        return None
    touched = np.flatnonzero(place.region.any(axis=(1, 2)))
    rows, columns = np.nonzero(place.region.any(axis=0))
    extent = int(max(np.ptp(rows), np.ptp(columns))) + 1
    patch = patch_around(place.centre, max(MATRIX, round(_CONTEXT * extent)))
    strength = float(rng.uniform(0.3, 1.0)) if place.kind == "removed" else float(rng.uniform(0.6, 1.0))
    steps = int(rng.integers(_STEPS[0], _STEPS[1] + 1))
    filled = _fill(canvas, place, touched, patch, strength=strength, steps=steps, rng=rng)
    grain = str(rng.choice(("none", "ring", "ring", "half")))
    feather = float(rng.uniform(0.6, 2.0)) * max(1.0, patch.side / MATRIX)
    alpha = places.soft(place.region, feather)
    forged = canvas.pixels.copy()
    for z, plane in zip(touched, filled, strict=True):
        if grain != "none":
            plane = _grainy(plane, canvas.pixels[z], place.region[z], 0.5 if grain == "half" else 1.0, rng)
        forged[z] = canvas.pixels[z] + alpha[z] * (plane - canvas.pixels[z])
    return places.outcome(
        canvas,
        forged=forged,
        twin=canvas.pixels,
        alpha=alpha,
        place=place,
        family="diffusion",
        variant=f"{'scaled' if patch.side > MATRIX else 'native'}, grain {grain}",
        parameters={"strength": round(strength, 3), "steps": steps, "side": patch.side, "feather": round(feather, 2)},
    )


def _fill(
    canvas: Canvas,
    place: places.Place,
    touched: NDArray[np.intp],
    patch: Patch,
    *,
    strength: float,
    steps: int,
    rng: np.random.Generator,
) -> list[Plane]:
    """The touched slices with the patch filled by the model, at the slice's pixels, not yet blended."""
    units = [Unit.of(canvas.pixels[z], canvas.head[z]) for z in touched]
    known = np.stack([patch.cut(unit.into(canvas.pixels[z]), MATRIX) for unit, z in zip(units, touched, strict=True)])
    hole = np.stack([_grown(patch.cut(place.region[z].astype(np.float32), MATRIX) > 0.1) for z in touched])
    outline = place.region if place.kind == "added" else canvas.lesion & ~place.region
    lesion = np.stack([patch.cut(outline[z].astype(np.float32), MATRIX) >= 0.5 for z in touched])
    seen = sample(denoiser.shipped(), known, hole.astype(np.float32), lesion.astype(np.float32), strength, steps, rng)
    filled = []
    for unit, z, plane in zip(units, touched, seen, strict=True):
        filled.append(patch.put(canvas.pixels[z], unit.back(plane)))
    return filled


def sample(
    network: Network,
    known: Tensor,
    hole: Tensor,
    lesion: Tensor,
    strength: float,
    steps: int,
    rng: np.random.Generator,
) -> Tensor:
    """N×64×64 in the network's units: the holes filled, the rest as it was.

    `strength` 1 begins with pure noise, less with the original under that share of the schedule.
    """
    angles = np.linspace(strength, 0, steps + 1) * np.pi / 2 * 0.995
    noise = _noise(known.shape, rng)
    pixels = np.cos(angles[0]) * known + np.sin(angles[0]) * noise
    repeated = frozenset(rng.choice(steps, round(_REPEATED_SHARE * steps), replace=False).tolist())
    for step, (angle, target) in enumerate(itertools.pairwise(angles)):
        for again in range(2 if step in repeated else 1):
            if again:
                # Back up by one step: as much new noise as leads from `target` to `angle`.
                ratio = np.cos(angle) / np.cos(target)
                spread = np.sqrt(max(0.0, 1 - np.cos(angle) ** 2 - ratio**2 * (1 - np.cos(target) ** 2)))
                pixels = ratio * pixels + spread * _noise(known.shape, rng)
            surround = np.cos(angle) * known + np.sin(angle) * noise
            pixels = np.where(hole > 0, pixels, surround).astype(np.float32)
            v = network(np.stack((pixels, known * (1 - hole), hole, lesion), axis=1).astype(np.float32), float(angle))
            clean = np.clip(np.cos(angle) * pixels - np.sin(angle) * v, -1.1, 2.1)
            guessed = np.sin(angle) * pixels + np.cos(angle) * v
            pixels = np.cos(target) * clean + np.sin(target) * guessed
    return np.where(hole > 0, pixels, known).astype(np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    common = rng.standard_normal(shape[1:], dtype=np.float32)
    own = rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(np.sqrt(_IN_COMMON) * common + np.sqrt(1 - _IN_COMMON) * own, np.float32)


def _grown(hole: Mask) -> Mask:
    """The blend's feather reaches beyond the region: the model fills there too."""
    return np.asarray(cv2.dilate(hole.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)


def _grainy(plane: Plane, original: Plane, region: Mask, share: float, rng: np.random.Generator) -> Plane:
    """The fill with as much grain as the ring around it has; its own counts."""
    size = 2 * max(3, round(0.3 * float(np.sqrt(region.sum() / np.pi)))) + 1
    ring = (cv2.dilate(region.astype(np.uint8), np.ones((size, size), np.uint8)) > 0) & ~region
    missing = _grain(original, ring) ** 2 - _grain(plane, region) ** 2
    if missing <= 0:
        return plane
    grain = rng.standard_normal(plane.shape, dtype=np.float32) * np.float32(share * np.sqrt(missing))
    return np.maximum(plane + grain, 0)


def _grain(plane: Plane, where: Mask) -> float:
    """Noise level by the median absolute second difference along rows and columns (sum of squared weights 36)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    residual = cv2.filter2D(plane, cv2.CV_32F, kernel)[where]
    return float(1.4826 * np.median(np.abs(residual)) / 6) if residual.size else 0.0
