"""Slices of a series in, detections and scores out: channels, two scales, batches, mixed precision.

Memory back-off: when the device has no room for a batch, the batch is halved, down to one slice. Works on one series
at a time; what it keeps per slice is two numbers a scale and a few masks. Knows no DICOM and no threshold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dicomguard.analyze import channels, regions_map, scores, weights
from dicomguard.analyze.net.load import autocast, best_device, load_network
from dicomguard.analyze.net.model import STRIDE, Network, Proposed
from dicomguard.analyze.scores import Calibration, Look
from dicomguard.errors import Unavailable

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
State: TypeAlias = Literal["analysed", "skipped"]

# Pixels in a batch at native scale: eight slices of 256².
_BATCH_PIXELS = 8 * 256 * 256
_HEAD_MARGIN = 8
# Two slices whose distance differs from the series' spacing by more than this share are no neighbours.
_SPACING_TOLERANCE = 0.25
# Share of the gaps of a series that have to be alike to be those of neighbours.
_SHARED_GAPS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One plane of a series after rescale, in order along the normal."""

    # H×W float32, modality units (HU for CT).
    pixels: Plane
    # Along the normal; None for a loose picture.
    position_mm: float | None
    # Between rows, between columns; None when unknown.
    spacing_mm: tuple[float, float] | None
    # The caller's name of the slice, handed back.
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """A region of one slice."""

    # xyxy, pixels of the slice.
    box: tuple[float, float, float, float]
    # H×W true inside.
    mask: Mask
    # 0…1 each: traces of forgery, lesion.
    p_forged: float
    p_tumor: float
    # Logit that it was put in rather than wiped away, if it is forged.
    added: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceDetections:
    """What the detector says of one slice."""

    key: str
    state: State
    # Why it was skipped, one of "too small", "no head", "undecodable" (pixels out of all units); empty otherwise.
    reason: str
    # 0…1; 0 when skipped. `forgery >= operating_point.forgery` is the alert.
    forgery: float
    tumor: float
    # Share of the slice that is head.
    head_share: float
    # Of the series (`channels.smoothing`); 0 when skipped.
    smoothing: float
    detections: tuple[Detection, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesDetections:
    """One series, slice by slice in the order given."""

    slices: tuple[SliceDetections, ...]
    # `scores.edited_alike` of the slices of some shape.
    edited_alike: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the network showed of one slice, before calibration: terms at both scales, region candidates."""

    look: Look
    regions: tuple[regions_map.Candidate, ...]


class Detector:
    """A loaded network with its calibration."""

    def __init__(self, network: Network, head: weights.WeightsHead, device: torch.device) -> None:
        self._network, self.head, self._device = network, head, device
        self.calibration = Calibration.from_record(head.calibration)

    @classmethod
    def load(cls, path: Path, *, device: str | None = None, threads: int = 2) -> "Detector":
        """Read a weights file; `device` None takes CUDA where there is one."""
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        chosen = best_device(device or "")
        return cls(load_network(path, chosen), weights.read_head(path), chosen)

    def series(self, slices: Sequence[Slice]) -> SeriesDetections:
        """Detections of a series.

        Slices of a shape of their own are compared among themselves only; a slice without position is a loose picture,
        measured and judged alone.
        """
        found: list[SliceDetections | None] = [None] * len(slices)
        alike = False
        for members in _by_shape(slices):
            planes = [slices[i].pixels for i in members]
            heads = [channels.head_mask(plane) for plane in planes]
            reasons = [_skipped(plane, head) for plane, head in zip(planes, heads, strict=True)]
            kept = [k for k, reason in enumerate(reasons) if not reason]
            seen = self.look(
                [planes[k] for k in kept], [heads[k] for k in kept], _touching(slices, [members[k] for k in kept])
            )
            sound = [(k, one) for k, one in zip(kept, seen, strict=True) if _finite(one)]
            for k in set(kept) - {k for k, _ in sound}:
                reasons[k] = "undecodable"
            looks = [one.look for _, one in sound]
            values = scores.values(looks, self.calibration)
            alike = alike or scores.edited_alike(looks, self.calibration)
            for k, reason in enumerate(reasons):
                if reason:
                    found[members[k]] = SliceDetections(
                        key=slices[members[k]].key,
                        state="skipped",
                        reason=reason,
                        forgery=0.0,
                        tumor=0.0,
                        head_share=float(heads[k].mean()),
                        smoothing=0.0,
                        detections=(),
                    )
            for (k, one), value in zip(sound, values, strict=True):
                found[members[k]] = self._judged(slices[members[k]].key, one, float(value), float(heads[k].mean()))
        return SeriesDetections(slices=tuple(one for one in found if one is not None), edited_alike=alike)

    def _judged(self, key: str, seen: Seen, value: float, head_share: float) -> SliceDetections:
        c = self.calibration
        forgery = scores.probability(value, c.slope, c.bias)
        detections = []
        for region in seen.regions:
            tumor = scores.probability(region.lesion, c.tumor_slope, c.tumor_bias)
            # The strongest region carries the slice's score, others less by their strength.
            p_forged = scores.probability(value + region.weaker, c.slope, c.bias)
            detections.append(
                Detection(box=region.box, mask=region.mask, p_forged=p_forged, p_tumor=tumor, added=region.added)
            )
        return SliceDetections(
            key=key,
            state="analysed",
            reason="",
            forgery=forgery,
            tumor=max((d.p_tumor for d in detections), default=0.0),
            head_share=head_share,
            smoothing=seen.look.smoothing,
            detections=tuple(detections),
        )

    def look(self, planes: Sequence[Plane], heads: Sequence[Mask], touching: Sequence[bool]) -> list[Seen]:
        """Raw terms and candidates of slices of one shape; `touching[i]`: slices i and i+1 are neighbours."""
        if not planes:
            return []
        prepared = channels.prepare(planes, touching, heads=heads)
        return self.look_at(prepared, channels.halved(prepared), range(len(planes)))

    def look_at(self, prepared: channels.Prepared, small: channels.Prepared, chosen: Sequence[int]) -> list[Seen]:
        """Raw terms and candidates of some slices of a measured series; `small` is the same series halved."""
        region = _head_box(prepared.heads)
        half_region = (region[0] // 2, region[1] // 2, region[2] // 2, region[3] // 2)
        native = self._run(prepared, chosen, region)
        half = self._run(small, chosen, half_region)
        noise = (prepared.scale.colour, channels.smoothing(prepared, small))
        seen = []
        for i, fine, coarse in zip(chosen, native, half, strict=True):
            inside = prepared.heads[i][region[0] : region[2], region[1] : region[3]]
            seen.append(_seen(fine, coarse, inside, region, prepared.slices[i].shape, noise))
        return seen

    def _run(
        self, prepared: channels.Prepared, chosen: Sequence[int], region: tuple[int, int, int, int]
    ) -> Iterator["_Shown"]:
        """Maps and proposals of the chosen slices in order, batch by batch."""
        pixels = (region[2] - region[0]) * (region[3] - region[1])
        size = max(1, min(len(chosen), _BATCH_PIXELS // max(pixels, 1)))
        start = 0
        while start < len(chosen):
            batch = chosen[start : start + size]
            stacks = np.stack([prepared.stack(i, region) for i in batch])
            try:
                shown = self._forward(stacks)
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise Unavailable(
                        f"One slice of {region[2] - region[0]}×{region[3] - region[1]} pixels does not fit the device. "
                        'Use the device "cpu", or free its memory.'
                    ) from error
                torch.cuda.empty_cache()
                size = max(1, size // 2)
                continue
            yield from shown
            start += len(batch)

    @torch.inference_mode()
    def _forward(self, stacks: Plane) -> list["_Shown"]:
        """N×C×h×w channels → per slice smoothed logits 3×⌈h/2⌉×⌈w/2⌉ and RoI proposals."""
        height, width = stacks.shape[2:]
        padded = (-(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE)
        x = torch.zeros((len(stacks), stacks.shape[1], *padded), device=self._device)
        x[:, :, :height, :width] = torch.from_numpy(stacks).to(self._device)
        x = x.contiguous(memory_format=torch.channels_last)
        with autocast(self._device):
            features, maps = self._network.look(x)
        proposals = self._network.detect(features, len(stacks), padded)
        smooth = functional.avg_pool2d(maps.float(), 5, stride=1, padding=2, count_include_pad=False)
        cut = smooth[:, :, : -(-height // 2), : -(-width // 2)].cpu().numpy()
        return [_Shown(maps=cut[i], proposals=proposals[i]) for i in range(len(stacks))]


@dataclass(frozen=True, slots=True)
class _Shown:
    # 3×⌈h/2⌉×⌈w/2⌉ smoothed logits: forgery, lesion, addition.
    maps: Plane
    proposals: Proposed


def _seen(
    fine: _Shown,
    coarse: _Shown,
    inside: Mask,
    region: tuple[int, int, int, int],
    shape: tuple[int, ...],
    noise: tuple[float, float],
) -> Seen:
    # The first pixel of each cell: cells are two and four pixels wide, also where the last one reaches beyond.
    head_native, head_half = inside[::2, ::2], inside[::4, ::4]
    candidates = regions_map.candidates(
        fine.maps, coarse.maps, head_native, proposals=_boxes(fine.proposals, coarse.proposals)
    )
    placed = tuple(regions_map.placed(c, region, (shape[0], shape[1])) for c in candidates)
    return Seen(
        look=Look(
            native=scores.terms(fine.maps[0], head_native),
            half=scores.terms(coarse.maps[0], head_half),
            colour=noise[0],
            smoothing=noise[1],
        ),
        regions=placed,
    )


def _boxes(fine: Proposed, coarse: Proposed) -> list[regions_map.Box]:
    """RoI detections of both scales in native pixels of the region."""
    boxes = []
    for proposed, scale in ((fine, 1.0), (coarse, 2.0)):
        for box, joint, mask in zip(
            _array(proposed.boxes) * scale, _array(proposed.joint), _array(proposed.masks), strict=True
        ):
            boxes.append(
                regions_map.Box(
                    box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                    p_lesion=float(joint[1] + joint[2]),
                    p_forged=float(joint[2] + joint[3]),
                    mask=mask,
                )
            )
    return boxes


def _array(tensor: Tensor) -> Plane:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)


def _finite(seen: Seen) -> bool:
    """Whether all that becomes a score is a number; one that is none would be in the middle of every other slice's."""
    look = seen.look
    numbers = [look.native.raw, look.native.level, look.half.raw, look.half.level, look.colour, look.smoothing]
    for region in seen.regions:
        numbers += [region.weaker, region.lesion, region.added]
    return bool(np.isfinite(numbers).all())


def _skipped(plane: Plane, head: Mask) -> str:
    if min(plane.shape) < channels.SMALLEST_SIDE:
        return "too small"
    return "no head" if head.mean() < channels.SMALLEST_HEAD_SHARE else ""


def _by_shape(slices: Sequence[Slice]) -> list[list[int]]:
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, one in enumerate(slices):
        loose = i if one.position_mm is None else None
        groups.setdefault((one.pixels.shape, loose), []).append(i)
    return list(groups.values())


def _touching(slices: Sequence[Slice], members: Sequence[int]) -> list[bool]:
    """Neighbours: consecutive in the series, and as close as its closest slices (a thinned series has wider gaps).

    A gap that few have is not the closest: one slice sent twice or scanned once more would part all others.
    """
    positions = [slices[i].position_mm for i in members]
    gaps = [b - a if a is not None and b is not None else None for a, b in pairwise(positions)]
    known = np.sort([abs(gap) for gap in gaps if gap is not None and abs(gap) > 1e-3])
    if not len(known):
        return [False] * len(gaps)
    nearest, furthest = (known * (1 + sign * _SPACING_TOLERANCE) for sign in (-1, 1))
    alike = np.searchsorted(known, furthest, "right") - np.searchsorted(known, nearest, "left")
    shared = known[alike >= _SHARED_GAPS * len(known)]
    usual = float(shared[0] if len(shared) else np.median(known))
    return [gap is not None and abs(abs(gap) - usual) <= _SPACING_TOLERANCE * usual for gap in gaps]


def _head_box(heads: Sequence[Mask]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) around all heads with a margin, even numbers so that the half scale fits."""
    union = np.any(np.stack(list(heads)), axis=0)
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    height, width = union.shape
    top, left = (max(int(v[0]) - _HEAD_MARGIN, 0) // 2 * 2 for v in (rows, columns))
    bottom, right = min(int(rows[-1]) + _HEAD_MARGIN + 1, height), min(int(columns[-1]) + _HEAD_MARGIN + 1, width)
    return (top, left, top + (bottom - top) // 2 * 2, left + (right - left) // 2 * 2)
