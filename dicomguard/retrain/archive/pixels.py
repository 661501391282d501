"""The planes of an archive as arrays: what one picture file holds, and the hash that tells copies."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dicomguard.errors import Refused

# Pillow warns at 89 million pixels; a plane of a scan has at most a few million.
_MAX_PIXELS = 40_000_000


def read_plane(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """One grey picture H×W of 8 or 16 bits, as stored."""
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise Refused(f"{path.name} has {picture.width}×{picture.height} pixels. Give planes of a scan.")
            plane: NDArray[Any] = np.asarray(picture)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise Refused(f"{path.name} cannot be read as a picture. Give PNG, TIFF or JPEG 2000 planes.") from error
    if plane.ndim != 2 or plane.dtype not in (np.uint8, np.uint16):
        raise Refused(f"{path.name} has shape {plane.shape} of {plane.dtype}. Give one grey plane of 8 or 16 bits.")
    return plane


def sha256_of(plane: NDArray[Any]) -> str:
    """Hash over shape, type and values: equal for equal pictures, however they are packed."""
    return hashlib.sha256(str(plane.shape).encode() + plane.dtype.str.encode() + plane.tobytes()).hexdigest()
