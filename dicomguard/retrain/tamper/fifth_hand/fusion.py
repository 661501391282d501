"""Multiscale fusion of a foreign patch.

An attacker blends level by level, coarse light with a wide mask and fine texture with a narrow one, as panoramas do.
"""

import numpy as np
from scipy import ndimage

from dicomguard.retrain.tamper.fifth_hand.edge import Drawn, close_edit, kept_inside, lesion_after, tidy
from dicomguard.retrain.tamper.fifth_hand.grain import measure, topped
from dicomguard.retrain.tamper.fifth_hand.places import (
    Site,
    crop_around,
    drawn_kind,
    healthy,
    healthy_offset,
    implant,
    lesion_site,
    mirrored,
    shifted,
    unit,
)
from dicomguard.retrain.tamper.filters import dilate, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Pixels


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Fuse a lesion in or healthy tissue over one; None without donor tissue that fits."""
    kind = drawn_kind(canvas, rng)
    placed = _healthy_patch(canvas, rng) if kind == "removed" else _lesion_patch(canvas, donor, rng)
    if placed is None:
        return None
    site, patch, origin = placed
    transform = str(rng.choice(("haar", "haar turned", "a trous")))
    levels = int(rng.integers(3, 5 if unit(canvas) < 0.7 else 6))
    narrow, growth = float(rng.uniform(0.6, 1.4) * unit(canvas)), float(rng.uniform(1.3, 1.7))
    grow = round((rng.uniform(2, 4) if kind == "removed" else rng.uniform(0, 1.5)) * unit(canvas))
    share = float(rng.uniform(0.7, 1.0))
    edited, alpha = canvas.pixels.copy(), np.zeros_like(canvas.pixels)
    for z in site.run:
        masks = []
        for level in range(levels + 1):
            sigma = narrow * growth**level
            # A wide mask must begin outside the lesion, or its coarse light would shine on.
            area = dilate(site.region[z], grow + (round(0.7 * sigma) if kind == "removed" else 0))
            masks.append(site.weights[z] * gaussian(float32(area), sigma))
        crop = crop_around(np.asarray(masks[-1] > 0.01 * masks[-1].max()), 2**levels)
        parts = [mask[crop] for mask in masks]
        base = canvas.pixels[z][crop]
        if transform == "a trous":
            fused = _fuse_a_trous(base, patch[z][crop], parts)
        elif transform == "haar":
            fused = _fuse_haar(base, patch[z][crop], parts, 2)
        else:
            fused = _fuse_haar(base, patch[z][crop], parts, 6)
        alpha[z] = np.mean(masks, axis=0)
        # The noise lost where two planes were averaged comes back.
        again = topped(fused, measure(canvas.pixels[z], canvas.head[z]), rng, share)
        edited[z][crop] = fused + parts[1] * (again - fused)
    alpha = kept_inside(canvas, alpha)
    # The fused planes run out into the untouched ones where the weight is all but gone.
    edited = canvas.pixels + np.clip(alpha / 0.15, 0, 1) * (edited - canvas.pixels)
    edited, passed = tidy(edited, alpha, rng)
    drawn: Drawn = {"levels": levels, "narrow": narrow, "growth": growth, "grow": grow, "noise": share, "pass": passed}
    return close_edit(
        canvas,
        edited,
        alpha,
        kind=kind,
        lesion=lesion_after(canvas, site, alpha, kind),
        family="fusion",
        variant=f"{transform}, {origin}",
        parameters=drawn,
    )


def _lesion_patch(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> tuple[Site, Pixels, str] | None:
    example = donor if donor is not None and donor.lesion.any() else canvas
    placed = implant(canvas, example, rng)
    return (*placed, "donor lesion" if example is donor else "own lesion") if placed else None


def _healthy_patch(canvas: Canvas, rng: np.random.Generator) -> tuple[Site, Pixels, str] | None:
    """The lesion's site, healthy Z×H×W pixels for it at the level of its rim, and where they are from."""
    site = lesion_site(canvas, rng)
    if site is None:
        return None
    z, fit = site.middle, healthy(canvas)
    flipped, seen = mirrored(canvas, z)
    offset = healthy_offset(canvas, fit, site.region[z], z, rng)
    fits_mirror = float(seen[z][site.region[z]].mean()) > 0.7
    if fits_mirror and (offset is None or rng.random() < 0.6):
        patch, origin = flipped, "mirrored"
    elif offset is not None:
        patch, origin = shifted(canvas.pixels, offset), "neighbouring"
    else:
        return None
    levelled = patch.copy()
    for plane in site.run:
        rim = dilate(site.region[plane], round(8 * unit(canvas))) & fit[plane]
        if not rim.any():
            continue
        low, middle, high = np.quantile(canvas.pixels[plane][rim], (0.08, 0.5, 0.97))
        moved = patch[plane] + (middle - np.median(patch[plane][rim]))
        # A ventricle or a piece of skull that came along is toned down.
        held = np.clip(moved, low, high)
        levelled[plane] = held + 0.2 * (moved - held)
    return site, levelled, origin


def _fuse_a_trous(base: Pixels, patch: Pixels, masks: list[Pixels]) -> Pixels:
    """Shift-invariant B3 spline wavelets; `masks` from fine to coarse, the last for what remains."""
    step, out = patch - base, base.copy()
    # The transform is linear: fusing the coefficients is base plus the masked bands of the difference.
    for level, mask in enumerate(masks[:-1]):
        kernel = np.zeros(4 * 2**level + 1)
        kernel[:: 2**level] = np.array([1, 4, 6, 4, 1]) / 16
        smooth = float32(
            ndimage.convolve1d(ndimage.convolve1d(step, kernel, 0, mode="nearest"), kernel, 1, mode="nearest")
        )
        out = out + mask * (step - smooth)
        step = smooth
    return out + masks[-1] * step


def _fuse_haar(base: Pixels, patch: Pixels, masks: list[Pixels], turns: int) -> Pixels:
    """Haar wavelets; with `turns` > 1 the mean over as many shifts of the grid, which hides its blocks."""
    cell = 2 ** (len(masks) - 1)
    rows, cols = base.shape
    total = np.zeros_like(base)
    for turn in range(turns):
        top, left = (5 * turn) % cell, (3 * turn) % cell
        pads = ((top, -(rows + top) % cell), (left, -(cols + left) % cell))
        step = _masked_haar(np.pad(patch - base, pads, mode="edge"), [np.pad(m, pads, mode="edge") for m in masks])
        total += step[top : top + rows, left : left + cols]
    return float32(base + total / turns)


def _masked_haar(step: Pixels, masks: list[Pixels]) -> Pixels:
    """Analyse, weigh every band by its mask and put together again."""
    if len(masks) == 1:
        return masks[0] * step
    corners = [step[row::2, col::2] for row in (0, 1) for col in (0, 1)]
    mean = float32(sum(corners[1:], corners[0]) / 4)
    weight = _halved(masks[0])
    coarse = _masked_haar(mean, [_halved(mask) for mask in masks[1:]])
    out = np.empty_like(step)
    for index, corner in enumerate(corners):
        out[index // 2 :: 2, index % 2 :: 2] = coarse + weight * (corner - mean)
    return out


def _halved(mask: Pixels) -> Pixels:
    return float32((mask[::2, ::2] + mask[1::2, ::2] + mask[::2, 1::2] + mask[1::2, 1::2]) / 4)
