"""A mass computed from relaxation times.

An attacker with a simulator gives core, rim and oedema the signal that the sequence would give them, pushes the
surroundings aside and adds the scanner's Rician noise where his model left none.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dicomguard.retrain.tamper.fifth_hand.edge import Drawn, close_edit, kept_inside, lesion_after, tidy
from dicomguard.retrain.tamper.fifth_hand.grain import Grain, measure, missing
from dicomguard.retrain.tamper.fifth_hand.places import Growth, brain, free_growth, grids, unit
from dicomguard.retrain.tamper.filters import depth_inside, float32, gaussian, remap, smooth_noise
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tissue:
    """Relaxation times in milliseconds, proton density relative to white matter."""

    t1: float
    t2: float
    density: float


_WHITE = _Tissue(t1=800, t2=75, density=1.0)
_TISSUES = {
    "necrosis": _Tissue(t1=2600, t2=350, density=1.2),
    "cyst": _Tissue(t1=3400, t2=900, density=1.25),
    "cellular": _Tissue(t1=1350, t2=115, density=1.15),
    "enhancing": _Tissue(t1=480, t2=85, density=1.1),
    "oedema": _Tissue(t1=1150, t2=110, density=1.1),
}
# Sequence, name, core, rim.
_MASSES = (
    ("flair", "solid", "cellular", "cellular"),
    ("flair", "necrotic", "necrosis", "cellular"),
    ("t1c", "necrotic", "necrosis", "enhancing"),
    ("t1c", "solid", "enhancing", "enhancing"),
    ("t1c", "cystic", "cyst", "cellular"),
)
_SUBPIXELS = (-1 / 3, 0.0, 1 / 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """Signal of core, rim and oedema relative to normal tissue; geometry in radii of the mass."""

    core: float
    rim: float
    oedema: float
    thickness: float
    spread: float
    # Width of the border in pixels, pixels of mass effect.
    border: float
    push: float
    # H×W unit fields: they vary the rim's thickness and the oedema's front, and mottle the mass.
    uneven: Pixels
    mottle: Pixels


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Grow a mass at a free place; None where the head has no room."""
    growth = free_growth(canvas, rng)
    if growth is None:
        return None
    sequence, mass, core, rim = _MASSES[int(rng.integers(len(_MASSES)))]
    depth = float(rng.uniform(0.45, 1.0))
    scale, shape = unit(canvas), (canvas.pixels.shape[1], canvas.pixels.shape[2])
    model = _Model(
        core=1 + depth * (_relative(core, sequence) - 1),
        rim=1 + depth * (_relative(rim, sequence) - 1),
        oedema=1 + depth * (_relative("oedema", sequence) - 1),
        thickness=float(rng.uniform(0.2, 0.5)),
        spread=float(rng.uniform(0.2, 0.8)),
        border=float(rng.uniform(0.6, 2.0) * scale),
        push=float(rng.uniform(0.6, 2.5) * scale),
        uneven=smooth_noise(shape, growth.radius / 5, rng),
        mottle=smooth_noise(shape, 2.5 * scale, rng) + smooth_noise(shape, growth.radius / 3, rng),
    )
    edited, alpha = canvas.pixels.copy(), np.zeros_like(canvas.pixels)
    tissue = brain(canvas)
    for z in growth.site.run:
        # Fluid and tumor spread in tissue, not through skull.
        room = gaussian(float32(tissue[z]), 1.5 * scale) * growth.site.weights[z]
        clean, alpha[z] = _imaged(canvas, growth, z, model, room)
        edited[z] = _noisy(clean, measure(canvas.pixels[z], canvas.head[z]), alpha[z], rng)
    alpha = kept_inside(canvas, alpha)
    # Where the weight is all but gone the model runs out into the untouched slice.
    edited = canvas.pixels + np.clip(alpha / 0.15, 0, 1) * (edited - canvas.pixels)
    edited, passed = tidy(edited, alpha, rng)
    drawn: Drawn = {
        "radius": growth.radius,
        "contrast": depth,
        "rim": model.thickness,
        "oedema": model.spread,
        "border": model.border,
        "push": model.push,
        "pass": passed,
    }
    return close_edit(
        canvas,
        edited,
        alpha,
        kind="added",
        lesion=lesion_after(canvas, growth.site, alpha, "added"),
        family="physics",
        variant=f"{sequence}, {mass}",
        parameters=drawn,
    )


def _imaged(canvas: Canvas, growth: Growth, z: int, model: _Model, room: Pixels) -> tuple[Pixels, Pixels]:
    """H×W slice with the mass but without its noise, and how much of every pixel is the model's."""
    plane = canvas.pixels[z]
    moved, reach = _pushed(canvas, growth, z, model.push * float(growth.site.weights[z, 0, 0]))
    whole = room * _partial(growth, z, np.zeros_like(plane), model.border)
    core = np.minimum(whole, room * _partial(growth, z, model.thickness * (1 + 0.5 * model.uneven), model.border))
    outward = np.clip(1 + growth.inside(z) / model.spread + 0.35 * model.uneven, 0, 1)
    wet = room * outward**2 * (3 - 2 * outward) * (1 - whole)
    signal = _calm_level(plane, growth, z, brain(canvas)[z]) * (model.core * core + model.rim * (whole - core))
    soaked = moved * (1 + wet * np.float32(model.oedema - 1))
    clean = soaked * (1 - whole) + signal * (1 + np.float32(0.04) * model.mottle)
    # The brightest stored value is the slice's own: nothing new outshines it.
    clean = np.minimum(clean, np.maximum(np.float32(0.97 * plane.max()), plane))
    return float32(clean), float32(np.maximum(np.maximum(whole, wet), np.clip(reach, 0, 1)))


def _signal(tissue: _Tissue, sequence: str) -> float:
    """Spin echo after contrast (T1c), or inversion recovery that nulls water (FLAIR)."""
    if sequence == "t1c":
        return float(tissue.density * (1 - np.exp(-600 / tissue.t1)) * np.exp(-12 / tissue.t2))
    recovery = 1 - 2 * np.exp(-2400 / tissue.t1) + np.exp(-9000 / tissue.t1)
    return float(tissue.density * abs(recovery) * np.exp(-110 / tissue.t2))


def _relative(name: str, sequence: str) -> float:
    return _signal(_TISSUES[name], sequence) / _signal(_WHITE, sequence)


def _partial(growth: Growth, z: int, depth: Pixels, border: float) -> Pixels:
    """H×W share of every pixel that lies deeper than `depth` inside the mass, from nine points a pixel."""
    shares = [float32(growth.inside(z, down, right) > depth) for down in _SUBPIXELS for right in _SUBPIXELS]
    return gaussian(np.mean(shares, axis=0, dtype=np.float32), border)


def _pushed(canvas: Canvas, growth: Growth, z: int, push: float) -> tuple[Pixels, Pixels]:
    """H×W slice pushed outwards around the mass, and by how many pixels."""
    plane = canvas.pixels[z]
    rows, cols = grids(plane)
    down, right = rows - growth.row, cols - growth.col
    away = np.hypot(down, right)
    reach = push * np.exp(-np.maximum(0, away - growth.radius) / (0.5 * growth.radius))
    # Nothing moves at the skull, and the centre has no direction.
    reach = reach * np.clip(depth_inside(canvas.head[z]) / (12 * unit(canvas)) - 0.3, 0, 1)
    reach = float32(reach * np.clip(away / growth.radius, 0, 1))
    back = reach / np.maximum(away, 1)
    moved = remap(plane, float32(rows - back * down), float32(cols - back * right), cv2.INTER_CUBIC)
    return np.where(reach > 0.05, moved, plane), reach


def _calm_level(plane: Pixels, growth: Growth, z: int, tissue: Mask) -> float:
    """Grey level of normal tissue about the mass."""
    near = tissue & (growth.inside(z) > -1.0)
    chosen = plane[near] if near.any() else plane
    return float(np.median(chosen))


def _noisy(model: Pixels, grain: Grain, touched: Pixels, rng: np.random.Generator) -> Pixels:
    """H×W magnitude of the model with complex noise, as much of it as the model lacks."""
    lack = missing(model, grain) * np.clip(touched, 0, 1)
    shape = (model.shape[0], model.shape[1])
    real, imaginary = model + lack * grain.field(shape, rng), lack * grain.field(shape, rng)
    # Signed models do not occur; the sign is kept so that a stored zero level below zero is not folded up.
    return float32(np.sign(real) * np.hypot(real, imaginary))
