"""An edit made on a reduced slice, then enlarged and given back its high frequencies.

Small generative networks (Isola et al., CVPR 2017; Rombach et al., CVPR 2022) work on a reduced grid: what they leave
is too smooth, and an attacker enlarges it (Lanczos, bicubic, zero-filling in k-space as scanners do) and takes the
missing frequencies from a clean area of the same slice. The network's answer, the mean of what is plausible there, is
had here from the mean of many look-alikes.
"""

import cv2
import numpy as np
from scipy import fft

from dicomguard.retrain.tamper.filters import dilate, float32, gaussian, noise_sigma, resize
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.sixth_hand.bands import joined
from dicomguard.retrain.tamper.sixth_hand.borrow import graft, lookalikes
from dicomguard.retrain.tamper.sixth_hand.closing import seal, settle
from dicomguard.retrain.tamper.sixth_hand.grain import ring, texture
from dicomguard.retrain.tamper.sixth_hand.scene import Site, head_scale, healthy, lesion_site, soft
from dicomguard.retrain.tamper.sixth_hand.seamcut import matched

ENLARGERS = ("lanczos", "bicubic", "zero-filling")
GRAINS = ("borrowed", "gaussian", "rician")

_METHODS = {"lanczos": cv2.INTER_LANCZOS4, "bicubic": cv2.INTER_CUBIC}
_LOOKALIKES = 5


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    possible = [kind for kind, there in (("added", donor is not None), ("removed", canvas.lesion.any())) if there]
    if not possible:
        return None
    kind: Kind = "added" if rng.choice(possible) == "added" else "removed"
    enlarger, grained = str(rng.choice(ENLARGERS)), str(rng.choice(GRAINS))
    factor = float(rng.choice((1.5, 2.0, 2.5, 3.0)))
    made = _removed(canvas, rng) if kind == "removed" else _added(canvas, donor, rng)
    if made is None:
        return None
    drawn, alpha, around, lesion = made
    edited = canvas.pixels.copy()
    for z in np.flatnonzero(alpha.any(axis=(1, 2))):
        coarse = enlarged(drawn[z], factor, enlarger)
        edited[z] = _restored(coarse, canvas.pixels[z], around[z], alpha[z], factor, enlarger, grained, rng)
    settled = settle(canvas, edited, alpha, around, rng)
    return seal(
        canvas,
        settled,
        alpha,
        kind=kind,
        lesion=lesion,
        family="lowres",
        variant=f"{enlarger}-{grained}-{kind}",
        parameters={"factor": factor},
    )


def _removed(canvas: Canvas, rng: np.random.Generator) -> tuple[Pixels, Pixels, Mask, Mask] | None:
    site = lesion_site(canvas, rng)
    found = lookalikes(canvas, site, _LOOKALIKES) if site is not None else []
    if site is None or not found:
        return None
    return _mean_of(canvas, site, found, rng), site.alpha, site.healthy, site.rest


def _mean_of(canvas: Canvas, site: Site, found: list[Pixels], rng: np.random.Generator) -> Pixels:
    """Look-alikes evened out to the place, the best one counting most: a blurred, plausible answer."""
    shares = rng.dirichlet(3.0 / (1 + np.arange(len(found))))
    drawn = np.zeros_like(canvas.pixels)
    for share, source in zip(shares, found, strict=True):
        for z in np.flatnonzero(site.core.any(axis=(1, 2))):
            drawn[z] += np.float32(share) * joined(source[z], canvas.pixels[z], site.healthy[z], site.hole[z])
    return np.where(site.hole, drawn, canvas.pixels).astype(np.float32)


def _added(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> tuple[Pixels, Pixels, Mask, Mask] | None:
    laid = graft(canvas, donor, rng)
    if laid is None:
        return None
    scale = head_scale(canvas)
    grow, feather = rng.uniform(0.5, 1.5) * scale, max(2.5, rng.uniform(3, 5) * scale)
    drawn, alpha = canvas.pixels.copy(), np.zeros_like(canvas.pixels)
    around = healthy(canvas, np.stack([dilate(plane, round(grow + feather) + 1) for plane in laid.core]))
    for z in np.flatnonzero(laid.core.sum(axis=(1, 2)) >= 12):
        core = laid.core[z]
        beside = dilate(core, 12) & laid.healthy[z] & ~dilate(core, 1)
        usable = gaussian((laid.inner[z] | dilate(core, 1)).astype(np.float32), 1.0)
        alpha[z] = soft(core, canvas.head[z], grow=grow, feather=feather) * (usable > 0.5) * usable
        pasted = matched(laid.pixels[z], canvas.pixels[z], beside, ring(core, around[z], 16), dilate(core, 2))
        drawn[z] = np.where(alpha[z] > 0, pasted, canvas.pixels[z])
    return drawn, alpha, around, canvas.lesion | (laid.core & (alpha > 0.5))


def enlarged(plane: Pixels, factor: float, enlarger: str) -> Pixels:
    """The slice reduced by the factor and brought back to its size."""
    rows, cols = plane.shape
    small = (max(4, round(rows / factor)), max(4, round(cols / factor)))
    if enlarger == "zero-filling":
        return _zero_filled(plane, small)
    reduced = cv2.resize(plane, small[::-1], interpolation=cv2.INTER_AREA)
    return resize(float32(reduced), (rows, cols), _METHODS[enlarger])


def _zero_filled(plane: Pixels, small: tuple[int, int]) -> Pixels:
    """Only the middle of k-space, with a tapered edge against ringing."""
    windows = []
    for full, kept in zip(plane.shape, small, strict=True):
        away = np.abs(np.fft.fftfreq(full) * full) / (kept / 2)
        windows.append(np.where(away < 0.8, 1, np.cos(np.clip((away - 0.8) / 0.2, 0, 1) * np.pi / 2) ** 2))
    spectrum = fft.fft2(plane) * np.outer(windows[0], windows[1])
    return float32(fft.ifft2(spectrum).real)


def _restored(
    coarse: Pixels,
    twin: Pixels,
    around: Mask,
    alpha: Pixels,
    factor: float,
    enlarger: str,
    grained: str,
    rng: np.random.Generator,
) -> Pixels:
    """High frequencies back: a clean area's own, or drawn by their spectrum, as Gaussian or Rician noise."""
    if grained == "borrowed":
        lost = twin - enlarged(twin, factor, enlarger)
        return coarse + _clean_patch(lost, around, alpha > 0, rng)
    lost_texture = texture(twin - gaussian(twin, factor), around, rng, fine=0.5, coarse=4.0)
    if grained == "gaussian":
        return coarse + lost_texture
    sigma = noise_sigma(twin, ring(alpha > 0, around, 12))
    real = coarse + lost_texture + sigma * rng.standard_normal(coarse.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(coarse.shape, dtype=np.float32)
    return float32(np.hypot(np.maximum(real, 0), imaginary))


def _clean_patch(lost: Pixels, around: Mask, hole: Mask, rng: np.random.Generator) -> Pixels:
    """What reduction takes from healthy tissue elsewhere, moved over the hole; of several places the soundest."""
    rows, cols = np.nonzero(hole)
    spots = np.argwhere(around)
    if not len(spots):
        return np.zeros_like(lost)
    best, clean = -1.0, np.zeros_like(lost)
    for spot in spots[rng.integers(len(spots), size=12)]:
        shift = (round(float(rows.mean())) - int(spot[0]), round(float(cols.mean())) - int(spot[1]))
        share = float(np.roll(around, shift, (0, 1))[hole].mean())
        if share > best:
            best, clean = share, np.where(np.roll(around, shift, (0, 1)), np.roll(lost, shift, (0, 1)), 0)
    return float32(clean)
