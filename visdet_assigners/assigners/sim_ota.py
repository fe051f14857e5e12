"""SimOTA: each ground truth takes its cheapest few predictions, how few is its own.

Ge et al., YOLOX, arXiv:2107.08430, section 2.2; after OTA, CVPR 2021, arXiv:2103.14259.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner, OverlapMixin
from visdet_assigners.assignment import Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.boxes import border_distance, box_area, box_center
from visdet_assigners.functional.costs import one_hot_cost
from visdet_assigners.functional.resolve import match_dynamic_k
from visdet_assigners.registry import register

OUTSIDE = 1e5
"""Added to the cost of a prior that is not both inside a box and near its centre."""
EPS = 1e-7


def near_and_inside(points: Tensor, gts: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Which points lie inside boxes, and which near their centres.

    Args:
        points: (N, 4) centre x, y and stride in x and y, pixels.
        gts: (M, 4) xyxy.
        radius: half side of the central square, in strides of the point.

    Returns:
        Two (N, M) bool: inside the box, and inside the central square; strictly, and never for a box of no area.
    """
    x, y, stride_x, stride_y = (points[:, i, None] for i in range(4))  # (N, 1) each
    center_x, center_y = box_center(gts)
    reach_x, reach_y = radius * stride_x, radius * stride_y
    horizontal = torch.min(x - (center_x - reach_x), (center_x + reach_x) - x)
    vertical = torch.min(y - (center_y - reach_y), (center_y + reach_y) - y)
    has_area = box_area(gts) > 0
    return (border_distance(x, y, gts) > 0) & has_area, (torch.min(horizontal, vertical) > 0) & has_area


def sim_ota(
    points: Tensor,
    gts: Tensor,
    labels: Tensor,
    iou: Tensor,
    scores: Tensor,
    center_radius: float = 2.5,
    candidate_topk: int = 10,
    iou_weight: float = 3.0,
    cls_weight: float = 1.0,
) -> Assignment:
    """Match points to the ground truths of one image by the cost of their predictions.

    A point is a candidate when it lies inside any box or near any centre.  Its cost for a ground truth is the
    classification loss + ``iou_weight`` * -log IoU, and 1e5 more unless it is inside this box and near this centre.
    Each ground truth takes its cheapest candidates, as many as its ``candidate_topk`` largest IoUs sum to.

    Args:
        points: (N, 4) centre x, y and stride in x and y, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        labels: (M,) classes.
        iou: (N, M) of the predicted boxes with the ground truths.
        scores: (N, C) probabilities.
        center_radius: half side of the central square, in strides.
        candidate_topk: IoUs that are summed.
        iou_weight: weight of the IoU cost.
        cls_weight: weight of the classification cost.

    Returns:
        Assignment with ``quality`` = IoU of the predicted with the matched box, 0 elsewhere.

    Differs from mmdet: a box of no area gets no positive, and quality is 0 where nothing is matched (mmdet: -1e5).
    """
    num_points, num_gts = iou.shape
    if num_gts == 0 or num_points == 0:
        return Assignment(all_negative(num_points, iou), iou.new_zeros(num_points, dtype=torch.float32))
    has_area = box_area(gts) > 0
    inside, near = near_and_inside(points, gts, center_radius)
    candidates = (inside | near).any(dim=1).nonzero()[:, 0]
    iou = iou[candidates]
    cost = (
        one_hot_cost(scores[candidates], labels) * cls_weight
        + -torch.log(iou + EPS) * iou_weight
        + ~(inside & near)[candidates] * OUTSIDE
    )
    return settle(candidates, cost, iou, has_area, candidate_topk, num_points)


def settle(candidates: Tensor, cost: Tensor, iou: Tensor, has_area: Tensor, topk: int, num_points: int) -> Assignment:
    """Match the candidates by their costs, a dynamic number to each ground truth; all other points are negative.

    Args:
        candidates: (K,) int64, points that may match; K may be 0.
        cost: (K, M), M at least 1.
        iou: (K, M).
        has_area: (M,) bool; boxes of no area get nothing.
        topk: IoUs that are summed.
        num_points: N.

    Returns:
        Assignment with ``quality`` (N,) float32 = IoU of the match, 0 elsewhere.
    """
    gt_index = all_negative(num_points, iou)
    quality = iou.new_zeros(num_points, dtype=torch.float32)
    if len(candidates) == 0:
        return Assignment(gt_index, quality)
    matched = match_dynamic_k(cost, iou, has_area, topk)
    matched_iou = iou.gather(1, matched.clamp(min=0)[:, None])[:, 0].float()
    return Assignment(
        gt_index.index_copy(0, candidates, matched),
        quality.index_copy(0, candidates, torch.where(matched >= 0, matched_iou, 0)),
    )


@register
class SimOTAAssigner(OverlapMixin, BaseAssigner):
    """Assign points by the cost of their predictions, a dynamic number to each ground truth: YOLOX.

    Args:
        center_radius: half side of the central square, in strides.
        candidate_topk: IoUs whose sum is the number of positives of a ground truth.
        iou_weight: weight of the IoU cost.
        cls_weight: weight of the classification cost.
        iou_calculator: configuration or object; plain IoU if None.
    """

    def __init__(
        self,
        center_radius: float = 2.5,
        candidate_topk: int = 10,
        iou_weight: float = 3.0,
        cls_weight: float = 1.0,
        iou_calculator: Any = None,
    ) -> None:
        if candidate_topk < 1:
            self.fail(f"candidate_topk is {candidate_topk}; at least 1 is needed")
        self.center_radius = center_radius
        self.candidate_topk = candidate_topk
        self.iou_weight = iou_weight
        self.cls_weight = cls_weight
        self.build_calculator(iou_calculator)

    @torch.no_grad()
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any = None,
        *,
        num_level_priors: Sequence[int] | None = None,
        img_meta: Mapping[str, Any] | None = None,
    ) -> AssignResult:
        """Assign the points of one image.

        Args:
            pred_instances: with ``priors`` (N, 4) centre x, y and stride in x and y, ``bboxes`` (N, 4) xyxy decoded,
                and ``scores`` (N, C) probabilities; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: not used: the method defines no ignore regions.
            num_level_priors: accepted so that assigners can be exchanged; not used.
            img_meta: accepted for the same reason; not used.

        Returns:
            AssignResult whose ``max_overlaps`` (N,) float32 is the IoU of the match, 0 where there is none.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite or no probability.
        """
        points = self.read(pred_instances, "pred_instances", "priors", columns=4)
        boxes = self.read(pred_instances, "pred_instances", "bboxes", columns=4)
        scores = self.read(pred_instances, "pred_instances", "scores", columns=1)
        gts, labels = self.read_ground_truths(gt_instances)
        self.check_lengths(priors=points, bboxes=boxes, scores=scores)
        self.check_probabilities(scores)
        self.check_labels(labels, scores.shape[1])
        assignment = sim_ota(
            points,
            gts,
            labels,
            self.overlaps(boxes, gts),
            scores,
            self.center_radius,
            self.candidate_topk,
            self.iou_weight,
            self.cls_weight,
        )
        return to_assign_result(assignment, labels)
