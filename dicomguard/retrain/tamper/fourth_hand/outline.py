"""Shapes of edits, and how their edges soften."""

import numpy as np
from scipy import ndimage

from dicomguard.retrain.tamper.filters import close, dilate, erode, float32, gaussian, signed_distance
from dicomguard.retrain.tamper.forged import Mask, Pixels

COVERING = ("lesion-shaped", "jittered polygon", "super-ellipse", "union of discs", "threshold region")
FREE = ("lobed", "jittered polygon", "super-ellipse", "union of discs", "noise level")
PROFILES = ("linear", "smoothstep", "cosine", "gaussian")


def covering(pixels: Pixels, lesion: Mask, rng: np.random.Generator) -> tuple[Mask, str]:
    """A Z×H×W outline that covers a lesion in each of its slices, and its name. One recipe for all slices."""
    name = COVERING[int(rng.integers(len(COVERING)))]
    grow = float(rng.uniform(1.0, 3.5))
    seed = int(rng.integers(2**32))
    out = np.zeros_like(lesion)
    for z in np.flatnonzero(lesion.any(axis=(1, 2))):
        # The same generator for each slice, so that neighbours get like shapes.
        own = np.random.default_rng(seed)
        # Some lesions are marked without their core.
        mask = np.asarray(ndimage.binary_fill_holes(lesion[z]))
        match name:
            case "jittered polygon":
                shape = _polygon(mask, grow, own)
            case "super-ellipse":
                shape = _super_ellipse(mask, grow, own)
            case "union of discs":
                shape = _discs(mask, grow, own)
            case "threshold region":
                shape = _threshold(pixels[z], mask, grow)
            case _:
                shape = gaussian(dilate(mask, round(grow) + 1).astype(np.float32), 1 + 0.4 * grow) > 0.5
        out[z] = (gaussian(shape.astype(np.float32), 1.2) > 0.5) | mask
    return out, name


def _grid(mask: Mask) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Centred coordinates of all pixels and of the mask's."""
    rows, cols = np.nonzero(mask)
    middle_r, middle_c = float(rows.mean()), float(cols.mean())
    all_r = np.arange(mask.shape[0], dtype=np.float32)[:, None] - np.float32(middle_r)
    all_c = np.arange(mask.shape[1], dtype=np.float32)[None, :] - np.float32(middle_c)
    return all_r, all_c, (rows - middle_r).astype(np.float32), (cols - middle_c).astype(np.float32)


def _polygon(mask: Mask, grow: float, rng: np.random.Generator) -> Mask:
    """Half planes that each hold the whole lesion, at uneven angles and distances: what a lasso in haste looks like."""
    all_r, all_c, rows, cols = _grid(mask)
    corners = int(rng.integers(6, 13))
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    inside = np.ones(mask.shape, np.bool_)
    for angle in angles:
        sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        bound = float((rows * sine + cols * cosine).max()) + grow * float(rng.uniform(0.4, 1.6))
        inside &= all_r * sine + all_c * cosine <= bound
    return inside


def _super_ellipse(mask: Mask, grow: float, rng: np.random.Generator) -> Mask:
    all_r, all_c, rows, cols = _grid(mask)
    spread = np.cov(np.stack([rows, cols])) + 0.5 * np.eye(2)
    _, axes = np.linalg.eigh(spread)
    power = float(rng.uniform(1.8, 4.0))

    def reach(r: Pixels, c: Pixels, lengths: tuple[float, float]) -> Pixels:
        along = [np.abs(axes[0, k] * r + axes[1, k] * c) / lengths[k] for k in range(2)]
        return float32((along[0] ** power + along[1] ** power) ** (1 / power))

    deviations = np.sqrt(np.linalg.eigvalsh(spread))
    lengths = (2 * float(deviations[0]), 2 * float(deviations[1]))
    scale = float(np.quantile(reach(rows, cols, lengths), 0.985))
    lengths = (lengths[0] * scale + grow, lengths[1] * scale + grow)
    return np.asarray(reach(all_r, all_c, lengths) <= 1)


def _discs(mask: Mask, grow: float, rng: np.random.Generator) -> Mask:
    """Dabs of one brush over the lesion."""
    radius = float(np.clip(0.35 * np.sqrt(mask.sum() / np.pi) + grow, 2.5, 14.0))
    places = np.argwhere(mask)
    count = int(np.clip(4 * mask.sum() / radius**2, 5, 200))
    dabs = np.zeros(mask.shape, np.bool_)
    for row, col in places[rng.integers(len(places), size=count)]:
        dabs[row, col] = True
    return signed_distance(dabs) > -radius


def _threshold(plane: Pixels, mask: Mask, grow: float) -> Mask:
    """The lesion and what around it looks more like the lesion than like the ring: a magic wand."""
    near, far = dilate(mask, 5), dilate(mask, 10)
    ring = far & ~near
    margin = dilate(mask, round(grow))
    if not ring.any():
        return margin
    ill, well = float(np.median(plane[mask])), float(np.median(plane[ring]))
    smooth = gaussian(plane, 1.0)
    alike = near & (np.abs(smooth - ill) < np.abs(smooth - well))
    return close(margin | alike, 3)


def free(
    shape: tuple[int, ...],
    centre: tuple[int, int, int],
    radius: float,
    rng: np.random.Generator,
    *,
    span: float,
) -> tuple[Pixels, str]:
    """A new shape as a Z×H×W level in pixels, positive inside, tapering over `span` slices to either side."""
    name = FREE[int(rng.integers(len(FREE)))]
    rows = np.arange(shape[1], dtype=np.float32)[:, None] - centre[1]
    cols = np.arange(shape[2], dtype=np.float32)[None, :] - centre[2]
    turn, stretch = float(rng.uniform(0, np.pi)), float(rng.uniform(1.0, 1.45))
    along = (rows * np.sin(turn) + cols * np.cos(turn)) / np.float32(np.sqrt(stretch))
    across = (rows * np.cos(turn) - cols * np.sin(turn)) * np.float32(np.sqrt(stretch))
    distance, angle = np.hypot(along, across), np.arctan2(across, along)
    match name:
        case "jittered polygon":
            corners = int(rng.integers(6, 12))
            angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
            bounds = radius * rng.uniform(0.8, 1.1, corners)
            planes = [along * np.cos(a) + across * np.sin(a) - b for a, b in zip(angles, bounds, strict=True)]
            level = -np.max(planes, axis=0)
        case "super-ellipse":
            power = float(rng.uniform(1.7, 3.5))
            level = radius - (np.abs(along) ** power + np.abs(across) ** power) ** (1 / power)
        case "union of discs":
            level = 0.7 * radius - distance
            for _ in range(int(rng.integers(3, 7))):
                way, size = float(rng.uniform(0, 2 * np.pi)), radius * float(rng.uniform(0.35, 0.6))
                off_a, off_b = 0.6 * radius * np.cos(way), 0.6 * radius * np.sin(way)
                level = np.maximum(level, size - np.hypot(along - off_a, across - off_b))
        case "noise level":
            level = radius - distance + 0.3 * radius * field(shape[1:], max(1.5, 0.4 * radius), rng)
        case _:
            lobes = np.zeros_like(distance)
            for order in range(2, 6):
                lobes += np.cos(order * angle + rng.uniform(0, 2 * np.pi)) * rng.normal(0, 0.2 / order)
            level = radius * (1 + lobes) - distance
    # No shape wanders off: it ends at 1.6 radii.
    level = np.minimum(level, 1.6 * radius - distance)
    steps = np.arange(shape[0], dtype=np.float32) - centre[0]
    lost = 1 - taper(steps, span, "round" if rng.random() < 0.6 else "cone")
    return (level[None] - max(radius, float(level.max())) * lost[:, None, None]).astype(np.float32), name


def taper(steps: Pixels, span: float, profile: str) -> Pixels:
    """Share of the radius that is left so many slices from the middle; below zero beyond the span."""
    share = np.abs(steps) / np.float32(max(span, 1e-3))
    if profile == "cone":
        return (1 - share).astype(np.float32)
    return np.where(share < 1, np.sqrt(np.maximum(0, 1 - share**2)), 1 - share).astype(np.float32)


def field(shape: tuple[int, ...], sigma: float, rng: np.random.Generator, *, octaves: int = 2) -> Pixels:
    """Noise in octaves of unit spread, its widest of the sigma given."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        layer = gaussian(rng.standard_normal(shape).astype(np.float32), max(0.6, sigma / 2**octave))
        total += layer / max(float(layer.std()), 1e-6) * np.float32(0.55**octave)
    return total / np.float32(max(float(total.std()), 1e-6))


def soften(hole: Mask, field: Mask, width: float, profile: str, *, inward: float = 0.0) -> Pixels:
    """Blend weight of a Z×h×w hole: 1 inside, down to 0 over `width` pixels, of which the share `inward` lies inside.

    The field is the limit: the weight ends there however wide the edge was to be.
    """
    out = np.zeros(hole.shape, np.float32)
    for z in np.flatnonzero(hole.any(axis=(1, 2))):
        level = signed_distance(hole[z])
        # A thin hole keeps its weight of 1 in the middle.
        inside = min(inward * width, 0.6 * float(level.max()))
        ramp = np.clip((level + (1 - inward) * width + 0.5) / max(inside + (1 - inward) * width + 0.5, 0.5), 0, 1)
        match profile:
            case "smoothstep":
                ramp = ramp * ramp * (3 - 2 * ramp)
            case "cosine":
                ramp = 0.5 - 0.5 * np.cos(np.pi * ramp)
            case "gaussian":
                ramp = np.where(ramp > 0, np.clip((np.exp(-3.5 * (1 - ramp) ** 2) - 0.03) / 0.97, 0, 1), 0)
            case _:
                pass
        # Towards air and skull the weight fades within three pixels, so that their outline stays as it was.
        allowed = ndimage.uniform_filter(erode(field[z], 1).astype(np.float32), 3)
        out[z] = np.where(field[z], ramp * allowed, 0)
    out[out < 0.004] = 0
    return out


def draw_edge(rng: np.random.Generator, hole: Mask) -> tuple[float, str]:
    """Width and profile of an edge, by the size of the hole."""
    radius = float(np.sqrt(hole.sum(axis=(1, 2)).max() / np.pi))
    width = float(rng.uniform(1.5, np.clip(0.35 * radius, 2.5, 9.0)))
    return width, PROFILES[int(rng.integers(len(PROFILES)))]
