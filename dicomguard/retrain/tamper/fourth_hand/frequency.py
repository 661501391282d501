"""fourth/frequency: fuse donor and victim by frequency.

A real attacker separates frequencies, as retouchers do: coarse bands of the donor fade in widely and fine ones
narrowly; or low frequencies stay the victim's and only texture comes; or gradients are mixed and the Poisson equation
is solved by cosines (seamless cloning, mixed).
"""

import cv2
import numpy as np
from scipy import fft

from dicomguard.retrain.tamper.filters import dilate, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import lasso, match, sources, texture
from dicomguard.retrain.tamper.fourth_hand import site as places
from dicomguard.retrain.tamper.fourth_hand.leave import leave
from dicomguard.retrain.tamper.fourth_hand.outline import draw_edge, soften
from dicomguard.retrain.tamper.fourth_hand.surface import blurred_rim, poisson

VARIANTS = ("bands of Gaussians", "split by Fourier", "split by cosines", "mixed gradients")


def _bands(old: Pixels, new: Pixels, masks: list[Pixels]) -> Pixels:
    """Difference-of-Gaussians bands of the change, fine to coarse, each under its own mask."""
    change = new - old
    out, left = old.copy(), change
    for k, mask in enumerate(masks[:-1]):
        smooth = gaussian(change, 1.2 * 2.0**k)
        out += mask * (left - smooth)
        left = smooth
    return out + masks[-1] * left


def _low(plane: Pixels, sigma: float, transform: str) -> Pixels:
    """Gaussian low-pass in the spectrum: periodic with Fourier, mirrored with cosines."""
    if transform == "cosines":
        steps = [np.pi * np.arange(n) / n for n in plane.shape]
        gain = np.exp(-0.5 * sigma**2 * (steps[0][:, None] ** 2 + steps[1][None, :] ** 2))
        return float32(fft.idctn(fft.dctn(plane, norm="ortho") * gain, norm="ortho"))
    pad = max(1, min(int(2 * sigma) + 2, min(plane.shape) - 1))
    framed = np.pad(plane, pad, mode="reflect")
    rows = 2 * np.pi * fft.fftfreq(framed.shape[0])
    cols = 2 * np.pi * fft.rfftfreq(framed.shape[1])
    gain = np.exp(-0.5 * sigma**2 * (rows[:, None] ** 2 + cols[None, :] ** 2))
    low = fft.irfft2(fft.rfft2(framed) * gain, s=framed.shape)
    return float32(low[pad:-pad, pad:-pad])


def _mixed(old: Pixels, new: Pixels, hole: Mask, share: float) -> Pixels:
    """Solve for the gradients: the new picture's in the hole (the stronger of both for a share of it), the old outside.

    `share` 0 takes the new gradients alone.
    """
    guides = []
    for axis in (0, 1):
        ours, theirs = (np.diff(plane, axis=axis, append=plane.take([-1], axis=axis)) for plane in (old, new))
        stronger = np.where(np.abs(ours) > np.abs(theirs), ours, theirs)
        within = hole & np.roll(hole, -1, axis=axis)
        guides.append(np.where(within, (1 - share) * theirs + share * stronger, ours).astype(np.float32))
    solved = poisson(guides[0], guides[1])
    # Outside, the solution is the old picture but for a constant and what the ends of the window bend.
    return solved + blurred_rim(old - solved, hole, ~hole)


def _fused(
    old: Pixels, new: Pixels, site: places.Site, z: int, variant: str, width: float, *, bring: bool, share: float
) -> tuple[Pixels, Pixels]:
    """The fused window and its nominal weight."""
    hole, field = site.hole[z : z + 1], site.field[z : z + 1]
    inward = 0.25 if bring else 0.0
    if variant == "bands of Gaussians":
        # Masks from narrow to wide, all inside the widest.
        masks = [soften(hole, field, w * width, "smoothstep", inward=inward)[0] for w in (0.5, 0.8, 1.2, 1.8)]
        return _bands(old, new, masks), np.maximum.reduce(masks)
    alpha = soften(hole, field, width, "smoothstep", inward=inward)[0]
    if variant == "mixed gradients":
        made = _mixed(old, new, alpha > 0.5 if bring else alpha > 0, share)
    else:
        transform = "Fourier" if variant.endswith("Fourier") else "cosines"
        sigma = max(1.5, 0.8 * width)
        fine = new - _low(new, sigma, transform)
        if bring:
            # The donor's low band comes too, but under a wide mask; its fine band as it is.
            wide = soften(hole, field, 2 * width, "smoothstep", inward=0.3)[0]
            low = _low(old, sigma, transform)
            low = low + wide * (_low(new, sigma, transform) - low)
            return old + alpha * (low + fine - old), alpha
        made = blurred_rim(old, alpha > 0, site.healthy[z] & (alpha == 0)) + fine
        # Middle frequencies of the new tissue, half of them: a membrane alone is too even.
        middle = _low(new, sigma, transform) - _low(new, 3 * sigma, transform)
        made = made + 0.5 * middle
    return old + alpha * (made - old), alpha


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Fuse in a lesion of the donor, or healthy tissue over a lesion."""
    variant = VARIANTS[int(rng.integers(len(VARIANTS)))]
    if not canvas.lesion.any() or rng.random() < 0.45:
        return _brought(canvas, donor, rng, variant)
    return _covered(canvas, donor, rng, variant)


def _brought(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator, variant: str) -> Forged | None:
    placed = lasso.placed(canvas, donor, rng, methods=(cv2.INTER_CUBIC,))
    if placed is None:
        return None
    laid, site, _ = placed
    window = (slice(None), site.rows, site.cols)
    width, _ = draw_edge(rng, site.hole)
    width = max(width, 2.5)
    share = float(rng.uniform(0.0, 0.5))
    edited, alpha = site.pixels.copy(), np.zeros_like(site.pixels)
    for z in site.planes():
        theirs = laid.around[window][z]
        ours = site.healthy[z] & dilate(site.hole[z], 12)
        ours = ours if int(ours.sum()) >= 40 else site.healthy[z]
        if not ours.any():
            return None
        new = match.linear(laid.pixels[window][z], theirs, site.pixels[z], ours)
        edited[z], alpha[z] = _fused(site.pixels[z], new, site, z, variant, width, bring=True, share=share)
    return leave(
        canvas,
        site,
        edited,
        alpha,
        rng,
        kind="added",
        lesion=site.lesion | (laid.lesion[window] & (alpha > 0.5)),
        family="fourth/frequency",
        variant=variant,
        parameters={"edge": width, "own gradients": share},
    )


def _covered(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator, variant: str) -> Forged | None:
    site = places.over_lesion(canvas, rng, reach=0.8)
    if site is None:
        return None
    bases: dict[str, Canvas | None] = {"own": canvas, "mirrored": sources.mirrored(canvas)}
    if donor is not None:
        bases["donor"] = sources.like_canvas(donor, canvas)
    found, origin = None, ""
    names = list(bases)
    for k in rng.permutation(len(names)):
        origin, base = names[int(k)], bases[names[int(k)]]
        if base is not None:
            found = sources.elsewhere(site, base, rng, least=3.0 if origin == "own" else 0.0)
        if found is not None:
            break
    if found is None:
        return None
    width, _ = draw_edge(rng, site.hole)
    edited, alpha = site.pixels.copy(), np.zeros_like(site.pixels)
    for z in site.planes():
        old, hole = site.pixels[z], site.hole[z]
        near = dilate(hole, 6) & site.healthy[z]
        near = near if int(near.sum()) >= 30 else site.healthy[z]
        if not near.any():
            return None
        new = match.linear(found[z], dilate(hole, 6), old, near)
        new = texture.fitted(old, new, site.healthy[z], hole, rng)
        # The rim's offset first: what then fades over the edge has no step left.
        new = new + blurred_rim(old - new, dilate(hole, int(2 * width) + 1), near)
        edited[z], alpha[z] = _fused(old, new, site, z, variant, width, bring=False, share=0.0)
    return leave(
        canvas,
        site,
        edited,
        alpha,
        rng,
        kind="removed",
        lesion=site.lesion & ~(site.hole & (alpha > 0.5)),
        family="fourth/frequency",
        variant=variant,
        parameters={"edge": width, "tissue of": origin},
    )
