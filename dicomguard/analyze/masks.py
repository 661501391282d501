"""`masks.npz`, the masks beside `verdict.json`, which names the file and its hash.

Packed bits, row by row, first pixel in the high bit; one array per finding and slice. Rows and columns are those of the
image, which every reader has at hand anyway.
"""

import io
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard.core.finding import Finding
from dicomguard.errors import Broken

Mask: TypeAlias = NDArray[np.bool_]


def key(finding_id: str, sop_instance_uid: str, frame: int | None) -> str:
    """Name of an array; the only frame of a single-frame instance counts as 1."""
    return f"{finding_id}/{sop_instance_uid}/{frame or 1}"


def pack(masks: Mapping[str, Mask]) -> bytes:
    """The file; equal bytes for equal masks, since NumPy's ZIP entries carry no time of day."""
    buffer = io.BytesIO()
    # NumPy's stubs take the arrays' names for options.
    np.savez_compressed(buffer, **{name: np.packbits(mask.reshape(-1)) for name, mask in sorted(masks.items())})  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(
    data: bytes, findings: tuple[Finding, ...], size_of: Callable[[str], tuple[int, int]]
) -> dict[str, list[tuple[str, int | None, Mask]]]:
    """Per finding id its (SOP Instance UID, frame, mask H×W) in the finding's order.

    `size_of` gives rows and columns of an instance. Raise `Broken` when a mask is missing or of another size.
    """
    result: dict[str, list[tuple[str, int | None, Mask]]] = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        for finding in findings:
            result[finding.id] = []
            for item in finding.slices:
                name = key(finding.id, item.sop_instance_uid, item.frame)
                rows, columns = size_of(item.sop_instance_uid)
                if name not in file.files or len(file[name]) != -(-rows * columns // 8):
                    raise Broken(f"The mask of {finding.id} does not fit its image. Analyse the study again.")
                bits = np.unpackbits(file[name], count=rows * columns)
                result[finding.id].append((item.sop_instance_uid, item.frame, bits.reshape(rows, columns).astype(bool)))
    return result
