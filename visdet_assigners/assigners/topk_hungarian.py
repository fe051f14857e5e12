"""TopkHungarian: one-to-one matching with every object repeated, so that each gets several predictions.

Zhang et al., DDQ, CVPR 2023, arXiv:2303.12776, section 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner, OverlapMixin
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.lsap import linear_assignment
from visdet_assigners.functional.tensors import as_float32
from visdet_assigners.registry import build, register


def topk_hungarian(cost: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """Match each ground truth with several predictions at the lowest total cost.

    Args:
        cost: (N, M), finite; M at least 1.
        topk: predictions per ground truth, cut to N // M.

    Returns:
        The matched predictions (P,), ascending, and their ground truths (P,); P = topk * M.

    Example:
        >>> topk_hungarian(torch.tensor([[1., 9.], [9., 1.], [2., 9.], [9., 2.]]), topk=2)
        (tensor([0, 1, 2, 3]), tensor([0, 1, 0, 1]))
    """
    topk = min(topk, len(cost) // cost.shape[1])
    if topk == 0:
        nothing = cost.new_zeros(0, dtype=torch.long)
        return nothing, nothing
    rows, columns = linear_assignment(cost.repeat_interleave(topk, dim=1))
    return rows, columns // topk


@register
class TopkHungarianAssigner(OverlapMixin, BaseAssigner):
    """Match each ground truth with several dense queries: the auxiliary loss of DDQ-DETR.

    Args:
        topk: predictions per ground truth.
        iou_calculator: configuration or object; plain IoU if None.
        cls_cost: configuration or object of the class cost; FocalLossCost of weight 2 if None.
        reg_cost: of the box cost; BBoxL1Cost of weight 5 if None.
        iou_cost: of the overlap cost; IoUCost giou of weight 2 if None.

    The class cost applies a sigmoid to scores that DDQ's head has already made probabilities; the published models were
    trained so, and mmdet's results are kept.
    """

    def __init__(
        self,
        topk: int,
        iou_calculator: Any = None,
        *,
        cls_cost: Any = None,
        reg_cost: Any = None,
        iou_cost: Any = None,
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
    ) -> None:
        super().__init__(memory_budget, compile, deterministic)
        if topk < 1:
            self.fail(f"topk is {topk}; at least 1 is needed")
        self.topk = topk
        self.build_calculator(iou_calculator)
        self.cls_cost = build(cls_cost or {"type": "FocalLossCost", "weight": 2.0})
        self.reg_cost = build(reg_cost or {"type": "BBoxL1Cost", "weight": 5.0})
        self.iou_cost = build(iou_cost or {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0})

    def assign_batch(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any] | None] | None = None,
        **shared: Any,
    ) -> list[AssignResult]:
        """Match B images, given as for other assigners: predictions with ``scores`` and ``bboxes``."""
        return [
            self.assign(pred.scores, pred.bboxes, gt.bboxes, gt.labels, img_meta=meta, **shared)
            for pred, gt, meta in self.images_of(pred_list, gt_list, img_metas)
        ]

    @within_memory
    @torch.no_grad()
    def assign(
        self,
        pred_scores: Tensor,
        decode_bboxes: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        img_meta: Mapping[str, Any],
        alpha: float = 1,
        beta: float = 6,
    ) -> AssignResult:
        """Match the predictions of one image; tensors, not instances, as in mmdet.

        Args:
            pred_scores: (N, C) probabilities; N may be 0.
            decode_bboxes: (N, 4) xyxy, pixels.
            gt_bboxes: (M, 4) xyxy, pixels; M may be 0.
            gt_labels: (M,).
            img_meta: with ``img_shape`` (height, width).
            alpha: exponent of the score in the alignment.
            beta: exponent of the IoU in the alignment.

        Returns:
            AssignResult whose ``max_overlaps`` (P,) is the IoU of the matched pairs alone, by ascending prediction, and
            with the plain attribute ``assign_metrics`` (P,), their alignment score^alpha * IoU^beta; DDQ's loss reads
            both at the positives.  Without ground truths ``max_overlaps`` is None.

        Raises:
            ValueError: a tensor has the wrong shape, a label is no class, or a cost is not finite, named with the
                image.

        Differs from mmdet: labels are -1 instead of None where there are more ground truths than predictions.
        """
        fields = SimpleNamespace(
            pred_scores=pred_scores, decode_bboxes=decode_bboxes, gt_bboxes=gt_bboxes, gt_labels=gt_labels
        )
        scores = self.read(fields, "arguments", "pred_scores", columns=1)
        boxes = self.read(fields, "arguments", "decode_bboxes", columns=4)
        gts, labels = self.read_ground_truths(SimpleNamespace(bboxes=gt_bboxes, labels=gt_labels))
        self.check_lengths(pred_scores=scores, decode_bboxes=boxes)
        self.check_labels(labels, scores.shape[1])
        unmatched = all_negative(len(scores), scores)
        if len(gts) == 0:
            return to_assign_result(Assignment(unmatched), labels)

        pred, gt = SimpleNamespace(scores=scores, bboxes=boxes), SimpleNamespace(labels=labels, bboxes=gts)
        cost = scores.new_zeros(())
        for match_cost in (self.cls_cost, self.reg_cost, self.iou_cost):
            term = match_cost(pred_instances=pred, gt_instances=gt, img_meta=img_meta)
            self.check_finite(term, type(match_cost).__name__, img_meta)
            cost = cost + as_float32(term)
        rows, columns = topk_hungarian(cost, self.topk)
        iou = self.overlaps(boxes, gts)
        alignment = scores[:, labels] ** alpha * iou**beta
        result = to_assign_result(Assignment(unmatched.index_copy(0, rows, columns), iou[rows, columns]), labels)
        result.assign_metrics = alignment[rows, columns]
        return result
