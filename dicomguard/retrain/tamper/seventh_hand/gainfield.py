"""Hide or feign a lesion by a smooth gain alone, as a coil too near or a bias field wrongly removed would.

No pixel is replaced: each is multiplied, so all anatomy stays. The field is a sum of loop sensitivities (Biot-Savart on
the axis, Roemer 1990) or a multilevel spline lattice (Lee 1997); noise is multiplied too, or spared. A real attacker
dodges and burns with a wide soft brush in a photo editor, or bends the field that a bias correction found (N4 of ITK
and ANTs: such a lattice) before it is divided out.
"""

import math

import cv2
import numpy as np
from scipy import linalg

from dicomguard.retrain.tamper.filters import float32, gaussian, resize
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.seventh_hand import grain, tissue
from dicomguard.retrain.tamper.seventh_hand.fields import depth_share, filled
from dicomguard.retrain.tamper.seventh_hand.place import Site, feather, healthy_site, lesion_site
from dicomguard.retrain.tamper.seventh_hand.seal import seal

FIELDS = ("coils", "lattice")
NOISES = ("spared", "multiplied")
VARIANTS = tuple(f"{field}-{noise}" for field in FIELDS for noise in NOISES)
KINDS: tuple[Kind, ...] = ("removed", "altered", "added")
_STRONGEST = 1.2
# Share of the lesion's contrast that may be left of one that counts as removed.
_MISSED = 0.33
_FIT_PX = 1200


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Fit a smooth log gain to what the kind wants and apply it in all slices; coils and spacing are drawn once."""
    kind = KINDS[rng.integers(len(KINDS))] if canvas.lesion.any() else "added"
    site = (healthy_site if kind == "added" else lesion_site)(canvas, rng, margin=16)
    if site is None:
        return None
    field, noise = FIELDS[rng.integers(len(FIELDS))], NOISES[rng.integers(len(NOISES))]
    alpha = feather(site, rng.uniform(2.0, 5.0), outward=kind != "added")
    fineness, low = rng.uniform(0.8, 1.8), np.float32(canvas.low)
    strength = _strength(canvas, donor, kind, rng)
    edited, asked, missed = site.cut(canvas.pixels).copy(), 0.0, 0.0
    for z in site.slices:
        base, residual = grain.part(edited[z], site.healthy[z])
        wanted = _wanted(base - low, site, z, alpha[z], kind, strength)
        fit = _coils if field == "coils" else _lattice
        smooth = np.clip(fit(wanted, alpha[z] > 0, fineness, rng), -_STRONGEST, _STRONGEST)
        lesion = site.hole[z] & canvas.lesion[z, site.rows, site.cols]
        asked += float(np.abs(wanted[lesion]).sum())
        missed += float(np.abs(wanted - smooth)[lesion].sum())
        gain = np.exp(smooth * np.minimum(1, 2 * alpha[z]))
        spared = residual if noise == "spared" else residual * gain
        edited[z] = (base - low) * gain + low + spared
    # A smooth gain cannot take away a thin rim: then the lesion is only another one.
    if kind == "removed" and missed > _MISSED * asked:
        kind = "altered"
    parameters = {"strength": round(strength, 2), "fineness": round(fineness, 2)}
    return seal(
        canvas, site, edited, alpha, rng,
        kind=kind, family="gainfield", variant=f"{field}-{noise}", parameters=parameters,
    )  # fmt: skip


def _strength(canvas: Canvas, donor: Canvas | None, kind: Kind, rng: np.random.Generator) -> float:
    """Added: log gain in the middle. Else the share of the lesion's contrast that is taken away (negative: given)."""
    if kind == "added":
        return tissue.draw_contrast(canvas, donor, rng)
    if kind == "removed":
        return float(rng.uniform(0.9, 1.0))
    return float(rng.uniform(0.35, 0.6) if rng.random() < 0.6 else rng.uniform(-0.6, -0.35))


def _wanted(signal: Pixels, site: Site, z: int, alpha: Pixels, kind: Kind, strength: float) -> Pixels:
    """h×w log gain that would do it exactly; zero where nothing is wanted."""
    if kind == "added":
        # Ends of the run are fainter.
        share = math.sqrt(float(site.hole[z].sum()) / float(site.hole.sum(axis=(1, 2)).max()))
        width = 1 + 0.5 * math.sqrt(float(site.hole[z].sum()) / math.pi)
        return float32(strength * share * (0.5 + 0.5 * depth_share(site.hole[z], width)) * site.hole[z])
    shown = np.maximum(signal, 1)
    around = filled(shown, site.healthy[z] & (alpha == 0))
    ratio = np.clip(np.log(np.maximum(around, 1) / shown), -_STRONGEST, _STRONGEST)
    return float32(np.where(alpha > 0, strength * ratio, 0))


def _coils(wanted: Pixels, where: Mask, fineness: float, rng: np.random.Generator) -> Pixels:
    """Least squares by up to 110 loops, wide ones and narrow ones; a ridge keeps neighbours from fighting."""
    places = np.argwhere(where)
    radius = math.sqrt(len(places) / math.pi)
    loops = places[rng.integers(len(places), size=min(110, 8 + len(places) // 10))]
    widths = np.maximum(radius * rng.uniform(0.08, 0.7, size=len(loops)), 1.5 + fineness)
    rows, cols = np.ogrid[: wanted.shape[0], : wanted.shape[1]]
    apart = (rows - loops[:, 0, None, None]) ** 2 + (cols - loops[:, 1, None, None]) ** 2
    waves = (1 + apart / widths[:, None, None] ** 2) ** -1.5
    fitted = places[rng.permutation(len(places))[:_FIT_PX]]
    seen = waves[:, fitted[:, 0], fitted[:, 1]]
    own = seen @ seen.T + 1e-4 * len(fitted) * np.eye(len(loops))
    currents = linalg.solve(own, seen @ wanted[fitted[:, 0], fitted[:, 1]], assume_a="pos")
    return float32(np.tensordot(currents, waves, axes=1))


def _lattice(wanted: Pixels, where: Mask, fineness: float, rng: np.random.Generator) -> Pixels:
    """Cubic interpolation of ever finer means of what is still missing, down to `fineness` times 3 px."""
    field, weight = np.zeros_like(wanted), where.astype(np.float32)
    for spacing in (12.0, 7.0, 3.0):
        sigma = spacing * fineness / 2
        missing = float32(gaussian((wanted - field) * weight, sigma) / np.maximum(gaussian(weight, sigma), 1e-2))
        shape = (max(3, round(wanted.shape[0] / (2 * sigma))), max(3, round(wanted.shape[1] / (2 * sigma))))
        field += resize(resize(missing, shape, cv2.INTER_AREA), wanted.shape, cv2.INTER_CUBIC)
    return float32(field)
