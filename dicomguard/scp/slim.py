"""Keep the receiver small, before anything else is imported.

pydicom and pynetdicom map every pixel decoder that is installed; one in this process would stand where strangers' bytes
arrive. With these names barred beforehand neither library loads one, and both work without (pydicom 3.0.2,
pynetdicom 3.0.4).
"""

import ctypes
import sys
from types import ModuleType

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


def prepare() -> None:
    """All of it; call before pydicom is imported."""
    _bar_decoders()
    _share_heap()
    _leave_out_tables()


def _bar_decoders() -> None:
    """Make each of them an ImportError from here on."""
    for name in BARRED:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]


def _leave_out_tables() -> None:
    """Import both libraries without the tables that no receiver reads, 6 MiB a process; what follows takes their room.

    They are pydicom's names of private elements, which then read as UN, and pynetdicom's texts for statuses of services
    that it would serve itself.
    """
    names = ModuleType("pydicom._private_dict")
    vars(names)["private_dictionaries"] = {}
    sys.modules.setdefault(names.__name__, names)
    from pynetdicom import status

    for name, table in vars(status).items():
        if name.endswith("_STATUS"):
            table.clear()


def _share_heap() -> None:
    """One heap for all threads: glibc gives each its own, and what one has freed another does not get (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
