"""torchvision's box operators beside any build of torch.

The published torchvision wheel is linked against CUDA; beside a CPU build of torch its compiled operators cannot be
loaded and `import torchvision` fails. `prepare()` runs before the first import of torchvision: where the compiled
operators load, it does nothing else; where they do not, it declares their schemas and registers implementations in
plain torch (nms, roi_align). Every module of this room that needs torchvision gets it through `prepare()`.

Sources: torchvision `csrc/ops/cpu/nms_kernel.cpp`, `roi_align_kernel.cpp`; He et al., Mask R-CNN, section 3.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dicomguard.errors import Broken

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
)
# Regions per step of the adaptive form: bounds the weight matrices to a few megabytes.
_CHUNK = 32
# The registrations live as long as the process: torch drops them with this object.
_registered: list[torch.library.Library] = []


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression of N×4 xyxy boxes; indices kept, best first (stable for equal scores).

    One row of IoU per kept box, float32 compared in float64 as the compiled operator does.
    """
    if dets.numel() == 0:
        return torch.empty(0, dtype=torch.int64, device=dets.device)
    boxes = dets.detach().float().cpu().numpy()
    order = torch.argsort(scores.detach().float().cpu(), descending=True, stable=True).numpy()
    x1, y1, x2, y2 = (np.ascontiguousarray(boxes[order, column]) for column in range(4))
    areas = (x2 - x1) * (y2 - y1)
    alive = np.ones(len(order), dtype=bool)
    kept = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(order[i])
        rest = slice(i + 1, None)
        width = np.maximum(np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest]), np.float32(0))
        height = np.maximum(np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest]), np.float32(0))
        shared = width * height
        with np.errstate(divide="ignore", invalid="ignore"):
            overlap = shared / (areas[i] + areas[rest] - shared)
        alive[rest] &= ~(overlap.astype(np.float64) > iou_threshold)
    return torch.as_tensor(np.asarray(kept, dtype=np.int64), device=dets.device)


def _sample_places(start: Tensor, bin_size: Tensor, bins: int, samples: int) -> Tensor:
    """K×(bins·samples) coordinates of the sampling points along one axis, in feature pixels."""
    steps = torch.arange(bins * samples, device=start.device, dtype=start.dtype)
    return start[:, None] + (steps[None, :] + 0.5) * (bin_size[:, None] / samples)


def _corners(places: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower and upper index and their bilinear weights; a point outside [-1, size] weighs nothing."""
    inside = (places >= -1.0) & (places <= size)
    clamped = places.clamp(min=0.0)
    low = clamped.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    fraction = torch.where(low >= size - 1, torch.zeros_like(clamped), clamped - low)
    weight = inside.to(places.dtype)
    return low, high, (1 - fraction) * weight, fraction * weight


def _roi_align_fixed(
    rows: Tensor, size: tuple[int, int], batch: Tensor, y: Tensor, x: Tensor, bins: tuple[int, int], samples: int
) -> Tensor:
    """Weighted sums of rows of an (N·H·W)×C table: 4·samples² per bin."""
    height, width = size
    y_low, y_high, y_low_weight, y_high_weight = _corners(y, height)
    x_low, x_high, x_low_weight, x_high_weight = _corners(x, width)
    count = len(batch)
    # Two corners per point along each axis: K×bins×(2·samples).
    y_index = torch.stack((y_low, y_high), dim=2).reshape(count, bins[0], 2 * samples)
    x_index = torch.stack((x_low, x_high), dim=2).reshape(count, bins[1], 2 * samples)
    y_weight = torch.stack((y_low_weight, y_high_weight), dim=2).reshape(count, bins[0], 2 * samples)
    x_weight = torch.stack((x_low_weight, x_high_weight), dim=2).reshape(count, bins[1], 2 * samples)
    index = (
        batch[:, None, None, None, None] * (height * width)
        + y_index[:, :, None, :, None] * width
        + x_index[:, None, :, None, :]
    )
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :] / (samples * samples)
    per_bin = (2 * samples) ** 2
    pooled = functional.embedding_bag(
        index.reshape(-1, per_bin), rows, per_sample_weights=weight.reshape(-1, per_bin), mode="sum"
    )
    return pooled.reshape(count, bins[0], bins[1], -1).permute(0, 3, 1, 2)


def _axis_matrix(start: Tensor, bin_size: Tensor, bins: int, samples: Tensor, size: int) -> Tensor:
    """K×bins×size averaging weights of one axis, with its own number of samples per region (adaptive sampling)."""
    most = int(samples.max())
    step = torch.arange(most, device=start.device, dtype=start.dtype)
    within = (step[None, :] + 0.5) / samples[:, None]
    used = step[None, :] < samples[:, None]
    places = (
        start[:, None, None]
        + (torch.arange(bins, device=start.device, dtype=start.dtype)[None, :, None] + within[:, None, :])
        * bin_size[:, None, None]
    )
    low, high, low_weight, high_weight = _corners(places, size)
    share = used[:, None, :] / samples[:, None, None]
    matrix = torch.zeros(len(start), bins, size, device=start.device, dtype=start.dtype)
    matrix.scatter_add_(2, low, low_weight * share)
    matrix.scatter_add_(2, high, high_weight * share)
    return matrix


def roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Mean of bilinear samples in each bin; `input` N×C×H×W, `rois` K×5 (batch index, xyxy in image pixels).

    Fixed sampling gathers rows; adaptive sampling (ratio <= 0, ceil(region / bins) points a bin) multiplies by one
    averaging matrix per axis, which is the same mean because bilinear weights separate. Computes in float32.
    """
    height, width = int(input.shape[2]), int(input.shape[3])
    if len(rois) == 0:
        return input.new_zeros((0, input.shape[1], pooled_height, pooled_width))
    features = input.float()
    regions = rois.detach().float()
    batch = regions[:, 0].long()
    offset = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (regions[:, column] * spatial_scale - offset for column in range(1, 5))
    roi_width, roi_height = x2 - x1, y2 - y1
    if not aligned:
        roi_width, roi_height = roi_width.clamp(min=1.0), roi_height.clamp(min=1.0)
    bin_height, bin_width = roi_height / pooled_height, roi_width / pooled_width
    if sampling_ratio > 0:
        rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        y = _sample_places(y1, bin_height, pooled_height, sampling_ratio)
        x = _sample_places(x1, bin_width, pooled_width, sampling_ratio)
        bins = (pooled_height, pooled_width)
        return _roi_align_fixed(rows, (height, width), batch, y, x, bins, sampling_ratio).to(input.dtype)
    pieces = []
    for part in torch.arange(len(regions), device=regions.device).split(_CHUNK):  # type: ignore[no-untyped-call]
        y_samples = torch.ceil(roi_height[part] / pooled_height).clamp(min=1.0)
        x_samples = torch.ceil(roi_width[part] / pooled_width).clamp(min=1.0)
        down = _axis_matrix(y1[part], bin_height[part], pooled_height, y_samples, height)
        across = _axis_matrix(x1[part], bin_width[part], pooled_width, x_samples, width)
        pieces.append(torch.einsum("kph,kchw,kqw->kcpq", down, features[batch[part]], across))
    return torch.cat(pieces).to(input.dtype)


def _compiled_ops_load(folder: Path) -> bool:
    for library in sorted(folder.glob("_C*.so")) + sorted(folder.glob("_C*.pyd")):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except (ImportError, OSError):
            continue
        return True
    return False


def _register_own() -> None:
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    # Not implicit: torchvision registers its own shape function for nms, which an implicit kernel forbids.
    library.impl("nms", nms, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    library.impl("roi_align", roi_align, "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]
    _registered.append(library)


def prepare() -> str:
    """Make torchvision importable and usable; returns which operators run: "compiled" or "own"."""
    if _registered:
        return "own"
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise Broken("torchvision is not installed. Install the package as pyproject.toml pins it.")
    if "torchvision" in sys.modules or _compiled_ops_load(Path(spec.origin).parent):
        importlib.import_module("torchvision")
        return "compiled"
    _register_own()
    importlib.import_module("torchvision")
    # Without these two lines torchvision refuses nms and falls back to a compiled-Python roi_align.
    for name in ("torchvision.extension", "torchvision.ops.roi_align", "torchvision.ops.boxes"):
        module: ModuleType = sys.modules[name]
        for attribute, answer in (("_has_ops", _ops_exist), ("_assert_has_ops", _nothing_to_assert)):
            if hasattr(module, attribute):
                setattr(module, attribute, answer)
    return "own"


def _ops_exist() -> bool:
    return True


def _nothing_to_assert() -> None:
    return None
