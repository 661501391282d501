"""fourth/curve: no new pixels, only a tone curve under a soft selection.

A real attacker selects the lesion with a feathered lasso in any photo editor and bends the curve until it looks like
its surroundings, or matches the histogram; or he makes it fainter, or a healthy spot stronger, to change a finding.
"""

import numpy as np
from scipy.interpolate import PchipInterpolator

from dicomguard.retrain.tamper.filters import dilate, erode, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import match, texture
from dicomguard.retrain.tamper.fourth_hand import site as places
from dicomguard.retrain.tamper.fourth_hand.leave import leave
from dicomguard.retrain.tamper.fourth_hand.outline import draw_edge, soften
from dicomguard.retrain.tamper.fourth_hand.surface import blurred_rim

VARIANTS = ("gamma", "levels", "curve", "histogram")


def _gamma(plane: Pixels, ill: Mask, well: Mask) -> Pixels:
    """The exponent that brings the selection's median to the surroundings'."""
    floor, top = float(plane.min()), max(float(plane.max()), float(plane.min()) + 1)
    share = [(float(np.median(plane[where])) - floor) / (top - floor) for where in (ill, well)]
    before, after = np.clip(share, 0.02, 0.98)
    exponent = float(np.clip(np.log(after) / np.log(before), 0.25, 4))
    return float32(((plane - floor) / (top - floor)) ** exponent * (top - floor) + floor)


def _curve(plane: Pixels, ill: Mask, well: Mask) -> Pixels:
    """A monotone curve that leaves the surroundings' values and presses the lesion's into them."""
    from_, to = match.moments(plane, ill), match.moments(plane, well)
    far = from_[0] - to[0]
    if abs(far) < 1e-3:
        return plane
    side = float(np.sign(far))
    start = to[0] - side * 0.3 * to[1]
    knots = np.array([start - side * 1e4, start, from_[0], from_[0] + side * 2 * from_[1] + far])
    values = np.array([start - side * 1e4, start, to[0] + side * 0.15 * to[1], to[0] + side * 1.3 * to[1]])
    order = np.argsort(knots)
    knots, values = knots[order], values[order]
    if (np.diff(knots) <= 1e-3).any():
        return plane
    inside = np.clip(plane, knots[0], knots[-1])
    return float32(PchipInterpolator(knots, values)(inside))


def mapped(plane: Pixels, ill: Mask, well: Mask, variant: str) -> Pixels:
    """The plane under the curve that makes the selection's values those of its surroundings."""
    # The curve gets the tones without the grain, which stays as it is: a steep curve would stretch it.
    smooth = gaussian(plane, 0.9)
    match variant:
        case "gamma":
            bent = _gamma(smooth, ill, well)
        case "levels":
            bent = match.linear(smooth, ill, smooth, well)
        case "curve":
            bent = _curve(smooth, ill, well)
        case _:
            bent = match.quantiles(smooth, ill, smooth, well)
    # Partial volume at the lesion's edge would be bent beyond the surroundings, to a ring.
    middle, spread = match.moments(smooth, well)
    if float(np.median(smooth[ill])) > middle:
        bent = np.maximum(bent, np.minimum(smooth, middle - 0.5 * spread))
    else:
        bent = np.minimum(bent, np.maximum(smooth, middle + 0.5 * spread))
    return float32(bent + plane - smooth)


def _membership(plane: Pixels, ill: Mask, well: Mask, sigma: float) -> Pixels:
    """How much a pixel looks like the lesion, 0 to 1, smoothly: a selection by colour range."""
    bad, good = float(np.median(plane[ill])), float(np.median(plane[well]))
    if abs(bad - good) < 1e-3:
        return np.ones_like(plane)
    share = (gaussian(plane, sigma) - good) / (bad - good)
    return float32(np.clip((share - 0.05) / 0.45, 0, 1))


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Bend the tones of a lesion, or of a normal spot where there is none."""
    if canvas.lesion.any():
        site = places.over_lesion(canvas, rng)
    else:
        site = places.over_spot(canvas, rng)
    if site is None:
        return None
    variant = VARIANTS[int(rng.integers(len(VARIANTS)))]
    # Half of the lesions fade only, or gain.
    whole = rng.random() < 0.65
    strength = 1.0 if whole else float(rng.uniform(0.35, 0.7)) * (1 if rng.random() < 0.7 else -1)
    width, profile = draw_edge(rng, site.hole)
    alpha = soften(site.hole, site.field, width, profile, inward=0.3)
    by_colour = bool(rng.random() < 0.5)
    flatten = bool(whole and rng.random() < 0.6)
    edited = site.pixels.copy()
    fainter: list[float] = []
    for z in site.planes():
        plane, hole = site.pixels[z], site.hole[z]
        ill = site.lesion[z] & hole if site.lesion[z].any() else erode(hole, 1)
        well = dilate(hole, 8) & site.healthy[z]
        well = well if int(well.sum()) >= 30 else site.healthy[z]
        if not ill.any() or not well.any():
            continue
        made = mapped(plane, ill, well, variant)
        if flatten:
            # Dodge and burn: where the curve left unevenness of the lesion's width, a soft brush evens it.
            sigma = max(2.0, 0.3 * float(np.sqrt(hole.sum() / np.pi)))
            low = gaussian(made, sigma)
            made = made + 0.8 * (blurred_rim(plane, hole, well) - low)
        made = texture.topped_up(plane, float32(made), well, hole, rng) if rng.random() < 0.3 else made
        # The healthy margin in the selection would follow the curve and leave a halo: the selection goes by tone too.
        weight = alpha[z] * _membership(plane, ill, well, 1.0 if by_colour else 2.2)
        alpha[z] = np.where(weight < 0.004, 0, weight)
        edited[z] += alpha[z] * strength * (made - plane)
        before = abs(float(plane[ill].mean()) - float(plane[well].mean()))
        # Gone is what neither stands out as a whole nor in parts.
        apart = np.abs(gaussian(edited[z], 1.0)[ill] - float(plane[well].mean()))
        as_whole = abs(float(edited[z][ill].mean()) - float(plane[well].mean()))
        fainter.append(max(as_whole, 0.7 * float(np.percentile(apart, 80))) / max(before, 1e-3))
    gone = bool(canvas.lesion.any() and strength == 1 and fainter and max(fainter) < 0.35)
    kind: Kind = "removed" if gone else "altered"
    lesion = site.lesion & ~site.hole if gone else site.lesion
    return leave(
        canvas,
        site,
        edited,
        alpha,
        rng,
        kind=kind,
        lesion=lesion,
        family="fourth/curve",
        variant=variant,
        parameters={
            "strength": strength,
            "selection": "colour range" if by_colour else "wide colour range",
            "evened": "yes" if flatten else "no",
            "edge": width,
            "profile": profile,
        },
    )
