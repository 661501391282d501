"""The network: small GroupNorm backbone with a feature pyramid, dense maps at half resolution, Mask R-CNN heads.

After He et al. 2017 (Mask R-CNN) and Lin et al. 2017 (FPN), with what forensic traces need: a stem at full
resolution, average instead of maximum pooling, no resizing of the input, anchors of 10 to 150 pixels. torchvision's
`MaskRCNN` holds the parts; its own forward, which would resize to 800 pixels, is not used. Tensors only.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from dicomguard.analyze.channels import NAMES
from dicomguard.analyze.net import ops
from dicomguard.analyze.net.heads import (
    AgnosticMaskPredictor,
    BoxHead,
    DenseHead,
    FactoredPredictor,
    MaskHead,
    TwoViewPool,
)

ops.prepare()

from torchvision.models.detection import MaskRCNN  # noqa: E402
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402
from torchvision.models.detection.image_list import ImageList  # noqa: E402
from torchvision.ops import MultiScaleRoIAlign  # noqa: E402
from torchvision.ops.boxes import clip_boxes_to_image, nms, remove_small_boxes  # noqa: E402

_WIDTHS = (16, 32, 64, 96, 128)
_FEATURES = 48
_NORM_GROUPS = 8
# Inputs are padded to a multiple of this: the deepest map is /16, doubled for even halves.
STRIDE = 32
_PROPOSALS_SCORED = 40
_DETECTIONS_KEPT = 12
_OVERLAP = 0.5


class Block(nn.Module):
    """Residual block: two 3×3 convolutions with GroupNorm, 1×1 shortcut where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(_NORM_GROUPS, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(_NORM_GROUPS, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Backbone(nn.Module):
    """N×C×H×W → features of 48 channels at /2, /4, /8, /16, keyed "2" … "16"."""

    def __init__(self) -> None:
        super().__init__()
        self.out_channels = _FEATURES
        self.stem = nn.Conv2d(len(NAMES), _WIDTHS[0], 3, padding=1)
        self.fine = nn.Conv2d(_WIDTHS[0], _WIDTHS[0], 3, padding=1, bias=False)
        self.fine_norm = nn.GroupNorm(_NORM_GROUPS, _WIDTHS[0])
        self.down = nn.ModuleList(Block(a, b) for a, b in pairwise(_WIDTHS))
        self.lateral = nn.ModuleList(nn.Conv2d(width, _FEATURES, 1) for width in _WIDTHS[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1) for _ in _WIDTHS[1:-1])

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        y = functional.relu(self.stem(x))
        y = functional.relu(self.fine_norm(self.fine(y))) + y
        levels = []
        for block in self.down:
            # Mean, not maximum: the maximum of noise is a biased statistic of it.
            y = block(functional.avg_pool2d(y, 2))
            levels.append(y)
        top = self.lateral[3](levels[3])
        pyramid = [top]
        for i in (2, 1, 0):
            top = self.lateral[i](levels[i]) + functional.interpolate(top, scale_factor=2.0, mode="nearest")
            top = functional.relu(self.smooth[i](top))
            pyramid.insert(0, top)
        return OrderedDict(zip(("2", "4", "8", "16"), pyramid, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """RoI detections of one image: N×4 boxes xyxy in pixels, N×4 joint probabilities, N×28×28 mask probabilities."""

    boxes: Tensor
    joint: Tensor
    masks: Tensor


class Network(nn.Module):
    """Dense maps and Mask R-CNN over one backbone."""

    def __init__(self) -> None:
        super().__init__()
        box_width = 128
        self.dense = DenseHead(_FEATURES)
        self.rcnn = MaskRCNN(
            Backbone(),
            # The stock transform is built because MaskRCNN wants one, and never run.
            _skip_resize=True,
            image_mean=[0.0] * len(NAMES),
            image_std=[1.0] * len(NAMES),
            rpn_anchor_generator=AnchorGenerator(
                sizes=((10, 18), (32, 56), (90, 150)), aspect_ratios=((0.5, 1.0, 2.0),) * 3
            ),
            rpn_pre_nms_top_n_train=200,
            rpn_pre_nms_top_n_test=80,
            rpn_post_nms_top_n_train=50,
            rpn_post_nms_top_n_test=_PROPOSALS_SCORED,
            rpn_batch_size_per_image=64,
            rpn_fg_iou_thresh=0.6,
            box_head=BoxHead(_FEATURES, box_width),
            box_predictor=FactoredPredictor(box_width),
            box_batch_size_per_image=24,
            mask_roi_pool=MultiScaleRoIAlign(featmap_names=["4"], output_size=14, sampling_ratio=2),
            mask_head=MaskHead(_FEATURES),
            mask_predictor=AgnosticMaskPredictor(_FEATURES),
        )
        # MaskRCNN accepts only its own pooling class as an argument.
        self.rcnn.roi_heads.box_roi_pool = TwoViewPool()

    def features(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """Pyramid of a padded batch N×C×H×W."""
        maps: OrderedDict[str, Tensor] = self.rcnn.backbone(x)
        return maps

    def look(self, x: Tensor) -> "tuple[OrderedDict[str, Tensor], Tensor]":
        """Pyramid of a padded batch N×C×H×W, and N×3×H/2×W/2 logits: forgery, lesion, addition."""
        features = self.features(x)
        dense: Tensor = self.dense(features["2"])
        return features, dense

    def losses(
        self, features: "OrderedDict[str, Tensor]", targets: list[dict[str, Tensor]], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """RPN and RoI losses of a batch in training mode; `targets` as torchvision's (boxes, labels, masks)."""
        images, pyramid, full = self._views(features, len(targets), size)
        proposals, rpn = self.rcnn.rpn(images, pyramid, targets)
        _, roi = self.rcnn.roi_heads(full, proposals, images.image_sizes, targets)
        return {**rpn, **roi}

    def detect(self, features: "OrderedDict[str, Tensor]", count: int, size: tuple[int, int]) -> list[Proposed]:
        """Boxes with their joint probabilities and masks, NMS over all labels together, best first."""
        images, pyramid, full = self._views(features, count, size)
        proposals, _ = self.rcnn.rpn(images, pyramid, None)
        heads = self.rcnn.roi_heads
        vectors = heads.box_head(heads.box_roi_pool(full, proposals, images.image_sizes))
        logits, deltas = heads.box_predictor(vectors)
        joint = logits.float().exp()
        # Without any proposal it comes back with one axis less.
        decoded = heads.box_coder.decode(deltas, proposals).reshape(len(deltas), deltas.shape[1] // 4, 4)[:, 0]
        found = []
        for boxes, shares in zip(
            decoded.split([len(p) for p in proposals]), joint.split([len(p) for p in proposals]), strict=True
        ):
            clipped = clip_boxes_to_image(boxes, size)
            large = remove_small_boxes(clipped, 4.0)
            clipped, shares = clipped[large], shares[large]
            kept = nms(clipped, 1.0 - shares[:, 0], _OVERLAP)[:_DETECTIONS_KEPT]
            found.append((clipped[kept], shares[kept]))
        pooled = heads.mask_roi_pool(full, [boxes for boxes, _ in found], images.image_sizes)
        masks = heads.mask_predictor(heads.mask_head(pooled))[:, 0].float().sigmoid()
        pieces = masks.split([len(boxes) for boxes, _ in found])
        return [
            Proposed(boxes=boxes, joint=shares, masks=piece)
            for (boxes, shares), piece in zip(found, pieces, strict=True)
        ]

    @staticmethod
    def _views(
        features: "OrderedDict[str, Tensor]", count: int, size: tuple[int, int]
    ) -> "tuple[ImageList, OrderedDict[str, Tensor], OrderedDict[str, Tensor]]":
        """Images as torchvision wants them (only their shape is read), maps for the RPN, maps for the RoI heads.

        Boxes, losses and pooling are computed in float32: half precision moves boxes by pixels.
        """
        full = OrderedDict((name, level.float()) for name, level in features.items())
        pyramid = OrderedDict((name, level) for name, level in full.items() if name != "2")
        blank = full["2"].new_empty((count, 1, *size))
        return ImageList(blank, [size] * count), pyramid, full
