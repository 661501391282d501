"""Remove a lesion by a shift map: every pixel is taken from one of a few dominant offsets of the slice to itself.

Offsets by the statistics of similar patches (He and Sun 2012), labels that make few seams (Pritch 2009): by exact
minimisation along rows and columns in turn, or by an annealed mean field. A real attacker calls the shift map of OpenCV
(`xphoto.inpaint`, after He and Sun).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from dicomguard.retrain.tamper.filters import dilate, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.seventh_hand.place import Site, feather, inner_head, lesion_site
from dicomguard.retrain.tamper.seventh_hand.seal import seal

VARIANTS = ("chains", "meanfield")
_BAND_PX = 3
_MOST_PATCHES = 4000
# Cost of a source outside healthy head: no label is worth it while another is left.
_NEVER = 1e3

Offsets = NDArray[np.int64]
Stack = NDArray[np.float32]


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Fill a lesion's hole from offsets found in the slice that shows most of it; labels are found in each slice."""
    site = lesion_site(canvas, rng, margin=8)
    if site is None:
        return None
    variant = VARIANTS[rng.integers(len(VARIANTS))]
    peaks, patch = int(rng.integers(8, 14)), int(rng.choice((5, 7, 9)))
    seam, levelled = rng.uniform(0.5, 1.5), rng.uniform(0.4, 0.9)
    alpha = feather(site, rng.uniform(1.0, 3.0), outward=True)
    sources = inner_head(canvas) & ~np.stack([dilate(plane, 3) for plane in canvas.lesion])
    widest = max(site.slices, key=lambda z: int(site.hole[z].sum()))
    full = np.zeros(canvas.pixels.shape, np.bool_)
    full[:, site.rows, site.cols] = alpha > 0
    offsets = _offsets(canvas.pixels[widest], sources[widest] & ~full[widest], full[widest], patch, peaks, rng)
    if len(offsets) < 2:
        return None
    edited = site.cut(canvas.pixels).copy()
    for z in site.slices:
        filled = _filled(canvas.pixels[z], sources[z] & ~full[z], site, alpha[z] > 0, offsets, variant, seam, levelled)
        if filled is None:
            return None
        edited[z] += alpha[z] * (filled - edited[z])
    parameters = {"offsets": len(offsets), "patch": patch, "seam": round(seam, 2), "levelled": round(levelled, 2)}
    return seal(
        canvas, site, edited, alpha, rng, kind="removed", family="shiftmap", variant=variant, parameters=parameters
    )


def _offsets(plane: Pixels, known: Mask, hole: Mask, patch: int, peaks: int, rng: np.random.Generator) -> Offsets:
    """K×2 offsets (rows, columns): peaks of the histogram of nearest patches, and the best of some drawn freely.

    Patches too near each other are alike because the slice is smooth, which says nothing.
    """
    half = patch // 2
    centres = np.argwhere(ndimage.binary_erosion(known, iterations=half))
    if len(centres) < 40:
        return np.zeros((0, 2), np.int64)
    centres = centres[rng.permutation(len(centres))[:_MOST_PATCHES]]
    windows = np.lib.stride_tricks.sliding_window_view(plane, (patch, patch))
    patches = windows[centres[:, 0] - half, centres[:, 1] - half].reshape(len(centres), -1)
    patches = patches - patches.mean(axis=0)
    _, axes = np.linalg.eigh(patches.T @ patches)
    features = patches @ axes[:, -6:]
    _, nearest = cKDTree(features).query(features, k=7)
    apart = centres[nearest[:, 1:]] - centres[:, None]
    far = np.hypot(*np.moveaxis(apart, -1, 0)) > max(10.0, 0.6 * np.sqrt(hole.sum()))
    found = apart[far]
    reach = max(plane.shape)
    histogram = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for sign in (1, -1):
        np.add.at(histogram, tuple((sign * found + reach).T), 1)
    smooth = gaussian(histogram, 1.5)
    tops = np.argwhere((smooth == ndimage.maximum_filter(smooth, 5)) & (smooth > 0))
    tops = tops[np.argsort(-smooth[tops[:, 0], tops[:, 1]], kind="stable")][: 4 * peaks] - reach
    free = rng.integers(-reach // 2, reach // 2 + 1, size=(8 * peaks, 2))
    inner, band = np.argwhere(hole), np.argwhere(dilate(hole, _BAND_PX) & known)
    inner, band = (part[rng.permutation(len(part))[:150]] for part in (inner, band))
    return np.concatenate(
        [_fitting(plane, known, tops, inner, band)[:peaks], _fitting(plane, known, free, inner, band)[:4]]
    )


def _fitting(plane: Pixels, known: Mask, offsets: Offsets, inner: Offsets, band: Offsets) -> Offsets:
    """The offsets that serve a fair part of the hole, those that continue the band best first."""
    size = np.array(plane.shape)

    def taken(places: Offsets) -> tuple[Any, Any]:
        moved = places[None] + offsets[:, None]
        valid = ((moved >= 0) & (moved < size)).all(axis=-1)
        rows, cols = np.moveaxis(np.clip(moved, 0, size - 1), -1, 0)
        return plane[rows, cols], valid & known[rows, cols]

    _, serves = taken(inner)
    shown, valid = taken(band)
    misfit = np.where(valid, np.abs(shown - plane[band[:, 0], band[:, 1]]), np.nan_to_num(plane.std()))
    cost = misfit.mean(axis=1) * (1.5 - serves.mean(axis=1))
    order = np.argsort(cost, kind="stable")
    return np.asarray(offsets[order[serves.mean(axis=1)[order] > 0.35]])


def _filled(
    plane: Pixels, known: Mask, site: Site, hole: Mask, offsets: Offsets, variant: str, seam: float, levelled: float
) -> Pixels | None:
    """h×w of the window with the hole filled; None when some of it has no source."""
    rows, cols = site.rows.start + np.arange(hole.shape[0]), site.cols.start + np.arange(hole.shape[1])
    shifted, valid = [], []
    for down, right in offsets:
        r, c = rows + down, cols + right
        within = np.outer((r >= 0) & (r < plane.shape[0]), (c >= 0) & (c < plane.shape[1]))
        place = np.ix_(np.clip(r, 0, plane.shape[0] - 1), np.clip(c, 0, plane.shape[1] - 1))
        shifted.append(plane[place])
        valid.append(known[place] & within)
    images, usable = np.stack(shifted), np.stack(valid)
    if not usable[:, hole].any(axis=0).all():
        return None
    own = plane[site.rows, site.cols]
    scale = max(float(own.std()), 1e-3)
    band = dilate(hole, _BAND_PX) & ~hole
    data = np.where(usable, 0.0, _NEVER) + np.where(band, np.abs(images - own) / scale, 0)
    data = np.where(hole | band, data, 0).astype(np.float32)
    weights = _chains(images / scale, data) if variant == "chains" else _mean_field(images / scale, data)
    # Labels meet in a short ramp; never across a source that is not there.
    soft = np.stack([gaussian(weight, seam) for weight in weights]) * usable + 1e-6 * weights
    soft /= np.maximum(soft.sum(axis=0), 1e-9)
    base = np.stack([gaussian(image, 1.5) for image in images])
    ramp = (soft * base).sum(axis=0)
    fine = (soft * (images - base)).sum(axis=0) / np.sqrt(np.maximum((soft**2).sum(axis=0), 1e-3))
    filled = ramp + fine
    # What the band is off by is spread into the hole, for the coil's bias differs from place to place.
    off = np.where(band, own - filled, 0).astype(np.float32)
    reach = 2 + np.sqrt(float(hole.sum())) / 4
    spread = gaussian(off, reach) / np.maximum(gaussian(band.astype(np.float32), reach), 1e-3)
    return float32(filled + levelled * spread)


def _chains(images: Stack, data: Stack) -> Stack:
    """K×h×w one-hot labels: Viterbi along every second row, the others, then columns, each given its neighbours.

    The seam cost of neighbours p, q with labels a, b is |I_a(p) − I_b(p)| + |I_a(q) − I_b(q)| (Kwatra 2003).
    """
    labels = data.argmin(axis=0)
    for turn in range(3):
        if turn % 2:
            images, data, labels = images.transpose(0, 2, 1), data.transpose(0, 2, 1), labels.T
        for parity in (0, 1):
            lines = np.arange(parity, labels.shape[0], 2)
            cost = data[:, lines].copy()
            for side in (-1, 1):
                other = np.clip(lines + side, 0, labels.shape[0] - 1)
                there = labels[other]
                for at in (lines, other):
                    theirs = np.take_along_axis(images[:, at], there[None], axis=0)
                    cost += np.abs(images[:, at] - theirs)
            labels[lines] = _viterbi(images[:, lines], cost)
        if turn % 2:
            images, data, labels = images.transpose(0, 2, 1), data.transpose(0, 2, 1), labels.T
    return float32(labels[None] == np.arange(len(images))[:, None, None])


def _viterbi(images: Stack, cost: Stack) -> NDArray[np.int64]:
    """Lines×length labels of least cost along each line on its own; `images` and `cost` are K×lines×length."""
    length = cost.shape[2]
    shown = np.moveaxis(images, 0, -1)
    apart = np.abs(shown[:, 0, :, None] - shown[:, 0, None, :])
    best, came = cost[:, :, 0].T, []
    for x in range(1, length):
        here = np.abs(shown[:, x, :, None] - shown[:, x, None, :])
        through = best[:, :, None] + apart + here
        came.append(through.argmin(axis=1))
        best, apart = through.min(axis=1) + cost[:, :, x].T, here
    labels = np.empty(cost.shape[1:], np.int64)
    labels[:, -1] = best.argmin(axis=1)
    for x in range(length - 1, 0, -1):
        labels[:, x - 1] = np.take_along_axis(came[x - 1], labels[:, x, None], axis=1)[:, 0]
    return labels


def _mean_field(images: Stack, data: Stack) -> Stack:
    """K×h×w label probabilities: each label is charged for its distance from what its surroundings expect."""
    temperature, chances = 1.0, np.exp(-(data - data.min(axis=0)))
    for _ in range(9):
        chances /= chances.sum(axis=0)
        expected = (chances * images).sum(axis=0)
        cost = data + np.stack([gaussian((image - expected) ** 2, 1.2) for image in images])
        chances = np.exp(-(cost - cost.min(axis=0)) / temperature)
        temperature = max(0.7 * temperature, 0.04)
    return float32(chances / chances.sum(axis=0))
