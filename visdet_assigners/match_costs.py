"""Matching costs for the Hungarian assigners: a weight times one function of ``functional.costs``.

Each is called with predictions, ground truths and the image's meta data and returns (N, M); each is a drop-in for
mmdet 3's class of the same name.  Half precision is computed in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from visdet_assigners.errors import AssignerInputError
from visdet_assigners.functional import costs
from visdet_assigners.functional.blocks import static_shapes
from visdet_assigners.functional.tensors import as_float32, as_tensor, full_precision
from visdet_assigners.functional.validity import label_fault
from visdet_assigners.inputs import image_size
from visdet_assigners.options import number
from visdet_assigners.registry import register

IS_OBJECT = "is_object_of_batch"
"""Beside the fields of padded ground truths: (B, M) bool, False on padding; costs ``over_image`` read it."""


class BaseMatchCost(ABC):
    """A weighted cost of matching N predictions with M ground truths.

    A class may say with ``takes_batches`` that when the fields which it reads have B images in front and ``img_shape``
    is a tensor (B, 2), it gives (B, N, M), to each image the costs that it has by itself to the last bit.  Subclasses,
    which may compute something else, don't inherit that: see ``batch_fields``.

    Args:
        weight: factor of the cost.
    """

    reads: tuple[str, str] = ("", "")
    """Which field it reads of predictions and which of ground truths: assigners fetch these before."""
    reads_also: tuple[tuple[str, str], ...] = ()
    """Further pairs of fields: of a cost of classes and boxes at once."""
    reads_besides: tuple[str, ...] = ()
    """Further fields of ground truths that it reads."""
    takes_batches = False
    over_image = False
    """Whether a pair's cost depends on other pairs of its image, so that ground truths can't be worked on in blocks."""
    needs_size = False
    """Whether it reads the size of the image."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = number(type(self).__name__, "weight", weight)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All pairs of fields, of predictions and of ground truths, that it reads."""
        return self.reads, *self.reads_also

    def __call__(
        self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None = None, **_: Any
    ) -> Tensor:
        """Cost of every pair.

        Args:
            pred_instances: ``InstanceData`` or anything with the attributes that the cost reads.
            gt_instances: alike.
            img_meta: of the image; the box cost reads ``img_shape``.

        Returns:
            (N, M), the lower the better.

        Raises:
            AssignerInputError: a field is missing, or, on a CPU, a label is no class of the scores.
        """
        of_classes = ("scores", "labels")
        if of_classes in self.pairs:
            pairs = zip((pred_instances, gt_instances), of_classes)
            scores, labels = (as_tensor(getattr(instances, name, None)) for instances, name in pairs)
            if isinstance(scores, Tensor) and isinstance(labels, Tensor) and not static_shapes(labels.device):
                fault = label_fault(labels, scores.shape[-1], "gt_instances.labels") if labels.numel() else None
                if fault is not None:
                    self.fail(fault.text)
        with full_precision():
            return self.weighted(pred_instances, gt_instances, img_meta)

    def weighted(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Cost of every pair, (N, M), of fields that were checked, outside of autocast."""
        return self.cost(pred_instances, gt_instances, img_meta) * self.weight

    @abstractmethod
    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""

    def part_read(self, value: Tensor, gt_instances: Any) -> Tensor:
        """What counts of the field that it reads of the predictions, with 0 in place of the rest; here all of it."""
        return value

    def fail(self, message: str) -> NoReturn:
        """Raise ``AssignerInputError`` that names the cost."""
        raise AssignerInputError(type(self).__name__, message)

    def read(self, instances: Any, owner: str, name: str) -> Tensor:
        """Fetch a field of the instances, in float32 but for labels."""
        value = as_tensor(getattr(instances, name, None))
        if not isinstance(value, Tensor):
            kind = "nothing" if value is None else type(value).__name__
            self.fail(f"{owner}.{name} must be a tensor, got {kind}")
        return value if name == "labels" else as_float32(value)

    def read_classes(self, pred_instances: Any, gt_instances: Any) -> tuple[Tensor, Tensor]:
        """Scores (..., N, C) and labels (..., M) int64."""
        scores = self.read(pred_instances, "pred_instances", "scores")
        return scores, self.read(gt_instances, "gt_instances", "labels").long()

    def read_boxes(self, pred_instances: Any, gt_instances: Any) -> tuple[Tensor, Tensor]:
        """Boxes (..., N, 4) and (..., M, 4) xyxy."""
        boxes = self.read(pred_instances, "pred_instances", "bboxes")
        return boxes, self.read(gt_instances, "gt_instances", "bboxes")


def batch_fields(match_costs: Sequence[Any]) -> tuple[list[str], list[str]] | None:
    """The fields that costs read of predictions and of ground truths if all of them take batches, else None."""
    of_pred, of_gt = [], []
    for match_cost in match_costs:
        if not vars(type(match_cost)).get("takes_batches") or "masks" in match_cost.reads:
            return None
        for pred, gt in match_cost.pairs:
            of_pred.append(pred)
            of_gt.append(gt)
    return list(dict.fromkeys(of_pred)), list(dict.fromkeys(of_gt))


@register
class ClassificationCost(BaseMatchCost):
    """Negative softmax probability of the right class (DETR).  Reads ``scores`` (N, C) logits and ``labels`` (M,)."""

    reads = ("scores", "labels")
    takes_batches = True

    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""
        return costs.softmax_cost(*self.read_classes(pred_instances, gt_instances))


@register
class FocalLossCost(BaseMatchCost):
    """Focal loss as a cost, of classes (Deformable DETR) or of masks (MaskFormer).

    Reads ``scores`` (N, C) logits and ``labels`` (M,), or with ``binary_input`` the ``masks`` of both, (N, ...) logits
    and (M, ...) of 0 and 1, averaged over the pixels.

    Args:
        alpha: weight of positive targets.
        gamma: focusing exponent.
        eps: inside the logarithms.
        binary_input: compare masks instead of classes.
        weight: factor of the cost.
    """

    takes_batches = True

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2,
        eps: float = 1e-12,
        binary_input: bool = False,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        self.alpha = alpha
        self.gamma = gamma
        self.eps = eps
        self.binary_input = binary_input

    @property
    def reads(self) -> tuple[str, str]:  # type: ignore[override]
        """Scores and labels, or masks."""
        return ("masks", "masks") if self.binary_input else ("scores", "labels")

    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""
        if self.binary_input:
            masks = self.read(pred_instances, "pred_instances", "masks")
            targets = self.read(gt_instances, "gt_instances", "masks")
            pixels = masks[0].numel()
            return costs.binary_focal_cost(masks, targets, self.alpha, self.gamma, self.eps) / pixels
        scores, labels = self.read_classes(pred_instances, gt_instances)
        return costs.focal_cost(scores, labels, self.alpha, self.gamma, self.eps)


@register
class BinaryFocalLossCost(FocalLossCost):
    """Focal loss over the text tokens of an image (Grounding DINO, arXiv:2303.05499).

    Reads ``scores`` (N, T) logits; of the ground truths ``text_token_mask`` (M, T or fewer), every row the same, the
    tokens that count, and ``positive_maps`` (M, T), the tokens of each object.  Summed over the tokens.
    """

    reads_besides = ("text_token_mask",)

    @property
    def reads(self) -> tuple[str, str]:  # type: ignore[override]
        """Scores, and the words of each ground truth."""
        return "scores", "positive_maps"

    def part_read(self, value: Tensor, gt_instances: Any) -> Tensor:
        """The scores of words that the text has; heads set the others, and those behind the text, to -inf."""
        mask = getattr(gt_instances, "text_token_mask", None)
        if mask is None or not len(mask):
            return torch.zeros_like(value)
        tokens = min(mask.shape[1], value.shape[1])
        return F.pad(value[:, :tokens].where(mask[0, :tokens] > 0, 0.0), (0, value.shape[1] - tokens))

    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""
        scores = self.read(pred_instances, "pred_instances", "scores")
        used = self.read(gt_instances, "gt_instances", "text_token_mask")[0].nonzero()[:, 0]
        targets = self.read(gt_instances, "gt_instances", "positive_maps")[:, used]
        return costs.binary_focal_cost(scores[:, used], targets, self.alpha, self.gamma, self.eps)


@register
class BBoxL1Cost(BaseMatchCost):
    """L1 distance of boxes in parts of the image size.  Reads ``bboxes`` of both, xyxy pixels, and ``img_shape``.

    Args:
        box_format: the coordinates compared, "xyxy" or "xywh" (centre and size); the boxes themselves are xyxy.
        weight: factor of the cost.
    """

    reads = ("bboxes", "bboxes")
    takes_batches = True
    needs_size = True

    def __init__(self, box_format: str = "xyxy", weight: float = 1.0) -> None:
        super().__init__(weight)
        if box_format not in ("xyxy", "xywh"):
            raise ValueError(f"BBoxL1Cost: box_format is {box_format!r}; choose 'xyxy' or 'xywh'")
        self.box_format = box_format

    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""
        given = (img_meta or {}).get("img_shape")
        size = given if isinstance(given, Tensor) else image_size(type(self).__name__, img_meta)
        return costs.box_l1_cost(*self.read_boxes(pred_instances, gt_instances), size, self.box_format)


@register
class IoUCost(BaseMatchCost):
    """Negative overlap of boxes.  Reads ``bboxes`` of both, xyxy pixels.

    Args:
        iou_mode: "giou", "iou" or "iof".
        weight: factor of the cost.
    """

    reads = ("bboxes", "bboxes")
    takes_batches = True

    def __init__(self, iou_mode: str = "giou", weight: float = 1.0) -> None:
        super().__init__(weight)
        if iou_mode not in ("giou", "iou", "iof"):
            raise ValueError(f"IoUCost: iou_mode is {iou_mode!r}; choose 'giou', 'iou' or 'iof'")
        self.iou_mode = iou_mode

    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""
        return costs.overlap_cost(*self.read_boxes(pred_instances, gt_instances), self.iou_mode)


@register
class HighOrderCost(BaseMatchCost):
    """Negative product of the right class's probability and IoU^alpha (Rank-DETR, arXiv:2310.08854).

    One cost of class and box, in place of the usual three.  Reads ``scores`` (N, C) logits and ``labels`` (M,), and
    ``bboxes`` of both, xyxy pixels.  DEIMv2 changes to it after some epochs, see ``ScheduledCosts``: early, where most
    boxes overlap nothing, all its costs are 0.

    Args:
        alpha: exponent of the IoU, at least 0.
        weight: factor of the cost.
    """

    reads = ("scores", "labels")
    reads_also = (("bboxes", "bboxes"),)
    takes_batches = True

    def __init__(self, alpha: float = 4.0, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.alpha = number(type(self).__name__, "alpha", alpha, least=0)

    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""
        classes = self.read_classes(pred_instances, gt_instances)
        return costs.high_order_cost(*classes, *self.read_boxes(pred_instances, gt_instances), self.alpha)


@register
class PositionModulatedCost(BaseMatchCost):
    """Focal cost of the probability times g^beta, g the GIoU brought to 0 to 1 (Stable-DINO, arXiv:2304.04742).

    Takes the place of ``FocalLossCost``, beside the costs of boxes.  Reads ``scores`` (N, C) logits and ``labels``
    (M,), and ``bboxes`` of both, xyxy pixels.  Each object has its own g; in the published code the last object of a
    class overwrites those before it.

    Args:
        beta: exponent of g, at least 0.
        alpha: weight of positive targets.
        gamma: focusing exponent.
        eps: inside the logarithms.
        weight: factor of the cost.
    """

    reads = ("scores", "labels")
    reads_also = (("bboxes", "bboxes"),)
    takes_batches = True
    over_image = True

    def __init__(
        self, beta: float = 0.5, alpha: float = 0.25, gamma: float = 2, eps: float = 1e-12, weight: float = 1.0
    ) -> None:
        super().__init__(weight)
        self.beta = number(type(self).__name__, "beta", beta, least=0)
        self.alpha = alpha
        self.gamma = gamma
        self.eps = eps

    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""
        classes = self.read_classes(pred_instances, gt_instances)
        boxes = self.read_boxes(pred_instances, gt_instances)
        options = (self.beta, self.alpha, self.gamma, self.eps)
        return costs.position_modulated_cost(
            *classes, *boxes, *options, is_object=getattr(gt_instances, IS_OBJECT, None)
        )


@register
class DiceCost(BaseMatchCost):
    """One less the Dice coefficient of masks.  Reads ``masks`` of both, (N, ...) and (M, ...) of 0 and 1.

    Args:
        pred_act: the predictions are logits, take their sigmoid.
        eps: added above and below the line.
        naive_dice: sum values in the denominator; False sums squares, as K-Net and SOLO do.
        weight: factor of the cost.
    """

    reads = ("masks", "masks")

    def __init__(self, pred_act: bool = False, eps: float = 1e-3, naive_dice: bool = True, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.pred_act = pred_act
        self.eps = eps
        self.naive_dice = naive_dice

    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""
        masks = self.read(pred_instances, "pred_instances", "masks")
        masks = masks.sigmoid() if self.pred_act else masks
        targets = self.read(gt_instances, "gt_instances", "masks")
        return costs.dice_cost(masks, targets, self.eps, squared=not self.naive_dice)


@register
class CrossEntropyLossCost(BaseMatchCost):
    """Binary cross entropy of masks, averaged over the pixels (Mask2Former, arXiv:2112.01527).

    Reads ``masks`` of both, (N, ...) logits and (M, ...) of 0 and 1.

    Args:
        use_sigmoid: must be True: a softmax over masks is not defined here, nor in mmdet.
        weight: factor of the cost.
    """

    reads = ("masks", "masks")

    def __init__(self, use_sigmoid: bool = True, weight: float = 1.0) -> None:
        super().__init__(weight)
        if not use_sigmoid:
            raise NotImplementedError("CrossEntropyLossCost: only use_sigmoid=True is defined for masks")
        self.use_sigmoid = use_sigmoid

    def cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Unweighted cost, (N, M)."""
        masks = self.read(pred_instances, "pred_instances", "masks")
        return costs.binary_cross_entropy_cost(masks, self.read(gt_instances, "gt_instances", "masks"))
