"""Keep the receiver small: pydicom and pynetdicom map every pixel decoder that is installed when they are imported.

A decoder in this process would stand where strangers' bytes arrive. With these names barred beforehand neither library
loads one, and both work without (pydicom 3.0.2, pynetdicom 3.0.4).
"""

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


def bar_decoders() -> None:
    """Make each of them an ImportError from here on; call before pydicom is imported."""
    for name in BARRED:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]
