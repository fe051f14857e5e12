"""Task-aligned assignment: the predictions that classify and localise best learn most.

Feng et al., TOOD, ICCV 2021, arXiv:2108.07755, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner, OverlapMixin
from visdet_assigners.assignment import Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.boxes import border_distance, box_center
from visdet_assigners.functional.resolve import keep_best
from visdet_assigners.registry import register

INSIDE = 0.01
"""Pixels by which a centre must lie inside a box."""


def task_aligned(
    priors: Tensor,
    gts: Tensor,
    class_scores: Tensor,
    iou: Tensor,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> Assignment:
    """Match priors to the ground truths of one image by how well their predictions fit.

    The alignment of a prior with a ground truth is score^alpha * IoU^beta (eq. 4) of what it predicts.  A prior is
    positive for a ground truth when it is among its ``topk`` best aligned, the alignment is above 0, and the prior's
    centre lies inside the box.  Claimed twice, it goes to the higher IoU.

    Args:
        priors: (N, 4) xyxy, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        class_scores: (N, M), probability that each prior predicts for the class of each ground truth.
        iou: (N, M) of the predicted boxes with the ground truths.
        topk: candidates per ground truth, over all levels; fewer priors give all they have.
        alpha: exponent of the score.
        beta: exponent of the IoU.

    Returns:
        Assignment with ``quality`` = IoU of the predicted with the matched box, 0 elsewhere, and
        ``extras['assign_metrics']`` (N,) = its alignment, 0 elsewhere.

    Differs from mmdet: quality is 0 where nothing is matched (mmdet: -1e8).
    """
    num_priors, num_gts = iou.shape
    nothing = iou.new_zeros(num_priors)
    if num_gts == 0 or num_priors == 0:
        return Assignment(all_negative(num_priors, iou), nothing, {"assign_metrics": nothing})

    alignment = class_scores**alpha * iou**beta  # (N, M)
    candidate_alignment, candidates = alignment.topk(min(topk, num_priors), dim=0)  # (K, M)
    x, y = box_center(priors)
    inside = border_distance(x[candidates], y[candidates], gts) > INSIDE
    candidate_iou = iou.gather(0, candidates)
    gt_index, row = keep_best(candidates, inside & (candidate_alignment > 0), candidate_iou, num_priors)
    matched, column = gt_index >= 0, gt_index.clamp(min=0)
    metrics = torch.where(matched, candidate_alignment[row, column], 0)
    return Assignment(gt_index, torch.where(matched, candidate_iou[row, column], 0), {"assign_metrics": metrics})


@register
class TaskAlignedAssigner(OverlapMixin, BaseAssigner):
    """Assign priors by the alignment of their classification and localisation: TOOD.

    Args:
        topk: candidates per ground truth over all levels; 13 in the paper.
        iou_calculator: configuration or object; plain IoU if None.
    """

    def __init__(self, topk: int, iou_calculator: Any = None) -> None:
        if topk < 1:
            self.fail(f"topk is {topk}; at least 1 candidate is needed")
        self.topk = topk
        self.build_calculator(iou_calculator)

    @torch.no_grad()
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any = None,
        alpha: float = 1,
        beta: float = 6,
        *,
        num_level_priors: Sequence[int] | None = None,
        img_meta: Mapping[str, Any] | None = None,
    ) -> AssignResult:
        """Assign the priors of one image.

        Args:
            pred_instances: with ``priors`` (N, 4) xyxy, ``bboxes`` (N, 4) decoded in the scale of the ground truths,
                and ``scores`` (N, C) probabilities; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: not used: the method defines no ignore regions.
            alpha: exponent of the score.
            beta: exponent of the IoU.
            num_level_priors: accepted so that assigners can be exchanged; not used.
            img_meta: accepted for the same reason; not used.

        Returns:
            AssignResult whose ``max_overlaps`` (N,) is the IoU of the match, 0 where there is none, with the plain
            attribute ``assign_metrics`` (N,) that TOODHead reads.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite or no probability.
        """
        priors = self.read(pred_instances, "pred_instances", "priors", columns=4)[:, :4]
        boxes = self.read(pred_instances, "pred_instances", "bboxes", columns=4)
        scores = self.read(pred_instances, "pred_instances", "scores", columns=1)
        gts, labels = self.read_ground_truths(gt_instances)
        self.check_lengths(priors=priors, bboxes=boxes, scores=scores)
        self.check_probabilities(scores)
        self.check_labels(labels, scores.shape[1])
        assignment = task_aligned(priors, gts, scores[:, labels], self.overlaps(boxes, gts), self.topk, alpha, beta)
        result = to_assign_result(Assignment(assignment.gt_index, assignment.quality), labels)
        result.assign_metrics = assignment.extras["assign_metrics"]
        return result
