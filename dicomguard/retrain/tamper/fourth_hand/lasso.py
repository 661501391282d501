"""fourth/lasso: cut a lesion out with the lasso and paste it.

A real attacker takes the polygon lasso of a photo editor around a lesion of another study, turns and scales the piece
(each program interpolates in its own way, some twice), matches its brightness to the new surroundings and pastes with
a feathered edge; a careful one gives the piece the grain of the slice.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import dilate, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import match, outline, sources, texture
from dicomguard.retrain.tamper.fourth_hand import site as places
from dicomguard.retrain.tamper.fourth_hand.leave import leave
from dicomguard.retrain.tamper.fourth_hand.sources import Laid

METHODS = {
    "nearest": (cv2.INTER_NEAREST,),
    "linear": (cv2.INTER_LINEAR,),
    "cubic": (cv2.INTER_CUBIC,),
    "Lanczos": (cv2.INTER_LANCZOS4,),
    "linear, then cubic": (cv2.INTER_LINEAR, cv2.INTER_CUBIC),
    "area, then Lanczos": (cv2.INTER_AREA, cv2.INTER_LANCZOS4),
}
MATCHES = ("rings", "histogram", "mean and spread")


def placed(
    canvas: Canvas, donor: Canvas | None, rng: np.random.Generator, *, methods: tuple[int, ...]
) -> tuple[Laid, places.Site, dict[str, float | str]] | None:
    """A lesion of the donor (or of the canvas itself) laid at a free place of the brain."""
    piece = None if donor is None else sources.lesion_of(donor, rng)
    origin = "donor"
    if piece is None:
        piece, origin = sources.lesion_of(canvas, rng), "own"
    if piece is None:
        return None
    scale = sources.head_radius(canvas) / piece.head_radius * float(rng.uniform(0.7, 1.15))
    # A tumor of more than a quarter of the head's width moves its surroundings; pasted, it cannot.
    scale = min(scale, 0.28 * sources.head_radius(canvas) / piece.radius)
    found = places.free_place(canvas, scale * piece.radius, rng)
    if found is None:
        return None
    centre, radius = found
    # Less than half of a lesion's size is another lesion; and grain that coarse or fine shows.
    scale = scale * max(radius / max(scale * piece.radius, 1e-3), 0.5)
    turn, flipped = float(np.radians(rng.normal(0, 25))), bool(rng.random() < 0.5)
    laid = sources.lay(canvas, piece, centre, rng, scale=scale, turn=turn, flipped=flipped, methods=methods)
    inner = np.stack([places.brain(plane) for plane in canvas.head])
    # Where the piece falls on a lesion that is there, nothing new would be added.
    ill = np.stack([dilate(plane, 2) for plane in canvas.lesion])
    core = laid.lesion & inner & ~ill
    z = centre[0]
    # What lies half in the skull was no good place.
    if int(core[z].sum()) < max(24, 0.75 * int(laid.lesion[z].sum())):
        return None
    hole, name = outline.covering(laid.pixels, core, rng)
    hole &= inner & laid.tissue & ~ill
    site = places.around(canvas, hole, name, margin=16 + 0.4 * radius)
    if site is None:
        return None
    drawn: dict[str, float | str] = {"scale": scale, "turn": float(np.degrees(turn)), "lesion of": origin}
    return laid, site, drawn


def _in_rings(plane: Pixels, theirs: Mask, target: Pixels, ours: Mask, hole: Mask) -> Pixels:
    """Mean and spread of rings around the hole, near and far, each fading into the next; the near one rules within."""
    near = dilate(hole, 4)
    made = match.linear(plane, theirs & near & ~hole, target, ours & near & ~hole)
    far = dilate(hole, 10) & ~near
    if int((theirs & far).sum()) < 40 or int((ours & far).sum()) < 40:
        return made
    outer = match.linear(plane, theirs & far, target, ours & far)
    weight = gaussian(near.astype(np.float32), 2.0)
    return float32(weight * made + (1 - weight) * outer)


def matched(plane: Pixels, theirs: Mask, target: Pixels, ours: Mask, hole: Mask, way: str) -> Pixels:
    """The piece in the brightness of its new surroundings."""
    if way == "histogram":
        return match.quantiles(plane, theirs, target, ours)
    ring = dilate(hole, 4) & ~hole
    if way == "rings" and min(int((theirs & ring).sum()), int((ours & ring).sum())) >= 40:
        return _in_rings(plane, theirs, target, ours, hole)
    return match.linear(plane, theirs, target, ours)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Paste a lesion of the donor."""
    titles = tuple(METHODS)
    title = titles[int(rng.integers(len(titles)))]
    found = placed(canvas, donor, rng, methods=METHODS[title])
    if found is None:
        return None
    laid, site, drawn = found
    window = (slice(None), site.rows, site.cols)
    way = MATCHES[int(rng.integers(len(MATCHES)))]
    width, profile = outline.draw_edge(rng, site.hole)
    alpha = outline.soften(site.hole, site.field, width, profile, inward=float(rng.uniform(0.1, 0.5)))
    grained = bool(rng.random() < 0.5)
    edited = site.pixels.copy()
    for z in site.planes():
        theirs, ours = laid.around[window][z], site.healthy[z]
        if not theirs.any() or not ours.any():
            return None
        made = matched(laid.pixels[window][z], theirs, site.pixels[z], ours, site.hole[z], way)
        if grained:
            made = texture.fitted(site.pixels[z], made, ours, site.hole[z], rng)
        edited[z] += alpha[z] * (made - edited[z])
    return leave(
        canvas,
        site,
        edited,
        alpha,
        rng,
        kind="added",
        lesion=site.lesion | (laid.lesion[window] & (alpha > 0.5)),
        family="fourth/lasso",
        variant=f"{way}, {title}",
        parameters={**drawn, "grain": "matched" if grained else "own", "edge": width, "profile": profile},
    )
