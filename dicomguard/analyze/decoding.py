"""The decoding child: opens files of strangers and gives back one frame at a time in modality units.

Runs as `python -m dicomguard.analyze.decoding FD` under limits of memory and processor time, since codecs meet whatever
was sent. Pixels leave through the shared memory behind FD as raw float32, rows × columns; the pipe carries facts only.
Knows no network, no database, no torch.
"""

import gc
import hashlib
import io
import itertools
import mmap
import os
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from dicomguard import child, headers
from dicomguard.analyze import signature
from dicomguard.errors import Refused

Plane: TypeAlias = NDArray[np.float32]

# A frame beyond this is no slice of a head; 64 Mpx in float32 are 256 MiB.
MAX_PIXELS = 64 << 20
MAX_FRAMES = 4096
# No stored value has more than 32 bits. A rescale that leads beyond is a slip, and its squares leave float32.
_LARGEST_VALUE = 2.0**32
# Rec. 601 luma, as PS3.3 C.7.6.3.1.2 has it for YBR_FULL.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_PREVIEW_PERCENTILES = (0.5, 99.5)
_MOST_CREATORS = 64
# Syntaxes that lose something, or may.
_LOSSY_SYNTAXES = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000})
# Start of scan with one component: marker, length 8, count 1, selector and tables; then first, last, approximation.
_SCAN_OF_ONE = re.compile(rb"(\xff\xda\x00\x08\x01..)...", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One decoded frame."""

    # H×W in modality units.
    pixels: Plane
    # SHA-256 of the stored values as little-endian bytes; equals that of native Pixel Data of one frame.
    sha256: str
    # Smallest and largest stored value before anything was done to them; None for colour.
    stored_range: tuple[int, int] | None
    colour: bool
    # Slope and intercept that made modality units of stored values; None for colour.
    rescale: tuple[float, float] | None = None
    # Share of the pixels that are padding; None where no padding is declared.
    padded: float | None = None


class Decoder:
    """Keeps the last file open, so that the header of a multi-frame object is parsed once."""

    def __init__(self) -> None:
        self._path = ""
        self._dataset = pydicom.Dataset()
        self._facts: dict[str, Any] = {}

    def facts(self, path: str) -> dict[str, Any]:
        """Of a file, once: a signature covers all frames."""
        dataset = self.dataset(path)
        if not self._facts:
            self._facts = facts(dataset)
        return self._facts

    def dataset(self, path: str) -> pydicom.Dataset:
        """The parsed file."""
        if path != self._path:
            self._dataset = pydicom.Dataset()
            gc.collect()
            self._dataset, self._path, self._facts = _repaired(pydicom.dcmread(path)), path, {}
        return self._dataset

    def frame(self, path: str, number: int | None) -> Frame:
        """Decode one frame; `number` counts from 1, None is the only one. Raises `Refused` beyond the limits."""
        dataset = self.dataset(path)
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        count = int(dataset.get("NumberOfFrames") or 1)
        if rows * columns > MAX_PIXELS or count > MAX_FRAMES:
            raise Refused(
                f"{count} frames of {rows} × {columns} pixels are over the limit of {MAX_FRAMES} frames "
                f"or {MAX_PIXELS} pixels. Send a smaller series."
            )
        index = (number or 1) - 1
        if not 0 <= index < count:
            raise Refused(f"Frame {number} of {count} does not exist. Send the instance again.")
        stored = np.asarray(pixel_array(dataset, index=index, raw=False))
        if stored.ndim == 3 and stored.shape[0] == 1:
            stored = stored[0]
        sha256 = hashlib.sha256(np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder("<")).data).hexdigest()
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            stored = apply_color_lut(stored, dataset)
        if stored.ndim == 3:
            return Frame(pixels=_luminance(stored), sha256=sha256, stored_range=None, colour=True)
        if stored.ndim != 2:
            raise Refused(f"Pixel Data has {stored.ndim} dimensions, not rows and columns. Send the instance again.")
        extent = (int(stored.min()), int(stored.max()))
        pixels = _modality_units(stored, dataset, index)
        # Not a number compares as false, so it is refused too.
        if not (pixels.min() >= -_LARGEST_VALUE and pixels.max() <= _LARGEST_VALUE):
            raise Refused(
                f"The rescale gives pixels beyond ±{_LARGEST_VALUE:.0f}. "
                "Send the instance with the rescale of its scanner."
            )
        return Frame(
            pixels=pixels,
            sha256=sha256,
            stored_range=extent,
            colour=False,
            rescale=_rescale(dataset, index),
            padded=_padded(stored, dataset),
        )


def _repaired(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """Let a sequential JPEG scan cover all 64 coefficients, as its mode demands (ITU-T T.81 table B.3).

    An encoder of the 1990s, whose files are still about, wrote 0 as the last one; decoders refuse that.
    """
    if dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit:
        dataset.PixelData = _SCAN_OF_ONE.sub(b"\\1\x00\x3f\x00", dataset.PixelData)
    return dataset


def _luminance(colour: NDArray[Any]) -> Plane:
    values = colour[..., :3].astype(np.float32)
    if np.array_equal(values[..., 0], values[..., 1]) and np.array_equal(values[..., 1], values[..., 2]):
        # A grey picture that was saved in colour: its own values, not a weighted sum with rounding.
        return np.ascontiguousarray(values[..., 0])
    return np.asarray(values @ _LUMA, dtype=np.float32)


def _modality_units(stored: NDArray[Any], dataset: pydicom.Dataset, index: int) -> Plane:
    """Stored values masked to Bits Stored, padding replaced, MONOCHROME1 turned, rescaled (PS3.3 C.7.6.3, C.11.1)."""
    if np.issubdtype(stored.dtype, np.floating):
        return np.nan_to_num(stored.astype(np.float32), posinf=0.0, neginf=0.0)
    bits = int(dataset.BitsStored)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    values = stored.astype(np.int64)
    if bits < int(dataset.BitsAllocated):
        values &= (1 << bits) - 1
        if signed:
            values -= (values >> (bits - 1)) << bits
    values = _without_padding(values, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = (-1 if signed else (1 << bits) - 1) - values
    slope, intercept = _rescale(dataset, index)
    # What overflows becomes infinite, and is refused as such.
    with np.errstate(over="ignore", invalid="ignore"):
        return (values * np.float64(slope) + np.float64(intercept)).astype(np.float32)


def _padding(dataset: pydicom.Dataset) -> tuple[int, int] | None:
    """Smallest and largest value that mean padding (PS3.3 C.7.5.1.1.2); None when there is none."""
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(padding), int(padding if limit is None else limit)))
    return low, high


def _padded(stored: NDArray[Any], dataset: pydicom.Dataset) -> float | None:
    declared = _padding(dataset)
    return None if declared is None else float(((stored >= declared[0]) & (stored <= declared[1])).mean())


def _without_padding(values: NDArray[np.int64], dataset: pydicom.Dataset) -> NDArray[np.int64]:
    declared = _padding(dataset)
    if declared is None:
        return values
    outside = (values >= declared[0]) & (values <= declared[1])
    if not outside.any() or outside.all():
        return values
    # Darkest real value, so that padding is air and no edge of its own kind.
    inside = values[~outside]
    return np.where(
        outside, inside.max() if dataset.PhotometricInterpretation == "MONOCHROME1" else inside.min(), values
    )


def _rescale(dataset: pydicom.Dataset, index: int) -> tuple[float, float]:
    holders: list[pydicom.Dataset] = []
    for keyword, place in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        groups = dataset.get(keyword)
        if groups is not None and len(groups) > place:
            transformation = groups[place].get("PixelValueTransformationSequence")
            if transformation:
                holders.append(transformation[0])
    holders.append(dataset)
    for holder in holders:
        slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
        if slope is not None or intercept is not None:
            pair = (float(1 if slope is None else slope), float(0 if intercept is None else intercept))
            # A slope of zero would erase the image; some writers leave it so where they mean none.
            return pair if pair[0] != 0 and np.isfinite(pair).all() else (1.0, 0.0)
    return 1.0, 0.0


def facts(dataset: pydicom.Dataset) -> dict[str, Any]:
    """What `analyze.evidence` reads of a header; texts of people and places stay out."""
    return {
        "manufacturer": _text(dataset, "Manufacturer"),
        "model_name": _text(dataset, "ManufacturerModelName"),
        "device_serial": _text(dataset, "DeviceSerialNumber"),
        "software_versions": _text(dataset, "SoftwareVersions"),
        "lossy": _text(dataset, "LossyImageCompression"),
        "synthetic": _text(dataset, "SyntheticData").upper() == "YES",
        "derived": _text(dataset, "ImageType").upper().startswith("DERIVED") or "DerivationDescription" in dataset,
        "contributing_equipment": "ContributingEquipmentSequence" in dataset,
        "acquisition_time": _text(dataset, "AcquisitionTime"),
        "created": _text(dataset, "InstanceCreationDate") + _text(dataset, "InstanceCreationTime"),
        "instance_creator": _text(dataset, "InstanceCreatorUID"),
        "implementation": " ".join(
            _text(dataset.file_meta, keyword) for keyword in ("ImplementationClassUID", "ImplementationVersionName")
        ),
        "transfer_syntax": dataset.file_meta.TransferSyntaxUID,
        "lossy_syntax": dataset.file_meta.TransferSyntaxUID in _LOSSY_SYNTAXES,
        "orientation": _text(dataset, "ImageOrientationPatient"),
        "private_creators": _private_creators(dataset),
        "signatures": signature.check(dataset),
        "bits_stored": int(dataset.get("BitsStored") or 0),
        "smallest": _number(dataset, "SmallestImagePixelValue"),
        "largest": _number(dataset, "LargestImagePixelValue"),
    }


def _private_creators(dataset: pydicom.Dataset) -> list[str]:
    """Who reserved private blocks in the dataset itself (PS3.5 7.8.1)."""
    # Iterating over the dataset would decode every element.
    values = (dataset[tag].value for tag in dataset.keys() if tag.is_private_creator)  # noqa: SIM118
    return sorted(str(value) for value in itertools.islice(values, _MOST_CREATORS) if isinstance(value, str))


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        return "\\".join(headers.printed(item) for item in value)
    return "" if value is None or isinstance(value, pydicom.Sequence) else headers.printed(value).strip(" \0")


def _number(dataset: pydicom.Dataset, keyword: str) -> int | None:
    value = dataset.get(keyword)
    return int(value) if isinstance(value, int) else None


def _first(dataset: pydicom.Dataset, keyword: str) -> float | None:
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if len(value) else None
    try:
        number = float("nan" if value is None else value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def window(dataset: pydicom.Dataset, pixels: Plane) -> tuple[float, float]:
    """Values shown black and white: the header's first window (PS3.3 C.11.2), else percentiles of the frame."""
    centre, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if centre is not None and width is not None and width > 1 and dataset.PhotometricInterpretation != "MONOCHROME1":
        low, high = centre - width / 2, centre + width / 2
        # A window that shows nothing of the frame is a slip of some converter.
        if low < float(pixels.max()) and high > float(pixels.min()):
            return low, high
    low, high = (float(value) for value in np.percentile(pixels, _PREVIEW_PERCENTILES))
    return low, max(high, low + 1e-6)


def preview(dataset: pydicom.Dataset, pixels: Plane) -> NDArray[np.uint8]:
    """Windowed H×W, 0…255."""
    low, high = window(dataset, pixels)
    grey = np.clip((pixels - low) * (255.0 / (high - low)) + 0.5, 0, 255)
    return np.asarray(grey, dtype=np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _answer(decoder: Decoder, request: dict[str, Any], shared: mmap.mmap) -> dict[str, Any]:
    """Do one request; the reply names what lies in shared memory."""
    path, number = str(request["path"]), request.get("frame")
    frame = decoder.frame(path, number)
    reply: dict[str, Any] = {
        "ok": True,
        "shape": list(frame.pixels.shape),
        "sha256": frame.sha256,
        "colour": frame.colour,
    }
    if request.get("as") == "png":
        data = _png(preview(decoder.dataset(path), frame.pixels))
        reply["bytes"] = len(data)
    else:
        data = np.ascontiguousarray(frame.pixels, dtype="<f4").tobytes()
        reply["facts"] = {
            **decoder.facts(path),
            "stored_range": frame.stored_range,
            "rescale": frame.rescale,
            "padded": frame.padded,
        }
        reply["bytes"] = len(data)
    shared.seek(0)
    shared.write(data)
    return reply


def serve(channel: child.Channel, shared: mmap.mmap) -> None:
    """Answer requests until the pipe ends."""
    decoder = Decoder()
    while True:
        try:
            request = channel.receive(None)
        except child.ChildEnded:
            return
        try:
            reply = _answer(decoder, request, shared)
        except MemoryError:
            reply = {"ok": False, "skipped": "memory limit", "kind": "MemoryError"}
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the top of a child; a panic of a codec in Rust is no Exception.
            # The text of a codec's error may hold a value of the file; its kind cannot.
            reply = {"ok": False, "skipped": "undecodable", "kind": type(error).__name__}
        channel.send(reply)


def main(arguments: list[str]) -> None:
    """Entry: the number of the shared memory's descriptor."""
    channel = child.parent()
    # The library's warnings quote values of the file, and this standard error is the node's log.
    warnings.simplefilter("ignore")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    descriptor = int(arguments[0])
    shared = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    # The collection between two files looks at what a file has left, not at all that was imported: 16 ms a slice.
    gc.freeze()
    channel.send({"ready": True})
    serve(channel, shared)


if __name__ == "__main__":
    Path("/proc/self/comm").write_text("dicomguard-deco", encoding="ascii")
    main(sys.argv[1:])
