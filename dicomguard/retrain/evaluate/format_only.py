"""A classifier that sees the file but not the picture: what it tells apart, a detector could have learnt by mistake.

Features of a slice that have nothing to do with its content, and gradient boosting of stumps (Friedman 2001) over
them, cross-validated by patient. Forged and authentic twins must look alike to it: AUC 0.45 to 0.55.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from dicomguard.retrain.tamper.filters import noise_sigma
from dicomguard.retrain.tamper.forged import Mask

NAMES = (
    "rows", "columns", "bits stored", "elements", "bytes", "smallest", "largest", "values used", "unused between",
    "odd share", "noise level", "spectrum cut-off", "high-frequency share",
)  # fmt: skip
_ROUNDS = 60
_RATE = 0.3
_CUTS = 24
_FOLDS = 5


def features(path: Path, head: Mask) -> tuple[float, ...]:
    """What a DICOM file of one slice says beside its content, in the order of NAMES."""
    dataset = pydicom.dcmread(path)
    plane = dataset.pixel_array.astype(np.float32)
    used = np.unique(plane)
    span = float(used[-1] - used[0]) + 1
    spectrum = _radial_spectrum(plane)
    above = np.flatnonzero(spectrum > 1e-4 * spectrum[1])
    return (
        float(dataset.Rows),
        float(dataset.Columns),
        float(dataset.BitsStored),
        float(len(dataset)),
        float(path.stat().st_size),
        float(used[0]),
        float(used[-1]),
        float(len(used)),
        span - len(used),
        float((plane % 2 == 1).mean()),
        noise_sigma(plane, head),
        float(above[-1]) / len(spectrum),
        float(spectrum[len(spectrum) // 2 :].sum() / spectrum.sum()),
    )


def _radial_spectrum(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean power by spatial frequency, 32 rings up to Nyquist."""
    power = np.abs(np.fft.fftshift(np.fft.fft2(plane - plane.mean()))) ** 2
    down, right = (np.fft.fftshift(np.fft.fftfreq(side)) for side in plane.shape)
    ring = np.minimum((np.hypot(down[:, None], right[None, :]) * 2 * 32).astype(int), 32).ravel()
    sums = np.bincount(ring, weights=power.ravel(), minlength=33)[:32]
    return sums / np.maximum(np.bincount(ring, minlength=33)[:32], 1)


@dataclass(frozen=True, slots=True)
class _Stump:
    feature: int
    cut: float
    below: float
    above: float


def _boosted(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[_Stump]:
    """Stumps that add up to the logit of y in N×F features."""
    cuts = [np.unique(np.quantile(column, np.linspace(0, 1, _CUTS + 2)[1:-1])) for column in x.T]
    right = [column[:, None] > cut[None, :] for column, cut in zip(x.T, cuts, strict=True)]
    logit, stumps = np.zeros(len(y)), []
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-logit))
        gradient, curvature = y - chance, np.maximum(chance * (1 - chance), 1e-6)
        best: tuple[float, _Stump] | None = None
        for index, side in enumerate(right):
            g, h = gradient @ side, curvature @ side
            rest_g, rest_h = gradient.sum() - g, curvature.sum() - h
            # One unit of curvature holds leaves of few slices near 0.
            gain = g**2 / (h + 1) + rest_g**2 / (rest_h + 1)
            at = int(np.argmax(gain))
            if best is None or gain[at] > best[0]:
                stump = _Stump(
                    index,
                    float(cuts[index][at]),
                    _RATE * float(rest_g[at] / (rest_h[at] + 1)),
                    _RATE * float(g[at] / (h[at] + 1)),
                )
                best = (float(gain[at]), stump)
        if best is None:
            break
        stumps.append(best[1])
        logit += np.where(x[:, best[1].feature] > best[1].cut, best[1].above, best[1].below)
    return stumps


def cross_validated(
    rows: Sequence[Sequence[float]], forged: Sequence[bool], patients: Sequence[str], *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Logits of slices by a classifier that saw none of their patient, and the fold of each; NaN with one patient."""
    x, y = np.asarray(rows, np.float64), np.asarray(forged, np.float64)
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[index]: place % min(_FOLDS, max(len(names), 1)) for place, index in enumerate(order)}
    fold = np.array([fold_of[patient] for patient in patients], np.intp)
    logits = np.full(len(y), np.nan)
    for held in range(_FOLDS):
        inside = fold == held
        if not inside.any() or inside.all():
            continue
        logits[inside] = 0.0
        for stump in _boosted(x[~inside], y[~inside]):
            logits[inside] += np.where(x[inside, stump.feature] > stump.cut, stump.above, stump.below)
    return logits, fold
