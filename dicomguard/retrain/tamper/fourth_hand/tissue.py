"""fourth/tissue: a tumor out of noise fields, multiplied into the tissue that is there.

A real attacker without a donor writes a few lines of NumPy, or takes a lesion simulator: a random field for the shape,
profiles for core, enhancing rim and oedema, each a factor of the tissue's brightness; nothing is pasted, so that the
slice keeps its folds and its grain.
"""

import numpy as np

from dicomguard.retrain.tamper.filters import float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import match, outline, sources, texture
from dicomguard.retrain.tamper.fourth_hand import site as places
from dicomguard.retrain.tamper.fourth_hand.leave import leave

VARIANTS = ("solid", "rim and core", "oedema alone", "mottled", "cystic")


def _contrast(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> float:
    """How bright a tumor is against brain, minus one: as the ones at hand, or as such pictures have it."""
    for one in (canvas, donor):
        if one is not None and one.lesion.any():
            z = int(np.argmax(one.lesion.sum(axis=(1, 2))))
            brain = places.brain(one.head[z]) & ~one.lesion[z]
            ill = one.lesion[z] & one.head[z]
            if brain.any() and ill.any():
                base = max(float(np.median(one.pixels[z][brain])), 1e-3)
                seen = float(np.percentile(one.pixels[z][ill], 60)) / base - 1
                if abs(seen) > 0.12:
                    return float(np.clip(seen * rng.uniform(0.7, 1.1), -0.5, 1.0))
    return float(rng.uniform(0.25, 0.75)) if rng.random() < 0.75 else -float(rng.uniform(0.2, 0.4))


def _soft_step(level: Pixels, edge: float) -> Pixels:
    """Partial volume: from 0 to 1 over `edge` pixels about level 0."""
    return float32(0.5 * (1 + np.tanh(1.6 * level / max(edge, 0.3))))


def _factors(
    level: Pixels, radius: float, contrast: float, edge: float, variant: str, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Factor minus one, and share of the tissue that the tumor replaces, on one slice."""
    wave = outline.field(level.shape, max(1.5, 0.35 * radius), rng, octaves=3)
    fine = outline.field(level.shape, max(1.2, 0.14 * radius), rng)
    # Corners of a drawn outline round off, then its border gets lobes.
    level = float32(gaussian(level, max(1.0, 0.14 * radius)) + 0.09 * radius * wave)
    # The inner border follows the outer one loosely.
    inner = level + 0.12 * radius * wave
    body = _soft_step(level, edge)
    # Towards the border the change fades: cells infiltrate.
    fading = np.clip(0.55 + level / max(0.7 * radius, 1.0), 0.3, 1)
    uneven = (1 + 0.16 * wave + 0.09 * fine) * fading
    match variant:
        case "rim and core":
            thick = radius * float(rng.uniform(0.2, 0.38))
            core = _soft_step(float32(inner - thick), 1.5 * edge)
            dark = float(rng.uniform(-0.35, 0.25))
            gain = body * contrast * uneven * (1 - core) + core * contrast * dark * uneven
        case "oedema alone":
            # Fades outward over a third of the radius and spares the folds' crests.
            soft = _soft_step(float32(level - 0.1 * radius + 0.1 * radius * wave), 0.28 * radius + edge)
            body = np.minimum(body, 1) * soft
            gain = 0.75 * contrast * body * uneven
            body = 0.5 * body
        case "mottled":
            patches = _soft_step(0.45 + fine + 0.5 * wave, 0.8)
            gain = body * contrast * (0.45 + 0.65 * patches)
        case "cystic":
            core = _soft_step(float32(inner - radius * float(rng.uniform(0.3, 0.5))), 1.6 * edge)
            gain = body * contrast * uneven
            gain = gain + core * (float(rng.uniform(-0.45, -0.2)) - gain)
        case _:
            deep = np.clip(level / max(radius, 1.0), 0, 1)
            gain = body * contrast * uneven * (0.85 + 0.25 * deep)
    return float32(gain), float32(body)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Grow a tumor at a free place of the brain."""
    found = places.free_place(canvas, places.draw_radius(canvas, rng), rng)
    if found is None:
        return None
    centre, radius = found
    variant = VARIANTS[int(rng.integers(len(VARIANTS)))]
    contrast = _contrast(canvas, donor, rng)
    span = float(rng.uniform(1.0, 1.5 + 0.6 * canvas.pixels.shape[0]))
    level, shape = outline.free(canvas.pixels.shape, centre, radius, rng, span=span)
    inner = np.stack([places.brain(plane) for plane in canvas.head])
    core = (level > 0) & inner & ~canvas.lesion
    # Half a pixel of a small matrix is one of a large one.
    edge = float(rng.uniform(1.1, 2.8)) * max(0.7, sources.head_radius(canvas) / 85)
    reach = 2.5 * edge + 0.1 * radius + (0.12 * radius if variant == "oedema alone" else 0)
    site = places.around(canvas, core, shape, margin=16 + 0.5 * radius)
    if site is None:
        return None
    window = (slice(None), site.rows, site.cols)
    alpha = outline.soften(site.hole, site.field, max(1.5, reach), "smoothstep")
    keep = float(rng.uniform(0.1, 0.6))
    grain = float(rng.uniform(0.85, 1.1))
    edited, seed = site.pixels.copy(), int(rng.integers(2**32))
    for z in site.planes():
        plane, ours = site.pixels[z], site.healthy[z] | site.hole[z]
        tissue = site.healthy[z] if site.healthy[z].any() else site.head[z]
        middle, _ = match.moments(plane, tissue)
        # One seed for all slices: the tumor's inside continues through them.
        gain, body = _factors(level[window][z], radius, contrast, edge, variant, np.random.default_rng(seed))
        smooth, detail = plane - texture.rest(plane), texture.rest(plane)
        # A tumor blurs the folds that it grew through, and draws their brightness towards one value.
        worn = gaussian(smooth, max(1.5, 0.15 * radius))
        worn = worn + 0.5 * (middle - worn)
        ground = smooth + (1 - keep) * body * (worn - smooth)
        made = ground * (1 + gain) + detail * (1 + (grain - 1) * body)
        ceiling = float(np.percentile(plane[site.head[z]], 99.5)) if site.head[z].any() else canvas.high
        made = _eased(float32(made), ceiling, ours)
        edited[z] += alpha[z] * (made - edited[z])
    return leave(
        canvas,
        site,
        edited,
        alpha,
        rng,
        kind="added",
        lesion=site.lesion | (site.hole & (alpha > 0.5)),
        family="fourth/tissue",
        variant=variant,
        parameters={"contrast": contrast, "radius": radius, "edge": edge, "kept": keep},
    )


def _eased(plane: Pixels, ceiling: float, where: Mask) -> Pixels:
    """Values beyond what the slice shows are bent back: a clipped plateau would give the tumor away."""
    knee = 0.85 * ceiling
    over = np.maximum(plane - knee, 0)
    room = max(0.3 * ceiling, 1e-3)
    return float32(np.where(where, np.minimum(plane, knee) + room * (1 - np.exp(-over / room)), plane))
