"""Family 12: the edit is made before reconstruction, where there is no residual to betray it.

What a real attacker would use: raw data of the scanner, or a copy of the images and a careful hand. The slice becomes a
complex image (its magnitude, a smooth phase), its noise is taken down, the lesion is added or taken away in the object
domain, the result goes forward to k-space, only what was sampled stays (zero-filled matrices stay zero-filled), complex
noise is added there, and the magnitude is reconstructed: Rician noise at the slice's own level over the whole slice,
coloured as the scanner coloured it (Gudbjartsson and Patz 1995). The authentic twin takes the same way without the
edit.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from dicomguard.retrain.sealed import places
from dicomguard.retrain.sealed.shapes import Mask, Plane
from dicomguard.retrain.tamper.forged import Canvas, Forged

# Frequencies (cycles a pixel) that every scanner samples and where noise outweighs content.
_MIDDLE = (0.15, 0.32)
# Less than this share of the noise at a frequency: it was not sampled, and an edit leaves nothing there either.
_EMPTY = 0.35
_PHASE_RAD = 1.5
# New noise is at least this share of the slice's own.
_LEAST_NOISE = 0.5
_FILL_SCALES = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Remove the marked lesion or add one (the donor's tissue where there is a donor, else a profile)."""
    place = places.choose(canvas, rng)
    if place is None:
        return None
    variant = (
        "tissue" if place.kind == "removed" else "donor" if donor is not None and rng.random() < 0.5 else "profile"
    )
    alpha = places.soft(place.region, float(rng.uniform(0.7, 1.6)))
    smoothing = float(rng.uniform(0.8, 1.2))
    phase = _phase(canvas.pixels.shape[1:], rng)
    profile = _Profile(rng)
    forged, twin = np.empty_like(canvas.pixels), np.empty_like(canvas.pixels)
    for z, plane in enumerate(canvas.pixels):
        sigma = noise_level(plane, canvas.head[z])
        clean = _clean(plane, smoothing * sigma)
        # What the cleaning left of the noise is still there; the rest is put back.
        missing = float(np.sqrt(max(sigma**2 - noise_level(clean, canvas.head[z]) ** 2, (_LEAST_NOISE * sigma) ** 2)))
        edited = clean
        if alpha[z].any():
            if variant == "tissue":
                painted = _tissue(clean, place.region[z], canvas, z, rng)
            elif variant == "donor" and donor is not None:
                painted = _transplanted(clean, donor, place, canvas.head[z])
            else:
                painted = profile.paint(clean, place.region[z], canvas.head[z])
            edited = clean + alpha[z] * (painted - clean)
        passed = window(plane)
        seed = int(rng.integers(2**63))
        twin[z] = _acquired(clean, phase, passed, missing, np.random.default_rng(seed))
        forged[z] = _acquired(edited, phase, passed, missing, np.random.default_rng(seed))
        # A scanner (or an archive) that sets the background to zero did so in both.
        blank = plane <= canvas.low
        if blank.mean() > 0.1:
            twin[z][blank], forged[z][blank] = plane[blank], plane[blank]
    return places.outcome(
        canvas,
        forged=forged,
        twin=twin,
        alpha=alpha,
        place=place,
        family="acquisition",
        variant=variant,
        parameters={"smoothing": round(smoothing, 2), "radius": round(place.radius, 1)},
    )


def noise_level(plane: Plane, head: Mask) -> float:
    """Standard deviation of the noise in stored values, from the diagonal details inside the head; at least 0.3."""
    detail = (plane[:-1:2, :-1:2] - plane[1::2, :-1:2] - plane[:-1:2, 1::2] + plane[1::2, 1::2]) / 2
    inside = head[: detail.shape[0] * 2 : 2, : detail.shape[1] * 2 : 2]
    values = np.abs(detail[inside]) if inside.any() else np.abs(detail)
    return max(0.3, float(np.median(values)) * 1.4826)


def window(plane: Plane) -> NDArray[np.float64]:
    """H×W, 0…1 (centre of k-space first): how much of the noise the reconstruction let through at each frequency.

    Rows and columns apart; 1 up to the middle frequencies, beyond them by the slice's own power, which there is noise.
    """
    power = np.abs(np.fft.fft2(plane)) ** 2
    sides = []
    for axis in (1, 0):
        profile = np.median(power, axis=axis)
        order = np.abs(np.fft.fftfreq(len(profile)))
        middle = float(np.median(profile[(order > _MIDDLE[0]) & (order < _MIDDLE[1])]))
        smooth = uniform_filter1d(profile, max(3, len(profile) // 40), mode="wrap")
        share = np.sqrt(np.minimum(1.0, smooth / max(middle, 1e-12)))
        sides.append(np.where(order < _MIDDLE[1], 1.0, share))
    return np.asarray(sides[0][:, None] * sides[1][None, :])


def _acquired(
    magnitude: Plane, phase: NDArray[np.float64], passed: NDArray[np.float64], sigma: float, rng: np.random.Generator
) -> Plane:
    """Forward to k-space, only what was sampled, noise there, back; noise of `sigma` in the real and imaginary part."""
    spectrum = np.fft.fft2(magnitude * np.exp(1j * phase))
    noise = rng.standard_normal((2, *magnitude.shape))
    # The window takes noise away: so much more before it that the image has `sigma`.
    scale = sigma * np.sqrt(magnitude.size / (passed**2).mean())
    spectrum = spectrum * np.minimum(1.0, passed / _EMPTY) + scale * passed * (noise[0] + 1j * noise[1])
    return np.abs(np.fft.ifft2(spectrum)).astype(np.float32)


def _phase(shape: Sequence[int], rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    terms = (rows, columns, rows * columns, rows**2, columns**2)
    weights = rng.normal(0, _PHASE_RAD, len(terms))
    return np.asarray(sum(w * term for w, term in zip(weights, terms, strict=True)) + rng.uniform(-np.pi, np.pi))


def _clean(plane: Plane, sigma: float) -> Plane:
    """Noise taken down by a bilateral filter: edges stay, the noise of a slice becomes that of its repetition."""
    return np.asarray(cv2.bilateralFilter(plane, 5, 2.2 * sigma, 1.2), np.float32)


def _surround(plane: Plane, region: Mask, head: Mask) -> Plane:
    """Normalised Gaussian means of the tissue outside the region, fine scales near the rim, coarse ones deep inside."""
    weight = (head & ~region).astype(np.float32)
    filled, trust = np.zeros_like(plane), np.zeros_like(plane)
    for scale in _FILL_SCALES:
        near = cv2.GaussianBlur(weight, (0, 0), scale)
        mean = cv2.GaussianBlur(plane * weight, (0, 0), scale) / np.maximum(near, 1e-6)
        share = (1 - trust) * np.clip(4 * near, 0, 1)
        filled, trust = filled + share * mean, trust + share
    return np.asarray(filled / np.maximum(trust, 1e-6), np.float32)


def _tissue(plane: Plane, region: Mask, canvas: Canvas, z: int, rng: np.random.Generator) -> Plane:
    """Smooth continuation of the surround with the texture of healthy tissue of about the same brightness."""
    head = canvas.head[z]
    base = _surround(plane, region | canvas.lesion[z], head)
    texture = plane - cv2.GaussianBlur(plane, (0, 0), 5.0)
    rows, columns = np.nonzero(region)
    best, best_cost = np.zeros_like(plane), np.inf
    level = float(np.median(base[region]))
    for _ in range(30):
        down, right = (int(v) for v in rng.integers(-plane.shape[0] // 3, plane.shape[0] // 3, 2))
        r, c = rows + down, columns + right
        if r.min() < 0 or c.min() < 0 or r.max() >= plane.shape[0] or c.max() >= plane.shape[1]:
            continue
        if not head[r, c].all() or (region | canvas.lesion[z])[r, c].any():
            continue
        cost = abs(float(np.median(plane[r, c])) - level) + float(np.abs(texture[r, c]).mean())
        if cost < best_cost:
            best_cost = cost
            best = np.zeros_like(plane)
            best[rows, columns] = texture[r, c]
    return base + best


class _Profile:
    """A lesion as the contrast of its rim and core to the tissue it lies in, the same through a run of slices."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rim, self._core = rng.uniform(0.25, 0.9), rng.uniform(-0.5, 0.7)
        if rng.random() < 0.2:
            self._rim = -0.4 * self._rim
        self._edge = rng.uniform(0.15, 0.5)
        self._mottle = rng.uniform(0.05, 0.2)
        self._seed = int(rng.integers(2**63))

    def paint(self, plane: Plane, region: Mask, head: Mask) -> Plane:
        """The slice with the profile over the whole region; blended by the caller."""
        inside = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5)
        depth = np.clip(inside / max(1.0, float(inside.max())) / self._edge - 1, 0, 1)
        rng = np.random.default_rng(self._seed)
        mottle = cv2.GaussianBlur(rng.standard_normal(plane.shape, dtype=np.float32), (0, 0), 3.0)
        mottle /= max(1e-6, float(mottle.std()))
        contrast = self._rim + (self._core - self._rim) * depth + self._mottle * mottle
        white = float(np.percentile(plane[head], 99)) if head.any() else float(plane.max())
        tissue = cv2.GaussianBlur(plane, (0, 0), 4.0)
        # Half of what was there shows through.
        ground = 0.5 * plane + 0.5 * tissue
        return np.asarray(np.clip(ground + contrast * 0.5 * white, 0, 1.1 * white), np.float32)


def _transplanted(plane: Plane, donor: Canvas, place: places.Place, head: Mask) -> Plane:
    """The donor's lesion, its noise taken down, scaled to the place and to the head's white."""
    z = int(np.argmax(donor.lesion.sum(axis=(1, 2))))
    rows, columns = np.nonzero(donor.lesion[z])
    source = _clean(donor.pixels[z], noise_level(donor.pixels[z], donor.head[z]))
    scale = 2 * place.radius * 1.15 / max(1.0, float(np.ptp(rows)) + 1, float(np.ptp(columns)) + 1)
    white = float(np.percentile(plane[head], 99)) / max(1.0, float(np.percentile(source[donor.head[z]], 99)))
    moved = np.array(
        [
            [scale, 0, place.centre[1] - scale * columns.mean()],
            [0, scale, place.centre[0] - scale * rows.mean()],
        ],
        np.float64,
    )
    size = (plane.shape[1], plane.shape[0])
    return np.asarray(cv2.warpAffine(source, moved, size, flags=cv2.INTER_CUBIC) * np.float32(white), np.float32)
