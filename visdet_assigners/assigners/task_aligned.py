"""Task-aligned assignment: the predictions that classify and localise best learn most.

Feng et al., TOOD, ICCV 2021, arXiv:2108.07755, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner, OverlapMixin
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import border_distance, box_center, box_iou
from visdet_assigners.functional.overlaps import Overlaps, overlap_table, overlapping_pairs
from visdet_assigners.functional.resolve import keep_best
from visdet_assigners.functional.select import largest_of_each
from visdet_assigners.functional.tensors import evenly
from visdet_assigners.registry import register

INSIDE = 0.01
"""Pixels by which a centre must lie inside a box."""


def task_aligned(
    priors: Tensor,
    gts: Tensor,
    labels: Tensor,
    boxes: Tensor,
    scores: Tensor,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    overlaps: Overlaps = box_iou,
    reach: float | None = 0.0,
) -> Assignment:
    """Match priors to the ground truths of one image by how well their predictions fit.

    The alignment of a prior with a ground truth is score^alpha * IoU^beta (eq. 4) of what it predicts.  A prior is
    positive for a ground truth when it is among its ``topk`` best aligned, the alignment is above 0, and the prior's
    centre lies inside the box.  Claimed twice, it goes to the higher IoU.

    Args:
        priors: (N, 4) xyxy, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        labels: (M,) classes.
        boxes: (N, 4) xyxy, predicted.
        scores: (N, C) probabilities.
        topk: candidates per ground truth, over all levels; fewer priors give all they have.
        alpha: exponent of the score.
        beta: exponent of the IoU.
        overlaps: gives the (M, N) overlaps of ground truths and predicted boxes.
        reach: pixels from which on boxes apart overlap by exactly 0, None if unknown.

    Returns:
        Assignment with ``quality`` = IoU of the predicted with the matched box, 0 elsewhere, and
        ``extras['assign_metrics']`` (N,) = its alignment, 0 elsewhere.

    Differs from mmdet: quality is 0 where nothing is matched (mmdet: -1e8).
    """
    num_priors, num_gts = len(priors), len(gts)
    nothing = boxes.new_zeros(num_priors)
    if num_gts == 0 or num_priors == 0:
        return Assignment(all_negative(num_priors, priors), nothing, {"assign_metrics": nothing})

    scores, topk = scores.T.contiguous(), min(topk, num_priors)  # (C, N)

    def align(score: Tensor, iou: Tensor) -> Tensor:
        return evenly(lambda value: value**alpha, score) * evenly(lambda value: value**beta, iou)

    def best_of_all(block: slice) -> tuple[Tensor, Tensor, Tensor]:
        iou = overlaps(gts[block], boxes)  # (m, N)
        best = align(scores[labels[block]], iou).topk(topk, dim=1)
        return best.indices, best.values, iou.gather(1, best.indices)

    def best_of_overlapping(block: slice) -> tuple[Tensor, Tensor, Tensor]:
        gt, prior, iou = overlapping_pairs(overlap_table(boxes[:, None], gts[block], overlaps, reach))  # (P,) each
        alignment = align(scores[labels[block][gt], prior], iou)
        pair = largest_of_each(alignment, gt, len(gts[block]), topk)  # (m, K), P where there are no more
        return tuple(torch.cat([each, each.new_zeros(1)])[pair] for each in (prior, alignment, iou))  # type: ignore

    best_of = best_of_all if static_shapes(gts.device) else best_of_overlapping
    # A pair takes up to 80 bytes: its place, its overlap and what becomes of that.
    found = [best_of(block) for block in split(num_gts, 80 * num_priors, gts.device, least=num_gts)]
    candidates, candidate_alignment, candidate_iou = (torch.cat(each).T for each in zip(*found))  # (K, M)
    x, y = box_center(priors)
    inside = border_distance(x[candidates], y[candidates], gts) > INSIDE
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

    def __init__(
        self,
        topk: int,
        iou_calculator: Any = None,
        *,
        memory_budget: int | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(memory_budget, compile)
        if topk < 1:
            self.fail(f"topk is {topk}; at least 1 candidate is needed")
        self.topk = topk
        self.build_calculator(iou_calculator)

    @within_memory
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
        numbers = (self.topk, alpha, beta)
        assignment = task_aligned(
            priors, gts[:, :4], labels, boxes[:, :4], scores, *numbers, overlaps=self.overlaps, reach=self.reach
        )
        result = to_assign_result(Assignment(assignment.gt_index, assignment.quality), labels)
        result.assign_metrics = assignment.extras["assign_metrics"]
        return result
