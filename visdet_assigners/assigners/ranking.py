"""Ranking: each ground truth takes its best few priors by a measure of overlap, whatever the values are.

Xu et al., "Detecting tiny objects in aerial images", NWD-RKA, arXiv:2206.13996, section 4.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import DenseAssigner, DenseCommon
from visdet_assigners.assigners.max_iou import Threshold, band_of
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, all_negative
from visdet_assigners.functional.overlaps import IOU, Measure, best_ground_truths, overlap_table, top_priors
from visdet_assigners.functional.resolve import keep_best
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import number, threshold_band, whole_number
from visdet_assigners.registry import register


@checked({"topk": whole_number, "neg_iou_thr": threshold_band, "min_pos_iou": number}, priors="boxes", gts="truths")
def ranking(
    priors: Tensor,
    gts: Tensor,
    topk: int = 2,
    neg_iou_thr: Threshold = 0.3,
    min_pos_iou: float = 0.0,
    measure: Measure = IOU,
) -> Assignment:
    """Match each ground truth with the priors that it overlaps most.

    A prior is positive for a ground truth when it is one of its ``topk`` best and their overlap is above 0 and reaches
    ``min_pos_iou``.  Claimed twice, it goes to the larger overlap.  Of the others, one whose largest overlap lies below
    ``neg_iou_thr`` is negative, and the rest is ignored.

    Args:
        priors: (N, 4) xyxy, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        topk: priors per ground truth; fewer priors give all they have.
        neg_iou_thr: overlap below which a prior is negative, or (low, high): negative from low to below high.
        min_pos_iou: least overlap of a positive.
        measure: what takes the place of the IoU.

    Returns:
        Assignment with ``quality`` = overlap with the matched box, elsewhere the largest overlap.

    Equal overlaps are ranked by the index of the prior, on every device.

    Example:
        >>> priors = torch.tensor([[0., 0., 8., 8.], [4., 0., 12., 8.], [30., 0., 38., 8.]])
        >>> ranking(priors, torch.tensor([[1., 1., 5., 5.]]), topk=1).gt_index
        tensor([ 0, -1, -1])
    """
    if len(priors) == 0 or len(gts) == 0:
        return Assignment(all_negative(len(priors), priors), priors.new_zeros(len(priors)))
    table = overlap_table(priors[:, None], gts, measure)
    largest = best_ground_truths(table)[0]  # (N,)
    candidates, overlap = top_priors(table, min(topk, len(priors)))  # (K, M) each
    claimed = (overlap > 0) & (overlap >= min_pos_iou)
    gt_index, row = keep_best(candidates, claimed, overlap, len(priors))
    matched = gt_index >= 0
    quality = torch.where(matched, overlap[row, gt_index.clamp(min=0)], largest)
    return Assignment(torch.where(matched, gt_index, unmatched(largest, neg_iou_thr)), quality)


def unmatched(largest: Tensor, neg_iou_thr: Threshold) -> Tensor:
    """`NEGATIVE` or `IGNORED`, by the largest overlap: (N,) -> (N,) int64."""
    low, high = band_of(neg_iou_thr)
    nothing = torch.full_like(largest, IGNORED, dtype=torch.long)
    return nothing.masked_fill_((largest >= low) & (largest < high), NEGATIVE)


@register
class RankingAssigner(DenseAssigner):
    """Assign each ground truth its best few priors by any measure of overlap: NWD-RKA.

    Reads ``priors`` (N, 4) xyxy.  Result: ``max_overlaps`` (N,) is the overlap with the matched box, elsewhere the
    largest overlap of the prior.

    No object that overlaps a prior stays without, unless neighbours take all of its best.  Every object has the same
    few positives, also a large one that many anchors fit: where objects are of all sizes, ATSS gives more.

    Args:
        topk: priors per ground truth.
        neg_iou_thr: overlap below which a prior is negative, or a pair (low, high), also as a list.
        min_pos_iou: least overlap of a positive; 0 takes whatever overlaps at all.
        iou_calculator: configuration or object; plain IoU if None.  The paper takes ``NWDOverlaps``, of which overlaps
            up to its ``floor`` count as none.
        **common: see ``DenseAssigner``.
    """

    knobs: ClassVar[str] = "raise topk, or rank by iou_calculator=dict(type='visdet_assigners.NWDOverlaps')"

    def __init__(
        self,
        topk: int = 2,
        neg_iou_thr: Threshold = 0.3,
        min_pos_iou: float = 0.0,
        iou_calculator: Any = None,
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        self.topk = self.count_of("topk", topk)
        self.build_calculator(iou_calculator)
        self.neg_iou_thr = threshold_band("RankingAssigner", "neg_iou_thr", neg_iou_thr)
        self.min_pos_iou = self.number_of("min_pos_iou", min_pos_iou, least=0)

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        options = (self.topk, self.neg_iou_thr, self.min_pos_iou, self.measure)
        return self.run(ranking, image.fields["priors"], image.gts, *options)
