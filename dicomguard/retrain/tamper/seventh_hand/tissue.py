"""What a sequence makes of tissue: landmarks of its histogram and the contrast of its lesions."""

import math

import numpy as np

from dicomguard.retrain.tamper.filters import dilate, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Pixels
from dicomguard.retrain.tamper.seventh_hand.place import inner_head


def landmarks(canvas: Canvas) -> tuple[float, float]:
    """Stored values of the two main tissues (grey and white matter, darker one first): two means of the inner head.

    After Nyúl (2000), with modes in place of percentiles; skull and fluid lie in the tails that are left out.
    """
    healthy = inner_head(canvas) & ~canvas.lesion
    values = canvas.pixels[healthy]
    if values.size < 50:
        return canvas.low, canvas.low + 1
    values = values[(values >= np.quantile(values, 0.15)) & (values <= np.quantile(values, 0.93))]
    darker, brighter = np.quantile(values, (0.3, 0.75))
    for _ in range(8):
        cut = (darker + brighter) / 2
        below, above = values[values <= cut], values[values > cut]
        if not below.size or not above.size:
            break
        darker, brighter = below.mean(), above.mean()
    return float(darker), max(float(brighter), float(darker) + 1)


def log_ratio(canvas: Canvas) -> float | None:
    """Logarithm of lesion over its surroundings, in the slice that shows most of it; None without a lesion."""
    z = int(canvas.lesion.sum(axis=(1, 2)).argmax())
    spot = canvas.lesion[z]
    around = dilate(spot, 8) & ~dilate(spot, 2) & canvas.head[z]
    if spot.sum() < 6 or around.sum() < 20:
        return None
    inner, outer = (float(np.median(canvas.pixels[z][where])) - canvas.low for where in (spot, around))
    return math.log(max(inner, 1.0) / max(outer, 1.0))


def draw_contrast(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> float:
    """Log ratio of a new lesion to its surroundings: that of the patient's own, else of the donor's, else bright.

    At least a quarter brighter or darker, so that the forgery says something.
    """
    known = [log_ratio(one) for one in (canvas, donor) if one is not None]
    found = next((value for value in known if value is not None and abs(value) > 0.08), 0.4)
    size = np.clip(abs(found) * rng.uniform(0.8, 1.3), 0.25, 0.65)
    return float(math.copysign(size, found))


def inner_texture(shape: tuple[int, int, int], scale: float, rng: np.random.Generator) -> Pixels:
    """Z×h×w smooth field of zero mean and unit deviation: no lesion is even inside; neighbours share two thirds."""
    shared = gaussian(rng.standard_normal(shape[1:], dtype=np.float32), scale)
    own = np.stack([gaussian(rng.standard_normal(shape[1:], dtype=np.float32), scale) for _ in range(shape[0])])
    field = 0.8 * shared + 0.6 * own
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)
