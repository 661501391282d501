"""Keep the receiver small, before anything else is imported.

pydicom and pynetdicom map every pixel decoder that is installed; one in this process would stand where strangers' bytes
arrive. With these names barred beforehand neither library loads one, and both work without (pydicom 3.0.2,
pynetdicom 3.0.4).
"""

import ctypes
import sys

BARRED = (
    "numpy",
    "PIL",
    "cv2",
    "torch",
    "gdcm",
    "jpeg_ls",
    "libjpeg",
    "openjpeg",
    "rle",
    "pylibjpeg",
    "scipy",
    "skimage",
    "tifffile",
)
# malloc.h of glibc.
_M_ARENA_MAX = -8


def bar_decoders() -> None:
    """Make each of them an ImportError from here on; call before pydicom is imported."""
    for name in BARRED:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]


def share_heap() -> None:
    """One heap for all threads: glibc gives each its own, and what one has freed another does not get (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
