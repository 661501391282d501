"""Remove a lesion by what the cosine transform says about its place, with grain from elsewhere in the slice.

`garcia`: penalised least squares with missing data (Garcia 2010), slices smoothed together. `pocs`: projections between
the known pixels and a shrinking set of strong coefficients (Guleryuz 2006). A real attacker takes Garcia's `inpaintn`
for MATLAB or one of its translations; the projections are a few lines around the cosine transform of any toolbox.
"""

import numpy as np
from scipy import fft

from dicomguard.retrain.tamper.filters import float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.seventh_hand import grain
from dicomguard.retrain.tamper.seventh_hand.fields import depth_share, filled
from dicomguard.retrain.tamper.seventh_hand.place import feather, lesion_site
from dicomguard.retrain.tamper.seventh_hand.seal import seal

VARIANTS = ("garcia", "pocs")
_ROUNDS = 36
# Slices are further apart than pixels: their second differences weigh less.
_ACROSS_SLICES = 0.15


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Fill the hole of a lesion in all its slices at a drawn smoothness."""
    site = lesion_site(canvas, rng, margin=int(rng.integers(14, 26)))
    if site is None:
        return None
    variant = VARIANTS[rng.integers(len(VARIANTS))]
    smoothness, power = float(10 ** rng.uniform(-1.5, 1.0)), rng.random() < 0.6
    coarseness, strength = rng.uniform(2.5, 6.0), rng.uniform(0.3, 0.8)
    alpha = feather(site, rng.uniform(1.5, 4.0), outward=True)
    before, known = site.cut(canvas.pixels), site.healthy & (alpha == 0)
    parts = [grain.part(plane, healthy) for plane, healthy in zip(before, site.healthy, strict=True)]
    start = np.stack([filled(base, one) for (base, _), one in zip(parts, known, strict=True)])
    middle = float(np.median(start[known])) if known.any() else 0.0
    spread = float(np.median(np.abs(start[known] - middle))) if known.any() else 0.0
    # Skull and air count as tissue here, for their edges would ring through the hole.
    start = np.clip(start, middle - 4 * spread, middle + 4 * spread)
    fixed = alpha == 0
    if variant == "garcia":
        smooth = _garcia(start, fixed, smoothness)
    else:
        smooth = _pocs(start, fixed, max(6 * spread * smoothness**0.25, 0.5))
    edited = before.copy()
    for z in site.slices:
        base, residual = parts[z]
        lowest, highest = np.quantile(base[known[z]], (0.03, 0.97)) if known[z].any() else (base.min(), base.max())
        texture = grain.more(base - gaussian(base, coarseness), site.healthy[z], rng, isotropic=True)
        new = float32(np.clip(smooth[z] + strength * texture * depth_share(site.hole[z], 4.0), lowest, highest))
        noise = grain.more(residual, site.healthy[z], rng)
        noise = grain.matched(noise, new, site.hole[z], before[z], site.healthy[z])
        edited[z] = grain.mixed(parts[z], (new, noise), alpha[z], power=power)
    parameters = {"smoothness": round(smoothness, 3), "texture": round(strength, 2)}
    return seal(
        canvas, site, edited, alpha, rng, kind="removed", family="dctfill", variant=variant, parameters=parameters
    )


def _garcia(stack: Pixels, known: Mask, smoothness: float) -> Pixels:
    """Z×h×w smooth everywhere; begins stiff and loosens, so that the hole is spanned before it is detailed."""
    waves = [2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in stack.shape]
    stiff = (_ACROSS_SLICES * waves[0][:, None, None] + waves[1][None, :, None] + waves[2][None, None, :]) ** 2
    smooth = stack
    for penalty in np.geomspace(1e3, smoothness, _ROUNDS):
        moved = np.where(known, stack, smooth)
        again = fft.idctn(fft.dctn(moved, norm="ortho") / (1 + np.float32(penalty) * float32(stiff)), norm="ortho")
        # Garcia's relaxation, which halves the rounds.
        smooth = smooth + 1.4 * (again - smooth)
    return float32(smooth)


def _pocs(stack: Pixels, known: Mask, weakest: float) -> Pixels:
    """Each slice by its own coefficients above a threshold that falls to `weakest` (stored values, orthonormal)."""
    current = stack
    strongest = max(float(np.abs(stack - stack.mean()).max()) * 8, 2 * weakest)
    for threshold in np.geomspace(strongest, weakest, _ROUNDS):
        waves = fft.dctn(current, axes=(1, 2), norm="ortho")
        waves[np.abs(waves) < threshold] = 0
        current = np.where(known, stack, fft.idctn(waves, axes=(1, 2), norm="ortho"))
    return float32(current)
