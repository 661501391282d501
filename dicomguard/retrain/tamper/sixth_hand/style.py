"""A lesion dressed in the statistics of the tissue beside it, its fine structure left alone.

An attacker borrows from style transfer: adaptive instance normalisation (Huang and Belongie, ICCV 2017) on the bands
of the slice, or histogram matching of the bands (Heeger and Bergen, SIGGRAPH 1995). As grain and fine structure stay
the lesion's own, nothing is missing there for a detector to miss.
"""

import numpy as np

from dicomguard.retrain.tamper.filters import erode, gaussian, signed_distance
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.sixth_hand.bands import continued, masked_mean, split
from dicomguard.retrain.tamper.sixth_hand.closing import seal, settle
from dicomguard.retrain.tamper.sixth_hand.grain import ring
from dicomguard.retrain.tamper.sixth_hand.scene import Site, lesion_site, smoothstep, window

VARIANTS = ("regional", "local", "histogram")
MANNERS = ("removed", "fainter", "smaller")

_SIGMAS_PX = (1.0, 2.2, 5.0)
_GAIN_RANGE = (0.3, 2.0)
# Detail beyond so many deviations of healthy tissue is the lesion's own edge.
_CLIP = 1.6
_OUTLINE_PX = 1.5
_OWN_MEAN_PX = 2.5


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    site = lesion_site(canvas, rng)
    if site is None:
        return None
    variant, manner = str(rng.choice(VARIANTS)), str(rng.choice(MANNERS))
    amount = float(rng.uniform(0.4, 0.7)) if manner == "fainter" else 1.0
    kept = _kept(site, rng) if manner == "smaller" else np.zeros_like(site.core)
    edited, alpha = canvas.pixels.copy(), np.zeros_like(canvas.pixels)
    for z in np.flatnonzero(site.core.any(axis=(1, 2))):
        cut = (int(z), *window(site.hole[z], round(18 * site.scale) + 8))
        dressed = _dressed(canvas.pixels[cut], site.core[cut], site.hole[cut], site.healthy[cut], variant)
        edited[cut] += np.float32(amount) * (dressed - canvas.pixels[cut])
        alpha[z] = site.alpha[z] * (1 - smoothstep((signed_distance(kept[z]) + 1.5) / 3))
    kind: Kind = "removed" if manner == "removed" else "altered"
    settled = settle(canvas, edited, alpha, site.healthy, rng, own_grain=True)
    return seal(
        canvas,
        settled,
        alpha,
        kind=kind,
        lesion=site.rest if manner == "removed" else site.rest | kept if manner == "smaller" else canvas.lesion,
        family="style",
        variant=f"{variant}-{manner}",
        parameters={"amount": amount},
    )


def _kept(site: Site, rng: np.random.Generator) -> Mask:
    """The heart of the lesion that a smaller lesion keeps: every slice loses a shell of one thickness."""
    deepest = max(float(signed_distance(plane).max()) for plane in site.core)
    return np.stack([erode(plane, max(2, round(deepest * rng.uniform(0.35, 0.6)))) for plane in site.core])


def _dressed(plane: Pixels, core: Mask, hole: Mask, healthy: Mask, variant: str) -> Pixels:
    around = ring(hole, healthy, 14)
    if not core.any() or around.sum() < 60:
        return plane
    flat, usual = _detail(plane, core), plane - masked_mean(plane, healthy, _OWN_MEAN_PX)
    outline = _on_outline(core)
    result = continued(plane, around)
    for i, (own, there) in enumerate(zip(split(flat, _SIGMAS_PX), split(usual, _SIGMAS_PX), strict=True)):
        goal = max(float(there[around].std()), 1e-3)
        if i > 0:
            own = _same_histogram(own, hole, there[around]) if variant == "histogram" else own
            own = own if variant == "histogram" else _normalised(own, hole, goal, local=variant == "local")
        result = result + (1 - outline) * own + outline * _quietened(own, goal)
    return np.where(hole, result, plane).astype(np.float32)


def _on_outline(core: Mask) -> Pixels:
    """1 along the lesion's outline, where its edge would stay as a thin line."""
    return smoothstep(2.0 - np.abs(signed_distance(core)) / _OUTLINE_PX)


def _quietened(own: Pixels, goal: float) -> Pixels:
    """The band no stronger than in healthy tissue in any small window."""
    spread = np.sqrt(gaussian(own**2, 1.5))
    return (own * np.minimum(1, goal / np.maximum(spread, 1e-3))).astype(np.float32)


def _detail(plane: Pixels, core: Mask) -> Pixels:
    """What is left when lesion and surroundings each lose their own local mean: no step at the outline."""
    within = smoothstep((signed_distance(core) + 1.0) / 2)
    mean = within * masked_mean(plane, core, _OWN_MEAN_PX) + (1 - within) * masked_mean(plane, ~core, _OWN_MEAN_PX)
    return (plane - mean).astype(np.float32)


def _normalised(own: Pixels, hole: Mask, goal: float, *, local: bool) -> Pixels:
    if local:
        weight = hole.astype(np.float32)
        power = gaussian(own**2 * weight, 6.0) / np.maximum(gaussian(weight, 6.0), 0.05)
        spread = np.sqrt(power + 1e-6)
    else:
        spread = np.full_like(own, max(float(own[hole].std()), 1e-3))
    gain = np.clip(goal / spread, *_GAIN_RANGE)
    return np.clip(gain * own, -_CLIP * goal, _CLIP * goal).astype(np.float32)


def _same_histogram(own: Pixels, hole: Mask, there: Pixels) -> Pixels:
    """Values of the band inside the hole replaced by those of equal rank in healthy tissue."""
    order = np.sort(own[hole])
    rank = np.searchsorted(order, own.ravel()) / max(1, order.size)
    return np.quantile(there, np.clip(rank, 0, 1)).reshape(own.shape).astype(np.float32)
