"""PNG, JPEG and TIFF to pixels, one page at a time. Only in the child: picture decoders meet crafted files here.

Returns H×W uint8 or uint16 (grey as it was stored) or H×W×3 uint8 (colour); orientation tags are not applied, since
turning a slice would change nothing that is judged and hide what was sent.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dicomguard.errors import Refused
from dicomguard.web.unpack.item import Limits

FORMATS = ("PNG", "JPEG", "TIFF")
# Pillow's decoders answer damage with any of these.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a picture."""

    # 1-based.
    number: int
    pixels: npt.NDArray[np.generic]
    # Whether a lossy method was used on it.
    lossy: bool


def pages(path: Path, *, name: str, limits: Limits) -> Iterator[Page]:
    """Decode; raises `Refused` for what is damaged, too large or of a kind that no scanner exports."""
    # Sizes are judged here with a sentence; Pillow's own limit would only warn.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as picture:
                count = int(getattr(picture, "n_frames", 1))
                if count > limits.pages:
                    raise Refused(f"{name} has {count} pages; at most {limits.pages} are taken. Send it in parts.")
                for index in range(count):
                    picture.seek(index)
                    _check_size(picture, name=name, limits=limits)
                    yield Page(index + 1, _array(picture), _is_lossy(picture))
    except _DAMAGE as error:
        raise Refused(
            f"{name} cannot be read as a picture: it is damaged or cut off. Save or copy it again."
        ) from error


def _check_size(picture: Image.Image, *, name: str, limits: Limits) -> None:
    width, height = picture.size
    if width * height > limits.picture_pixels:
        raise Refused(
            f"{name} has {width} × {height} pixels; at most {limits.picture_pixels / 1e6:.0f} million are taken. "
            "Send the slice itself, not a poster of it."
        )


def _array(picture: Image.Image) -> npt.NDArray[np.generic]:
    mode = picture.mode
    if mode in ("L", "1"):
        return np.asarray(picture.convert("L"))
    if mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16)
    if mode in ("I", "F"):
        return _to_16_bit(np.asarray(picture))
    # Transparency carries no pixel of a scan; palettes and CMYK become what they look like.
    return np.asarray(picture.convert("RGB"))


def _to_16_bit(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint16]:
    """32-bit integers or floats: as they are when they fit, else stretched over 16 bit."""
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    whole = np.issubdtype(values.dtype, np.integer)
    if whole and low >= 0 and high <= 65535:
        return finite.astype(np.uint16)
    span = high - low
    return np.rint((finite - low) * (65535.0 / span if span > 0 else 0.0)).astype(np.uint16)


def _is_lossy(picture: Image.Image) -> bool:
    return picture.format == "JPEG" or picture.info.get("compression") in ("jpeg", "webp")
