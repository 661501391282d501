"""Add a donor's tumor as a block: turned, tilted, scaled and resampled in three dimensions.

Grey values are matched by the landmarks of the two histograms (Nyúl 2000); the edge gives way to edges of the target by
a guided filter of the weight (He 2010). A real attacker moves a segmented tumor with the transforms of 3D Slicer, or
with SimpleITK, which resamples by lines, splines and windowed sincs and matches histograms.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomguard.retrain.tamper.filters import dilate, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.seventh_hand import grain, tissue
from dicomguard.retrain.tamper.seventh_hand.place import brain, draw_radius, feather, site_of, spot
from dicomguard.retrain.tamper.seventh_hand.seal import seal

VARIANTS = ("spline", "trilinear", "lanczos")
GRAINS = ("own", "donor", "new")
_LEAST_LESION_PX = 30
# Log ratios of the lesion to what it covers.
_FAINTEST, _STRONGEST = 0.2, 0.75


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Lay the donor's lesion (its slices as one volume) into healthy tissue; None without a donor that has one."""
    if donor is None or donor.lesion.sum(axis=(1, 2)).max() < _LEAST_LESION_PX:
        return None
    radius = draw_radius(canvas, rng)
    found = spot(canvas, radius, rng)
    if found is None:
        return None
    variant, kept = VARIANTS[rng.integers(len(VARIANTS))], GRAINS[rng.integers(len(GRAINS))]
    block, depths, middle, size = _block(donor)
    # Half way between the drawn size and the donor's own, as shares of the head.
    heads = [float(one.head.sum(axis=(1, 2)).max()) for one in (canvas, donor)]
    own = size * math.sqrt(heads[0] / max(heads[1], 1.0))
    scale = max(math.sqrt(radius * float(np.clip(own, 0.5 * radius, 1.2 * radius))) / size, 0.4)
    # What is made smaller is blurred first, or fine structure turns into sand.
    if scale < 1:
        block = np.stack([gaussian(plane, 0.5 * math.sqrt(1 / scale**2 - 0.9)) for plane in block])
    depths = scale * depths
    turn = _turn(scale, rng)
    fall = scale * size / rng.uniform(1.0, 2.5)

    def donor_at(rows: slice, cols: slice) -> NDArray[np.float64]:
        """3×Z×h×w donor coordinates of the target's voxels."""
        voxels = np.mgrid[0 : len(canvas.pixels), rows, cols].astype(np.float64)
        apart = voxels - np.reshape(found, (3, 1, 1, 1))
        return np.asarray(np.tensordot(turn, apart, axes=1) + middle.reshape(3, 1, 1, 1))

    at = donor_at(slice(0, canvas.pixels.shape[1]), slice(0, canvas.pixels.shape[2]))
    beyond = np.maximum(0, np.maximum(-at[0], at[0] - (len(block) - 1)))
    inside = ndimage.map_coordinates(depths, at, order=1, mode="nearest") - fall * beyond
    # Coordinates outside the donor's window repeat its rim, which is outside of the lesion.
    site = site_of(canvas, (inside > 0) & brain(canvas) & ~canvas.lesion, f"donor-{kept}", 14)
    if site is None:
        return None
    slope, shift = _matching(donor, canvas)
    parts = [grain.part(plane, np.ones(plane.shape, np.bool_)) for plane in block]
    at = donor_at(
        slice(site.rows.start, site.rows.start + site.hole.shape[1]),
        slice(site.cols.start, site.cols.start + site.hole.shape[2]),
    )
    content = _resampled(np.stack([base for base, _ in parts]), at, variant) * slope + shift
    coarse = _resampled(np.stack([residual for _, residual in parts]), at, variant)
    before, low = site.cut(canvas.pixels), np.float32(canvas.low)
    alpha = feather(site, rng.uniform(2.0, 5.0), outward=False)
    follow, power, wanted = rng.uniform(0.3, 0.9), rng.random() < 0.6, tissue.draw_contrast(canvas, donor, rng)
    edited, gain = before.copy(), 0.0
    for z in sorted(site.slices, key=lambda z: -int(site.hole[z].sum())):
        base, residual = grain.part(before[z], site.healthy[z])
        alpha[z] = _following(alpha[z], base, site.hole[z], follow)
        if gain == 0:
            ratio = np.log(np.maximum(content[z] - low, 1) / np.maximum(base - low, 1))[site.hole[z]]
            shown, typical = float(np.median(np.abs(ratio))), float(np.median(ratio))
            # A lesion that its new place swallows is brought out, one that glares is dimmed.
            gain = 1.0 if shown > _FAINTEST and abs(typical) < _STRONGEST else math.exp(wanted - typical)
        new = (content[z] - low) * np.float32(gain) + low
        noise = {
            "own": residual,
            "donor": coarse[z] * (slope * np.float32(gain)),
            "new": grain.more(residual, site.healthy[z], rng),
        }[kept]
        sticking = 4 * grain.level(noise, site.hole[z])
        noise = grain.matched(np.clip(noise, -sticking, sticking), new, site.hole[z], before[z], site.healthy[z])
        # The same grain twice has nothing to lose in a mean.
        edited[z] = grain.mixed((base, residual), (new, noise), alpha[z], power=power and kept != "own")
    return seal(
        canvas, site, edited, alpha, rng, kind="added", family="volume", variant=variant,
        parameters={"grain": kept, "scale": round(scale, 2), "gain": round(gain, 2)},
    )  # fmt: skip


def _block(donor: Canvas) -> tuple[Pixels, Pixels, NDArray[np.float64], float]:
    """The donor's slices around its largest lesion, depth inside it (px, negative outside), its middle, its radius."""
    labels, count = ndimage.label(donor.lesion, np.ones((3, 3, 3)))
    lesion = labels == 1 + int(np.argmax(np.bincount(labels.ravel(), minlength=count + 1)[1:]))
    areas = lesion.sum(axis=(1, 2))
    size = math.sqrt(max(float(areas.max()), 1.0) / math.pi)
    rows, cols = (np.flatnonzero(lesion.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    margin = math.ceil(0.7 * size) + 6
    box = np.s_[:, max(0, rows[0] - margin) : rows[-1] + margin + 1, max(0, cols[0] - margin) : cols[-1] + margin + 1]
    block, spots = donor.pixels[box], np.pad(lesion[box], ((0, 0), (1, 1), (1, 1)))
    flat = [ndimage.distance_transform_edt(one) - ndimage.distance_transform_edt(~one) for one in spots if one.any()]
    where = np.flatnonzero(areas)
    # Where the lesion is not shown, it is as deep below the slice as its neighbours let expect.
    depths = np.stack([
        np.max([depth - 0.8 * size * abs(z - own) for depth, own in zip(flat, where, strict=True)], axis=0)
        for z in range(len(block))
    ])[:, 1:-1, 1:-1]  # fmt: skip
    z = int(areas.argmax())
    return block, float32(depths), np.array([z, *np.argwhere(lesion[box][z]).mean(axis=0)]), size


def _turn(scale: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """3×3 from target to donor offsets: any angle in the plane, up to 15° of tilt, `scale` times as large.

    Slices are taken to be 2.5 to 5 pixels apart.
    """
    spin, (nod, roll) = rng.uniform(0, 2 * math.pi), rng.uniform(-0.26, 0.26, size=2)
    turn = np.eye(3)
    for angle, (a, b) in ((spin, (1, 2)), (nod, (0, 1)), (roll, (0, 2))):
        step = np.eye(3)
        step[a, a] = step[b, b] = math.cos(angle)
        step[a, b], step[b, a] = -math.sin(angle), math.sin(angle)
        turn = step @ turn
    if rng.random() < 0.5:
        turn[:, 2] *= -1
    apart = np.diag([rng.uniform(2.5, 5.0), 1.0, 1.0])
    return np.asarray(np.linalg.inv(apart) @ turn @ apart / scale)


def _matching(donor: Canvas, canvas: Canvas) -> tuple[np.float32, np.float32]:
    """Slope and shift that take the donor's grey and white matter to the target's."""
    (grey, white), (grey_here, white_here) = tissue.landmarks(donor), tissue.landmarks(canvas)
    # Where the two tissues are hardly apart, their ratio to the background is the safer slope.
    plain = (grey_here + white_here - 2 * canvas.low) / max(grey + white - 2 * donor.low, 1.0)
    slope = float(np.clip((white_here - grey_here) / (white - grey), 0.6 * plain, 1.6 * plain))
    return np.float32(slope), np.float32((grey_here + white_here - slope * (grey + white)) / 2)


def _resampled(block: Pixels, at: NDArray[np.float64], variant: str) -> Pixels:
    """Z×h×w of the donor's D×a×b block at 3×Z×h×w coordinates."""
    if variant != "lanczos":
        order = 3 if variant == "spline" and min(block.shape[1:]) > 3 else 1
        return float32(ndimage.map_coordinates(block, at, order=order, mode="nearest"))
    # In the plane by Lanczos, between slices by a hat.
    through = np.clip(at[0], 0, len(block) - 1)
    total = np.zeros(at.shape[1:], np.float32)
    for d, plane in enumerate(np.ascontiguousarray(block)):
        share = np.maximum(0, 1 - np.abs(through - d))
        for z in np.flatnonzero(share.any(axis=(1, 2))):
            cols, rows = float32(at[2, z]), float32(at[1, z])
            total[z] += share[z] * cv2.remap(plane, cols, rows, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    return total


def _following(alpha: Pixels, base: Pixels, hole: Mask, follow: float) -> Pixels:
    """The weight, partly (`follow`) bent to the edges of the base near the outline."""
    contrast = max(float(base[dilate(hole, 4)].var()), 1e-3)
    bent = np.clip(grain.guided(alpha, gaussian(base, 0.8), 3, 0.05 * contrast), 0, 1)
    mixed = alpha + np.float32(follow) * (bent - alpha)
    return float32(np.where(dilate(hole, 3) & (mixed > 0.03), mixed, 0))
