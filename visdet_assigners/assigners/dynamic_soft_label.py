"""DynamicSoftLabel: SimOTA with soft labels and a soft centre.

Lyu et al., RTMDet, arXiv:2212.07784, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.base import PREDICTING
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import FINER, DenseAssigner, DenseCommon
from visdet_assigners.assigners.sim_ota import any_ground_truth, match_candidates
from visdet_assigners.assignment import Assignment, all_negative
from visdet_assigners.functional.costs import soft_label_cost, soft_label_terms
from visdet_assigners.functional.geometry import UPRIGHT, Geometry, geometry_of
from visdet_assigners.functional.masks import center_of_mass
from visdet_assigners.functional.overlaps import IOU, Measure
from visdet_assigners.functional.resolve import Conflict
from visdet_assigners.functional.tensors import evenly
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import number, whole_number
from visdet_assigners.registry import register

EPS = 1e-7


@checked(
    {"topk": whole_number, "soft_center_radius": number, "iou_weight": number},
    points="points", gts="truths", boxes="predicted", logits="scores", labels="labels",
)  # fmt: skip
def dynamic_soft_label(
    points: Tensor,
    gts: Tensor,
    labels: Tensor,
    boxes: Tensor,
    logits: Tensor,
    topk: int = 13,
    soft_center_radius: float = 3.0,
    iou_weight: float = 3.0,
    centers: Tensor | None = None,
    measure: Measure = IOU,
    geometry: Geometry = UPRIGHT,
    conflict: Conflict = "all",
) -> Assignment:
    """Match points to the ground truths of one image by the cost of their predictions.

    A point is a candidate when it lies inside any box.  Its cost for a ground truth is the classification loss against
    the IoU as a soft label + ``iou_weight`` * -log IoU + 10^(distance in strides - ``soft_center_radius``).  Each
    ground truth takes its cheapest candidates, as many as its ``topk`` largest IoUs sum to.

    Args:
        points: (N, 3 or more) x, y and stride, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        labels: (M,) classes.
        boxes: (N, 4) xyxy, predicted.
        logits: (N, C).
        topk: IoUs that are summed.
        soft_center_radius: distance in strides at which the centre's cost is 1.
        iou_weight: weight of the IoU cost.
        centers: (M, 2) x and y of the ground truths where they are not the middles of the boxes.
        measure: what takes the place of the IoU of ground truths and predicted boxes.
        geometry: what is known of the ground truths; where they aren't upright, they and the predicted boxes may have
            any columns that it and ``measure`` know.
        conflict: a point that several take goes to the one that it is cheapest for of "all" ground truths, or of those
            that have "selected" it.

    Returns:
        Assignment with ``quality`` = IoU of the predicted with the matched box, 0 elsewhere.

    Differs from mmdet: a box of no area gets no positive, quality is 0 where nothing is matched (mmdet: -1e8), and
    equal distances cost the same wherever they stand in memory; mmdet's last entries, which fill no register, are
    rounded by other instructions, and among nearly equal costs that may decide.
    """
    if len(gts) == 0 or len(points) == 0:
        return Assignment(all_negative(len(points), points), points.new_zeros(len(points), dtype=torch.float32))
    x, y, stride = points[:, :3].T.contiguous()  # (N,) each
    center_x, center_y = geometry.centers(gts) if centers is None else centers.unbind(1)

    def inside(block: Tensor) -> Tensor:
        return geometry.inside(x, y, block, 0.0).any(dim=0)  # which nothing is in a box of no area

    def costs(rows: Tensor | slice) -> tuple[Callable[[slice], Tensor], Callable[[slice, Tensor], Tensor]]:
        own_logits, own_boxes = logits[rows], boxes[rows]
        own_x, own_y, own_stride = x[rows], y[rows], stride[rows]
        if_absent = soft_label_terms(own_logits, torch.zeros_like(own_logits))  # (n, C)

        def cost_of(block: slice, iou: Tensor) -> Tensor:
            square = (own_x - center_x[block, None]).pow(2) + (own_y - center_y[block, None]).pow(2)
            distance = square.sqrt() / own_stride
            center_cost = evenly(lambda exponent: torch.pow(10, exponent), distance - soft_center_radius)
            center_cost.clamp_(max=torch.finfo(center_cost.dtype).max)  # infinity is for those that may not match
            cls_cost = soft_label_cost(own_logits, labels[block], iou.T, if_absent).T
            return cls_cost + -torch.log(iou + EPS) * iou_weight + center_cost

        return lambda block: measure.overlaps(gts[block], own_boxes), cost_of

    candidates = any_ground_truth(inside, gts, len(points), geometry)
    return match_candidates(candidates, geometry.areas(gts) > 0, costs, topk, measure.blockwise, conflict)


@register
class DynamicSoftLabelAssigner(DenseAssigner):
    """Assign points by the cost of their predictions with soft labels: RTMDet.

    Reads ``priors`` (N, 3 or more) x, y and stride, ``bboxes`` (N, 4) xyxy decoded, and ``scores`` (N, C) logits.
    Where the ground truths have ``masks`` (M, H, W), tensor or ``BitmapMasks``, their centres of mass take the place of
    the boxes' middles.  Result: ``max_overlaps`` (N,) float32 is the IoU of the match, 0 where there is none.

    Ground truths in a class that knows their centres and insides, as mmdet's ``BaseBoxes``, are asked, as mmdet does;
    they and ``bboxes`` may then be of another form, as rotated ones, if ``iou_calculator`` knows it.

    Args:
        soft_center_radius: distance in strides at which the centre's cost is 1.
        topk: IoUs whose sum is the number of positives of a ground truth.
        iou_weight: weight of the IoU cost.
        iou_calculator: configuration or object; plain IoU if None.
        conflict: a point that several take goes to the cheapest of "all" objects, as in mmdet, or of those that have
            "selected" it: under "all" a small object may lose its only points to one that had not taken them.
        **common: see ``DenseAssigner``.
    """

    knobs: ClassVar[str] = f"raise topk; {FINER}"
    heads: ClassVar[str] = PREDICTING
    asks_boxes: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Kind]] = {"priors": "points", "bboxes": "predicted", "scores": "scores"}
    mmdet2: ClassVar[None] = None

    def __init__(
        self,
        soft_center_radius: float = 3.0,
        topk: int = 13,
        iou_weight: float = 3.0,
        iou_calculator: Any = None,
        *,
        conflict: Conflict = "all",
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        self.conflict = self.option_of("conflict", conflict, Conflict)
        self.soft_center_radius = self.number_of("soft_center_radius", soft_center_radius)
        self.topk = self.count_of("topk", topk)
        self.iou_weight = self.number_of("iou_weight", iou_weight)
        self.build_calculator(iou_calculator)

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        points, boxes, logits = image.fields.values()
        masks: Any = getattr(image.truths, "masks", None)
        if hasattr(masks, "to_tensor"):  # mmdet's own containers
            masks = masks.to_tensor(torch.bool, image.gts.device)
        centers = None if masks is None else center_of_mass(masks)
        if centers is not None:  # as many as the boxes, which may be padded
            centers = F.pad(centers, (0, 0, 0, max(0, len(image.gts) - len(centers))))
        return self.run(
            dynamic_soft_label,
            points,
            image.gts,
            image.labels,
            boxes,
            logits,
            self.topk,
            self.soft_center_radius,
            self.iou_weight,
            centers,
            self.measure_in(image, "bboxes"),
            # mmdet asks HorizontalBoxes, too; to them a point on their border lies inside.
            UPRIGHT if image.forms["gts"] is None else geometry_of(image.forms["gts"]),
            self.conflict,
        )
