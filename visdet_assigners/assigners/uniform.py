"""Uniform: every object gets the same number of positives, large or small.

Chen et al., YOLOF, CVPR 2021, arXiv:2103.09460, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner, OverlapMixin
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.blocks import split
from visdet_assigners.functional.boxes import box_iou, common_origin, xyxy_to_cxcywh
from visdet_assigners.functional.inputs import Policy, taken_out
from visdet_assigners.functional.overlaps import Overlaps, best_ground_truths, overlap_table, overlaps_of_pairs
from visdet_assigners.functional.select import top
from visdet_assigners.registry import register


def nearest_boxes(boxes: Tensor, gts: Tensor, count: int) -> Tensor:
    """The boxes nearest to each ground truth by the L1 distance of centre and size: (M, count) rows of ``boxes``."""
    own, theirs = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(gts)
    blocks = split(len(gts), 2 * boxes.element_size() * len(boxes), boxes.device)
    return torch.cat([top(torch.cdist(theirs[block], own, p=1), count, dim=1, largest=False)[1] for block in blocks])


def uniform(
    anchors: Tensor,
    predicted: Tensor,
    gts: Tensor,
    pos_ignore_thr: float,
    neg_ignore_thr: float,
    match_times: int = 4,
    overlaps: Overlaps = box_iou,
    overlaps_at: Callable[[Tensor, Tensor, Tensor], Tensor] = overlaps_of_pairs,
    reach: float | None = 0.0,
) -> Assignment:
    """Match each ground truth with its nearest anchors and its nearest predictions.

    Every ground truth takes the ``match_times`` anchors and the ``match_times`` predictions nearest to it; one whose
    anchor overlaps it by less than ``pos_ignore_thr`` is ignored.  What is taken by nobody is negative, or ignored
    when its prediction overlaps some ground truth by more than ``neg_ignore_thr``.  Taken twice, the last taker wins.

    Args:
        anchors: (N, 4) xyxy; N may be 0.
        predicted: (N, 4) xyxy, the decoded predictions of the anchors.
        gts: (M, 4) xyxy; M may be 0.
        pos_ignore_thr: least IoU of a taken anchor.
        neg_ignore_thr: IoU of a prediction above which an anchor is not negative.
        match_times: anchors and predictions per ground truth; fewer priors give all they have.
        overlaps: gives the (M, N) overlaps of ground truths and boxes.
        overlaps_at: gives those of boxes (N, 4) and ground truths (M, 4) at (M, K) rows of the boxes.
        reach: pixels from which on boxes apart overlap by exactly 0, None if unknown.

    Returns:
        Assignment with ``quality`` = best IoU of each anchor, and in the extras, for P = 2 * match_times * M pairs in
        the order of YOLOF's loss: ``pos_idx`` (P,) bool, the pairs that are not ignored, ``pos_predicted_boxes`` (P,
        4) and ``target_boxes`` (P, 4).
    """
    num_anchors, num_gts = len(anchors), len(gts)
    if num_gts == 0 or num_anchors == 0:
        nothing = {"pos_idx": predicted.new_zeros(0, dtype=torch.bool)}
        nothing |= {name: predicted.new_zeros(0, 4) for name in ("pos_predicted_boxes", "target_boxes")}
        return Assignment(all_negative(num_anchors, predicted), predicted.new_zeros(num_anchors), nothing)
    count = min(match_times, num_anchors)
    with torch.no_grad():
        origin = common_origin(gts)
        nearest = torch.stack(
            [nearest_boxes(boxes - origin, gts - origin, count) for boxes in (predicted, anchors)], dim=2
        ).flatten(1)
        near_enough = overlaps_at(anchors, gts, nearest) >= pos_ignore_thr  # (M, 2 * count)
        counts = (near_enough & ~(taken_out(anchors)[nearest] | taken_out(gts)[:, None])).T.flatten()
        best_anchor, best_predicted = (
            best_ground_truths(overlap_table(boxes[:, None], gts, overlaps, reach))[0] for boxes in (anchors, predicted)
        )  # (N,) each
    taken = nearest.T.flatten()  # (P,), of (M, 2 * count)
    taker = torch.arange(num_gts, device=gts.device).repeat(2 * count)

    # The pair that comes last decides, the same on every device; none of a ground truth that is taken out.
    pair = torch.arange(len(taken), device=taken.device)
    pair = pair.masked_fill(taken_out(gts)[taker], -1)
    last = taken.new_full((num_anchors,), -1).scatter_reduce(0, taken, pair, "amax")
    decided = torch.where(counts, taker, IGNORED)[last.clamp(min=0)]
    untaken = torch.where(best_predicted > neg_ignore_thr, IGNORED, NEGATIVE)
    extras = {"pos_idx": counts, "pos_predicted_boxes": predicted[taken], "target_boxes": gts[taker]}
    return Assignment(torch.where(last >= 0, decided, untaken), best_anchor, extras)


@register
class UniformAssigner(OverlapMixin, BaseAssigner):
    """Assign each ground truth the same number of anchors and predictions: YOLOF.

    Args:
        pos_ignore_thr: a taken anchor that overlaps its ground truth by less is ignored.
        neg_ignore_thr: an anchor whose prediction overlaps a ground truth by more is ignored instead of negative.
        match_times: anchors and predictions per ground truth.
        iou_calculator: configuration or object; plain IoU if None.

    Differs from mmdet: ``match_times`` may exceed the number of anchors, and ``max_overlaps`` has length N (mmdet: M,
    or None without ground truths).
    """

    def __init__(
        self,
        pos_ignore_thr: float,
        neg_ignore_thr: float,
        match_times: int = 4,
        iou_calculator: Any = None,
        *,
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        super().__init__(memory_budget, compile, deterministic, on_nonfinite)
        if match_times < 1:
            self.fail(f"match_times is {match_times}; at least 1 is needed")
        self.pos_ignore_thr = pos_ignore_thr
        self.neg_ignore_thr = neg_ignore_thr
        self.match_times = match_times
        self.build_calculator(iou_calculator)

    @within_memory
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any = None,
        *,
        num_level_priors: Sequence[int] | None = None,
        img_meta: Mapping[str, Any] | None = None,
    ) -> AssignResult:
        """Assign the anchors of one image.

        Args:
            pred_instances: with ``priors`` (N, 4) xyxy, the anchors, and ``decoder_priors`` (N, 4) xyxy, the decoded
                predictions; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: not used: the method defines no ignore regions.
            num_level_priors: accepted so that assigners can be exchanged; not used.
            img_meta: accepted for the same reason; not used.

        Returns:
            AssignResult whose ``max_overlaps`` (N,) is the best IoU of each anchor, with the extra properties that
            YOLOFHead reads, see ``uniform``; ``pos_predicted_boxes`` carries the gradient of the predictions.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite.
        """
        anchors, predicted = self.read_predictions(pred_instances, priors="boxes", decoder_priors="predicted")
        gts, labels = self.read_ground_truths(gt_instances)
        self.without_regions(gt_instances_ignore)
        assignment = self.run(
            uniform,
            anchors,
            predicted,
            gts,
            self.pos_ignore_thr,
            self.neg_ignore_thr,
            self.match_times,
            self.overlaps,
            self.overlaps_at,
            self.reach,
        )
        return to_assign_result(assignment, labels)
