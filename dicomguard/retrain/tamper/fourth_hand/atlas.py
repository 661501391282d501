"""fourth/atlas: the same place of another head.

A real attacker registers a healthy person's slice (or the mirrored slice, or the next one) onto his victim's with what
OpenCV, ANTs or elastix offer, maps the brightness locally and takes what lies at the lesion's place; or he registers a
patient's slice onto a healthy one and takes the lesion.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.tamper.filters import dilate, float32, gaussian, resize
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import match, sources, texture
from dicomguard.retrain.tamper.fourth_hand import site as places
from dicomguard.retrain.tamper.fourth_hand.leave import leave
from dicomguard.retrain.tamper.fourth_hand.outline import draw_edge, soften
from dicomguard.retrain.tamper.fourth_hand.surface import blurred_rim

_REGISTERED_SIDE = 96
_LEAST_CORRELATION = 0.4
_METHODS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "Lanczos": cv2.INTER_LANCZOS4}


@dataclass(frozen=True, slots=True)
class _Way:
    """How the other slice is brought onto the canvas's."""

    # "mirror", "donor" or "neighbour".
    origin: str
    affine: bool
    # Of `_METHODS`.
    method: str

    def __str__(self) -> str:
        return f"{self.origin}, {'affine' if self.affine else 'shift'}, {self.method}"


def _refined(fixed: Pixels, moving: Pixels, mask: Mask, start: NDArray[np.float32]) -> NDArray[np.float32]:
    """Affine Gauss-Newton on normalised brightness, as ECC does.

    OpenCV's own `findTransformECC` (5.0) gave other matrices for equal pictures from one process to the next, and a
    forgery has to follow from its seed.
    """
    size = (fixed.shape[1], fixed.shape[0])
    rows, cols = np.nonzero(mask)
    if rows.size < 50 or min(float(fixed[mask].std()), float(moving.std())) < 1e-3:
        return start
    wanted = fixed[mask]
    wanted = (wanted - wanted.mean()) / max(float(wanted.std()), 1e-6)
    matrix = start.astype(np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    half = max(fixed.shape) / 2
    around = np.stack([cols - size[0] / 2, rows - size[1] / 2], axis=1) / half
    for _ in range(20):
        seen = cv2.warpAffine(moving, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        spread = max(float(seen[mask].std()), 1e-6)
        along_r, along_c = (slope[mask] / spread for slope in np.gradient(seen))
        rest = wanted - (seen[mask] - seen[mask].mean()) / spread
        terms = [slope * part for slope in (along_c, along_r) for part in (around[:, 0], around[:, 1], 1)]
        system = np.stack(terms, axis=1).astype(np.float64)
        step = np.linalg.solve(system.T @ system + 1e-6 * rows.size * np.eye(6), system.T @ rest)
        change = step.reshape(2, 3)
        matrix[:, :2] += change[:, :2] / half
        matrix[:, 2] += change[:, 2] - change[:, :2] @ np.array([size[0] / 2, size[1] / 2]) / half
        if float(np.abs(step).max()) < 0.01:
            break
    return matrix.astype(np.float32)


def registered(fixed: Pixels, moving: Pixels, head: Mask, *, affine: bool) -> NDArray[np.float32]:
    """2×3 matrix from fixed to moving coordinates: the phase's shift, alone or refined; identity where that fails."""
    factor = min(1.0, _REGISTERED_SIDE / max(fixed.shape))
    size = (max(8, round(fixed.shape[0] * factor)), max(8, round(fixed.shape[1] * factor)))
    one, other = (gaussian(resize(plane, size, cv2.INTER_AREA), 1.0) for plane in (fixed, moving))
    spans = [max(float(plane.max()), 1e-3) for plane in (one, other)]
    one, other = one / spans[0], other / spans[1]
    matrix = np.eye(2, 3, dtype=np.float32)
    # Flat pictures correlate with everything.
    if min(float(np.ptp(one)), float(np.ptp(other))) < 1e-3:
        return matrix
    window = cv2.createHanningWindow((size[1], size[0]), cv2.CV_32F)
    (shift_c, shift_r), sure = cv2.phaseCorrelate(one, other, window)
    if sure > 0.1 and max(abs(shift_c), abs(shift_r)) < 0.12 * max(size):
        matrix[:, 2] = (shift_c, shift_r)
    if affine:
        mask = resize(head.astype(np.float32), size) > 0.5
        found = _refined(one, other, mask, matrix)
        if abs(float(np.linalg.det(found[:, :2])) - 1) < 0.35 and np.abs(found[:, 2]).max() < 0.25 * max(size):
            matrix = float32(found)
    matrix[:, 2] /= factor
    return matrix


def _carried(stack: Canvas, onto: Canvas, way: _Way, planes: list[int]) -> Canvas:
    """The stack's slices registered onto the canvas's."""
    pixels, lesion, head = stack.pixels.copy(), stack.lesion.copy(), stack.head.copy()
    size = (onto.pixels.shape[2], onto.pixels.shape[1])
    for z in planes:
        matrix = registered(onto.pixels[z], stack.pixels[z], onto.head[z] & stack.head[z], affine=way.affine)
        flags = _METHODS[way.method] | cv2.WARP_INVERSE_MAP
        pixels[z] = cv2.warpAffine(stack.pixels[z], matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        for out, mask in ((lesion, stack.lesion[z]), (head, stack.head[z])):
            out[z] = (
                cv2.warpAffine(mask.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
                > 0.5
            )
    return Canvas(pixels=pixels, lesion=lesion, head=head, low=stack.low, high=stack.high)


def _alike(one: Pixels, other: Pixels, where: Mask) -> bool:
    """Whether the registered slice looks like the other one at all."""
    if int(where.sum()) < 100:
        return False
    pair = [gaussian(plane, 2.0)[where] for plane in (one, other)]
    if min(float(values.std()) for values in pair) < 1e-3:
        return False
    return float(np.corrcoef(pair[0], pair[1])[0, 1]) > _LEAST_CORRELATION


def _neighbour(canvas: Canvas, z: int, hole: Mask) -> int | None:
    """The nearest slice that is healthy at the place."""
    for step in (1, 2, 3):
        for k in (z - step, z + step):
            if 0 <= k < canvas.pixels.shape[0]:
                overlap = (dilate(canvas.lesion[k], 2) & hole).sum() / max(1, hole.sum())
                if overlap < 0.02:
                    return k
    return None


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Cover a lesion by, or bring one from, the same place of another slice."""
    ways = ["mirror"]
    if donor is not None:
        ways += ["donor", "donor"]
    if canvas.pixels.shape[0] > 1 and canvas.lesion.any():
        ways.append("neighbour")
    for k in rng.permutation(len(ways))[:2]:
        method = tuple(_METHODS)[int(rng.integers(len(_METHODS)))]
        way = _Way(ways[k], bool(rng.random() < 0.75), method)
        bring = ways[k] != "neighbour" and (not canvas.lesion.any() or rng.random() < 0.4)
        forged = (_brought if bring else _covered)(canvas, donor, rng, way)
        if forged is not None:
            return forged
    return None


def _origin(canvas: Canvas, donor: Canvas | None, origin: str) -> Canvas | None:
    if not places.usable(canvas):
        return None
    if origin == "donor":
        return None if donor is None else sources.like_canvas(donor, canvas)
    return sources.mirrored(canvas)


def _covered(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator, way: _Way) -> Forged | None:
    site = places.over_lesion(canvas, rng, reach=1.3)
    if site is None:
        return None
    other: Canvas | None = canvas
    if way.origin == "neighbour":
        order = [
            _neighbour(canvas, z, _spanned(canvas, site.hole, (slice(None), site.rows, site.cols))[z])
            for z in range(canvas.pixels.shape[0])
        ]
        if any(order[z] is None for z in site.planes()):
            return None
        take = [z if k is None else k for z, k in enumerate(order)]
        other = Canvas(
            pixels=canvas.pixels[take],
            lesion=canvas.lesion[take],
            head=canvas.head[take],
            low=canvas.low,
            high=canvas.high,
        )
    else:
        other = _origin(canvas, donor, way.origin)
    if other is None:
        return None
    other = _carried(other, canvas, way, site.planes())
    width, profile = draw_edge(rng, site.hole)
    alpha = soften(site.hole, site.field, width, profile)
    sigma = float(rng.uniform(4.0, 11.0))
    grained = bool(rng.random() < 0.6)
    edited = site.pixels.copy()
    window = (slice(None), site.rows, site.cols)
    theirs, ill, head = other.pixels[window], other.lesion[window], other.head[window]
    for z in site.planes():
        hole, plane = alpha[z] > 0, site.pixels[z]
        # A lesion there, or air, would come along.
        if (dilate(ill[z], 2) & hole).sum() > 0.04 * hole.sum() or (hole & ~head[z]).sum() > 0.08 * hole.sum():
            return None
        ours, tissue = site.healthy[z] & ~hole, head[z] & ~ill[z]
        if not ours.any() or not _alike(theirs[z], plane, site.head[z] & head[z] & ~hole):
            return None
        made = match.local(theirs[z], tissue, plane, ours, sigma, whole=False)
        # What still steps at the rim is carried inward as a membrane.
        made = made + 0.8 * (blurred_rim(plane - made, hole, ours) if ours.sum() > 60 else 0)
        if grained:
            made = texture.fitted(plane, float32(made), ours, site.hole[z], rng)
        edited[z] += alpha[z] * (made - edited[z])
    return leave(
        canvas,
        site,
        edited,
        alpha,
        rng,
        kind="removed",
        lesion=site.lesion & ~(site.hole & (alpha > 0.5)),
        family="fourth/atlas",
        variant=str(way),
        parameters={"neighbourhood": sigma, "edge": width, "profile": profile},
    )


def _brought(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator, way: _Way) -> Forged | None:
    other = _origin(canvas, donor, way.origin)
    if other is None or not other.lesion.any():
        return None
    planes = [int(z) for z in np.flatnonzero(other.lesion.any(axis=(1, 2)))]
    other = _carried(other, canvas, way, planes)
    arrived = other.lesion & canvas.head & ~np.stack([dilate(plane, 3) for plane in canvas.lesion])
    site = places.over_lesion(
        Canvas(pixels=other.pixels, lesion=arrived, head=canvas.head, low=other.low, high=other.high), rng, reach=1.0
    )
    if site is None:
        return None
    at = (slice(None), site.rows, site.cols)
    hole = site.hole & ~np.stack([dilate(plane, 2) for plane in canvas.lesion])[at]
    site = places.around(canvas, _spanned(canvas, hole, at), site.outline, margin=24)
    if site is None:
        return None
    window = (slice(None), site.rows, site.cols)
    theirs, arrived = other.pixels[window], arrived[window] & site.hole
    width, profile = draw_edge(rng, site.hole)
    alpha = soften(site.hole, site.field, width, profile, inward=0.2)
    sigma = float(rng.uniform(9.0, 18.0))
    edited = site.pixels.copy()
    for z in site.planes():
        tissue = other.head[window][z] & ~dilate(other.lesion[window][z], 3) & site.healthy[z]
        ours = site.healthy[z]
        if min(int(tissue.sum()), int(ours.sum())) < 40 or not _alike(theirs[z], site.pixels[z], tissue):
            return None
        made = match.local(theirs[z], tissue, site.pixels[z], ours, sigma, whole=True)
        edited[z] += alpha[z] * (made - edited[z])
    return leave(
        canvas,
        site,
        edited,
        alpha,
        rng,
        kind="added",
        lesion=site.lesion | (arrived & (alpha > 0.5)),
        family="fourth/atlas",
        variant=str(way),
        parameters={"neighbourhood": sigma, "edge": width, "profile": profile},
    )


def _spanned(canvas: Canvas, local: Mask, at: tuple[slice, slice, slice]) -> Mask:
    out = np.zeros_like(canvas.lesion)
    out[at] = local
    return out
