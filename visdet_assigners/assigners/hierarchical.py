"""Hierarchical: each ground truth takes its best few priors by their receptive fields, and then one more.

Xu et al., RFLA, ECCV 2022, arXiv:2208.08738, section 3.3.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.center_region import scale_boxes
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import DenseAssigner, DenseCommon
from visdet_assigners.assigners.max_iou import Threshold
from visdet_assigners.assigners.ranking import unmatched
from visdet_assigners.assignment import Assignment, all_negative
from visdet_assigners.functional.overlaps import (
    Measure,
    OverlapTable,
    best_ground_truths,
    overlap_table,
    top_priors,
)
from visdet_assigners.functional.resolve import keep_best, last_taker
from visdet_assigners.functional.similarities import kld, kld_reach
from visdet_assigners.inputs import Inputs
from visdet_assigners.iou_calculators import KLDOverlaps
from visdet_assigners.options import number, threshold_band, whole_number
from visdet_assigners.registry import register

Conflict = Literal["last", "best"]
FLOOR = 1e-3
"""Similarity up to which nothing is matched: an object in an image is above it, one of a hundredth of the size of the
priors too; one that lies 23 of its own sizes away from all priors isn't."""
DIVERGENCE = Measure(partial(kld, floor=FLOOR), kld_reach(FLOOR), blockwise=True)
"""RFLA's own."""


@checked(
    {"topk": whole_number, "more": whole_number, "ratio": number, "neg_iou_thr": threshold_band},
    priors="boxes", gts="truths",
)  # fmt: skip
def hierarchical(
    priors: Tensor,
    gts: Tensor,
    topk: int = 3,
    more: int = 1,
    ratio: float = 0.9,
    neg_iou_thr: Threshold = 0.8,
    conflict: Conflict = "last",
    measure: Measure = DIVERGENCE,
) -> Assignment:
    """Match each ground truth with its best priors in two passes.

    First each ground truth takes the ``topk`` priors that it overlaps most.  Then the priors shrink by ``ratio``, and
    each takes the ``more`` best of those that are still free.  In either pass a prior taken twice goes to the last
    taker.  Of the others, one whose largest overlap, at full size, lies below ``neg_iou_thr`` is negative, and the rest
    is ignored.

    Args:
        priors: (N, 4) xyxy, pixels, receptive fields; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        topk: priors per ground truth in the first pass; fewer priors give all they have.
        more: in the second.
        ratio: sides of the shrunk priors in parts of their own.
        neg_iou_thr: overlap below which a prior is negative, or (low, high): negative from low to below high.
        conflict: who gets a prior taken twice in a pass: the "last" taker, or the "best", whose overlap is the largest.
        measure: how priors and ground truths are compared; RFLA's `functional.similarities.kld` by default.

    Returns:
        Assignment with ``quality`` = largest overlap of each prior at full size.

    An overlap of 0 makes no match, and equal overlaps are ranked by the index of the prior.  Differs from the published
    code, which shrinks the caller's boxes in place, fails where there are fewer priors than ``topk``, and forgets
    ignore regions in the second pass.

    Example:
        >>> priors = torch.tensor([[0., 0., 8., 8.], [4., 0., 12., 8.], [8., 0., 16., 8.]])
        >>> hierarchical(priors, torch.tensor([[0., 0., 9., 9.]]), topk=1).gt_index
        tensor([ 0,  0, -1])
    """
    if len(priors) == 0 or len(gts) == 0:
        return Assignment(all_negative(len(priors), priors), priors.new_zeros(len(priors)))
    table = overlap_table(priors[:, None], gts, measure)
    largest = best_ground_truths(table)[0]  # (N,)
    first = takers(table, topk, len(priors), conflict)
    taken = first >= 0
    shrunk = overlap_table(scale_boxes(priors, ratio)[:, None], gts, measure, ignored=taken)
    second = takers(shrunk, more, len(priors), conflict)
    gt_index = torch.where(taken, first, second)
    return Assignment(torch.where(gt_index >= 0, gt_index, unmatched(largest, neg_iou_thr)), largest)


def takers(table: OverlapTable, topk: int, num_priors: int, conflict: Conflict) -> Tensor:
    """Let each ground truth take the priors that it overlaps most: (N,) int64, -1 where nobody takes a prior."""
    candidates, overlap = top_priors(table, min(topk, num_priors))  # (K, M) each
    if conflict == "best":
        return keep_best(candidates, overlap > 0, overlap, num_priors)[0]
    return last_taker(candidates, overlap > 0, num_priors)


@register
class HierarchicalAssigner(DenseAssigner):
    """Assign each ground truth its best few priors, and one more of those still free: RFLA.

    Reads ``priors`` (N, 4) xyxy, meant to be as large as what a location sees: plain anchors, as
    ``AnchorGenerator(base_sizes=[22.5, 45.5, 133.5, 213.5, 277.5], scales=[1.0], ratios=[0.5, 1.0, 2.0], strides=[4, 8,
    16, 32, 64])`` of the published configs.  Result: ``max_overlaps`` (N,) is the largest overlap of each prior.

    What it is known to do: 21.1 AP on AI-TOD with Faster R-CNN, where IoU has 11.1 (arXiv:2208.08738, table 1).  All
    objects get ``topk`` + ``more`` positives, large ones too.

    Args:
        topk: priors per ground truth in the first pass.
        more: in the second pass.
        ratio: sides of the priors in the second pass, in parts of their own.
        neg_iou_thr: overlap below which a prior is negative, or a pair (low, high), also as a list.
        conflict: who gets a prior taken twice in a pass: the "last" taker, as in RFLA, or the "best", whose overlap is
            the largest.
        iou_calculator: configuration or object; RFLA's ``KLDOverlaps`` with a low floor if None.
        **common: see ``DenseAssigner``.
    """

    knobs: ClassVar[str] = "raise topk; anchors of the size of the receptive fields"

    def __init__(
        self,
        topk: int = 3,
        more: int = 1,
        ratio: float = 0.9,
        neg_iou_thr: Threshold = 0.8,
        conflict: Conflict = "last",
        iou_calculator: Any = None,
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        self.topk = self.count_of("topk", topk)
        self.more = self.count_of("more", more)
        self.ratio = self.number_of("ratio", ratio, above=0)
        self.neg_iou_thr = threshold_band("HierarchicalAssigner", "neg_iou_thr", neg_iou_thr)
        self.conflict = self.option_of("conflict", conflict, Conflict)
        self.build_calculator(KLDOverlaps(floor=FLOOR) if iou_calculator is None else iou_calculator)

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        options = (self.topk, self.more, self.ratio, self.neg_iou_thr, self.conflict, self.measure)
        return self.run(hierarchical, image.fields["priors"], image.gts, *options)
