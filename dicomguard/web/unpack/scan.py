"""Is a picture a slice of a head scan? A pure decision by plain signs; it says nothing about disease.

A slice of a scanner is grey, has a dark surround (air), and in it one bright connected object that is neither a speck
nor the whole picture. Pictures that lack one of these are refused with the sign that is missing, because a score
computed on a photograph would look like an answer and be none.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

# The forgery channels need this many pixels around a region (the analysis skips smaller slices, too).
SMALLEST_SIDE_PX = 96
# A pixel is coloured when its channels differ by more than this share of full scale …
COLOUR_DIFFERENCE = 0.10
# … and a scan may have so many of them (burned-in annotation).
COLOURED_SHARE = 0.04
# Share of the border ring that must be surround. Necks, chins and tight crops reach one or two sides.
DARK_BORDER_SHARE = 0.30
# The surround's level relative to the object's.
SURROUND_LEVEL = 0.30
# Smallest and largest share of the picture that the object may fill.
OBJECT_SHARE = (0.02, 0.97)
# Share of all bright pixels that belongs to the one object. Eyes, ears and the skull's base lie apart in end slices.
ONE_OBJECT_SHARE = 0.70
# Fewer grey levels are a drawing, a chart or a mask.
FEWEST_LEVELS = 24
# The shorter side is brought near this before shapes are judged.
WORKING_SIDE_PX = 128
# Parts closer than this (at the working size) belong to one object.
BRIDGE_PX = 4


@dataclass(frozen=True, slots=True)
class Scan:
    """Nothing speaks against it being a slice."""


@dataclass(frozen=True, slots=True)
class NoScan:
    """What is missing, as the middle of a sentence."""

    sign: str


def decide(pixels: npt.NDArray[np.generic]) -> Scan | NoScan:
    """Judge H×W (any unsigned or float grey) or H×W×3 (uint8 RGB)."""
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST_SIDE_PX:
        return NoScan(f"it is {width} × {height} pixels, and a slice needs at least {SMALLEST_SIDE_PX} on each side")
    if pixels.ndim == 3:
        share = coloured_share(pixels)
        if share > COLOURED_SHARE:
            return NoScan(f"{share:.0%} of it is coloured, and scans are grey")
    full = to_grey(pixels)
    levels = len(np.unique(full))
    if levels < FEWEST_LEVELS:
        return NoScan(f"it has {levels} shades of grey, as a drawing or a mask has")
    grey = _small(full)
    low, high = (float(value) for value in np.percentile(grey, (0.5, 99.5)))
    if not high > low:
        return NoScan("it shows one even tone")
    # The level of the surround is judged from black, not from the darkest pixel: a wall is even, and not dark.
    black = min(0.0, low)
    return _object_in_dark(np.clip((grey - low) / (high - low), 0.0, 1.0), np.clip(grey - black, 0.0, None))


def coloured_share(rgb: npt.NDArray[np.generic]) -> float:
    """Share of the pixels of H×W×3 uint8 whose channels differ clearly."""
    channels = rgb.astype(np.int16)
    difference = channels.max(axis=2) - channels.min(axis=2)
    return float(np.mean(difference > COLOUR_DIFFERENCE * 255))


def to_grey(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """H×W float32; RGB by the mean of its channels, which is exact for grey pictures kept as RGB."""
    grey = pixels.astype(np.float32)
    return grey if grey.ndim == 2 else grey.mean(axis=2)


def _small(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # Means over blocks: noise of the air goes, shapes stay, and the rest costs the same for every size.
    step = max(1, min(grey.shape) // WORKING_SIDE_PX)
    height, width = (side - side % step for side in grey.shape)
    blocks = grey[:height, :width].reshape(height // step, step, width // step, step)
    small: npt.NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return small


def _object_in_dark(grey: npt.NDArray[np.float32], brightness: npt.NDArray[np.float32]) -> Scan | NoScan:
    """`grey` is H×W in 0…1 between the darkest and the brightest, `brightness` the same from black."""
    smooth = ndimage.gaussian_filter(grey, 1.5, mode="nearest")
    bright = smooth > _threshold(smooth)
    # Ventricles and bone are dark inside the object.
    filled = ndimage.binary_fill_holes(bright)
    labels, count = ndimage.label(ndimage.binary_dilation(filled, iterations=BRIDGE_PX))
    if count == 0:
        return NoScan("no bright object stands out in it")
    sizes = np.bincount(labels[filled])[1:]
    main = filled & (labels == int(np.argmax(sizes)) + 1)
    border = np.concatenate([filled[0], filled[-1], filled[1:-1, 0], filled[1:-1, -1]])
    dark_border = 1.0 - float(border.mean())
    if dark_border < DARK_BORDER_SHARE:
        return NoScan("it has no dark surround, as the air around a head has")
    share = float(main.mean())
    if not OBJECT_SHARE[0] <= share <= OBJECT_SHARE[1]:
        return NoScan("no object of the size of a head stands in it")
    if float(sizes.max()) / float(sizes.sum()) < ONE_OBJECT_SHARE:
        return NoScan("it shows several separate objects instead of one head")
    level = float(np.median(brightness[~filled])) / max(float(np.median(brightness[main])), 1e-6)
    if level > SURROUND_LEVEL:
        return NoScan("its surround is not dark, as the air around a head is")
    return Scan()


def _threshold(smooth: npt.NDArray[np.float32]) -> float:
    """Between air and tissue: Otsu's threshold, lowered, since tissue next to air is often darker than its mean."""
    counts, edges = np.histogram(smooth, bins=64, range=(0.0, 1.0))
    weights = counts / counts.sum()
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(weights)
    mean_below = np.cumsum(weights * centres)
    total = mean_below[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (total * below - mean_below) ** 2 / (below * (1.0 - below))
    return 0.5 * float(centres[int(np.argmax(np.nan_to_num(between)))])
