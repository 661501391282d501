"""Tissue pushed, shrunk or swollen; no foreign pixel.

A real attacker would use GIMP's warp transform or Photoshop's liquify to make a lesion smaller, larger or displaced.
"""

import numpy as np

from dicomguard.retrain.tamper.filters import gaussian, signed_distance, smooth_noise
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.grain import draw_way, grain
from dicomguard.retrain.tamper.region import on_healthy, over_lesion
from dicomguard.retrain.tamper.resample import draw_method, sample


def displaced(plane: Pixels, rows: Pixels, cols: Pixels, method: str) -> tuple[Pixels, Pixels]:
    """Sample the plane at each pixel plus a displacement (rows, cols in pixels); second: weight 0…1 of the motion."""
    row_axis = np.arange(plane.shape[0], dtype=np.float32)[:, None]
    col_axis = np.arange(plane.shape[1], dtype=np.float32)[None, :]
    size = np.hypot(rows, cols)
    moved = sample(plane, (row_axis + rows).astype(np.float32), (col_axis + cols).astype(np.float32), method)
    still = size < 0.04
    # A pixel is called forged from a third of a pixel of motion.
    weight = np.where(still, 0, np.clip(size / 0.35, 0, 1)).astype(np.float32)
    return np.where(still, plane, moved).astype(np.float32), weight


def _to_frame(shape: tuple[int, int]) -> Pixels:
    """1 inside the crop, falling to 0 at its frame, so that motion never crosses it."""
    row = np.minimum(np.arange(shape[0]), np.arange(shape[0])[::-1]).astype(np.float32)
    col = np.minimum(np.arange(shape[1]), np.arange(shape[1])[::-1]).astype(np.float32)
    return np.clip(np.minimum(row[:, None], col[None, :]) / 8, 0, 1)


def mass_effect(core: Mask, push: float) -> tuple[Pixels, Pixels]:
    """Displacement that makes tissue outside the footprint look pushed away by `push` pixels at the outline."""
    distance = gaussian(signed_distance(core), 2.0)
    down, right = np.gradient(distance)
    size = push * np.exp(-np.maximum(-distance, 0) / 7) * _to_frame((core.shape[0], core.shape[1]))
    return (size * down).astype(np.float32), (size * right).astype(np.float32)


def _field(core: Mask, way: str, strength: float, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    shape = (core.shape[0], core.shape[1])
    rows, cols = np.nonzero(core)
    radius = float(np.sqrt(rows.size / np.pi)) + 3
    row_axis = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(rows.mean())
    col_axis = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(cols.mean())
    distance = np.hypot(row_axis, col_axis) / (1.35 * radius)
    bump = np.clip(1 - distance * distance, 0, 1) ** 2 * _to_frame(shape)
    if way == "push":
        turn = float(rng.uniform(0, 2 * np.pi))
        size = np.float32(0.45 * strength * radius)
        return (size * np.sin(turn) * bump).astype(np.float32), (size * np.cos(turn) * bump).astype(np.float32)
    if way == "twirl":
        turn = np.float32(0.9 * strength) * bump
        return (
            (row_axis * (np.cos(turn) - 1) - col_axis * np.sin(turn)).astype(np.float32),
            (row_axis * np.sin(turn) + col_axis * (np.cos(turn) - 1)).astype(np.float32),
        )
    if way == "ripple":
        size = np.float32(2.5 * strength) * bump
        sigma = 0.35 * radius
        return (
            (size * smooth_noise(shape, sigma, rng)).astype(np.float32),
            (size * smooth_noise(shape, sigma, rng)).astype(np.float32),
        )
    # Shrinking samples further out than the pixel lies; swelling samples further in.
    size = np.float32((0.75 if way == "shrink" else -0.42) * strength) * bump
    return (size * row_axis).astype(np.float32), (size * col_axis).astype(np.float32)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    del donor
    region = over_lesion(canvas, rng, margin=28) if rng.random() < 0.7 else None
    region = region or on_healthy(canvas, rng, margin=28)
    if region is None:
        return None
    way = str(rng.choice(["shrink", "swell", "push", "twirl", "ripple"], p=[0.28, 0.28, 0.2, 0.1, 0.14]))
    strength = float(rng.uniform(0.5, 1.0))
    method = draw_method(rng)
    if method == "nearest":
        method = "linear"
    refreshed = draw_way(rng) if rng.random() < 0.4 else "none"
    seed = int(rng.integers(2**32))
    base = region.of(canvas.pixels)
    lesion = region.of_mask(canvas.lesion).copy()
    edited, alpha = base.copy(), np.zeros_like(base)
    for z in np.flatnonzero(region.core.any(axis=(1, 2))):
        field = _field(region.core[z], way, strength, np.random.default_rng(seed))
        edited[z], alpha[z] = displaced(base[z], *field, method)
        warped, _ = displaced(lesion[z].astype(np.float32), *field, "linear")
        lesion[z] = warped > 0.5
        if refreshed != "none":
            smooth = gaussian(edited[z], 0.7)
            noise = grain(smooth, base[z], region.core[z], refreshed, 0.9, rng)
            edited[z] += 0.8 * alpha[z] * (smooth + noise - edited[z])
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="altered",
        lesion=lesion,
        family="liquify",
        variant=way,
        parameters={"interpolation": method, "grain": refreshed, "strength": round(strength, 3)},
    )
