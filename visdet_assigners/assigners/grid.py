"""Grid: the cell that holds an object's centre answers for it.

Redmon and Farhadi, YOLOv3, arXiv:1804.02767, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import DenseAssigner, DenseCommon
from visdet_assigners.assigners.forms import Names
from visdet_assigners.assigners.max_iou import THRESHOLDS, Threshold, band_of
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, all_negative
from visdet_assigners.functional.blocks import static_shapes
from visdet_assigners.functional.overlaps import (
    IOU,
    Measure,
    OverlapTable,
    best_ground_truths,
    best_priors,
    overlap_table,
)
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs
from visdet_assigners.registry import register


@checked(THRESHOLDS, priors="boxes", gts="truths", responsible="flags")
def grid(
    priors: Tensor,
    gts: Tensor,
    responsible: Tensor,
    pos_iou_thr: float,
    neg_iou_thr: Threshold,
    min_pos_iou: float = 0.0,
    gt_max_assign_all: bool = True,
    measure: Measure = IOU,
) -> Assignment:
    """Match responsible priors by thresholds on the overlaps.

    A prior is negative when its best IoU is at most ``neg_iou_thr``, and ignored above.  A responsible prior is
    positive for its best ground truth when that IoU is above ``pos_iou_thr``.  Then every ground truth takes the
    responsible prior that overlaps it most; of several ground truths the last wins.

    Args:
        priors: (N, 4) xyxy; N may be 0.
        gts: (M, 4) xyxy; M may be 0.
        responsible: (N,) bool, priors of the cells that hold a centre.
        pos_iou_thr: IoU above which a responsible prior is positive.
        neg_iou_thr: IoU up to which a prior is negative, or (low, high): above low and up to high.
        min_pos_iou: IoU above which a ground truth takes its best prior.
        gt_max_assign_all: a ground truth takes all the priors that share its best IoU; otherwise the first.
        measure: what takes the place of the IoU.

    Returns:
        Assignment with ``quality`` = best IoU of responsible priors, -1 of others.
    """
    if len(gts) == 0 or len(priors) == 0:
        return Assignment(all_negative(len(priors), priors), priors.new_zeros(len(priors)))
    low, high = band_of(neg_iou_thr)
    candidates = priors[:, None]  # (N, 1, 4)
    best, _, _ = best_ground_truths(overlap_table(candidates, gts, measure))
    above_low = best > low if isinstance(neg_iou_thr, Sequence) else best >= low
    gt_index = torch.where(above_low & (best <= high), NEGATIVE, IGNORED)

    if static_shapes(gts.device):
        table = overlap_table(candidates, gts, measure, ignored=~responsible)
        decided, quality = match_responsible(table, pos_iou_thr, min_pos_iou, gt_max_assign_all)
        return Assignment(torch.where(responsible & (decided >= 0), decided, gt_index), quality)
    rows, quality = responsible.nonzero()[:, 0], torch.full_like(best, -1)
    if len(rows):
        table = overlap_table(candidates[rows], gts, measure)
        decided, overlap = match_responsible(table, pos_iou_thr, min_pos_iou, gt_max_assign_all)
        gt_index = gt_index.index_copy(0, rows, torch.where(decided >= 0, decided, gt_index[rows]))
        quality = quality.index_copy(0, rows, overlap)
    return Assignment(gt_index, quality)


def match_responsible(
    table: OverlapTable, pos_iou_thr: float, min_pos_iou: float, gt_max_assign_all: bool
) -> tuple[Tensor, Tensor]:
    """The positives among responsible priors, (N,) with -1 for the others, and the best overlap of each, (N,)."""
    quality, best_gt, block_best = best_ground_truths(table, least=pos_iou_thr)
    taken_by = best_priors(table, block_best, block_best.amax(dim=0) > min_pos_iou, gt_max_assign_all)
    gt_index = torch.where(quality > pos_iou_thr, best_gt, -1)
    return torch.where(taken_by >= 0, taken_by, gt_index), quality


@register
class GridAssigner(DenseAssigner):
    """Assign anchors of the cells that hold object centres: YOLOv3.

    Reads ``priors`` (N, 4) xyxy and ``responsible_flags`` (N,) bool or 0 and 1.  Result: ``max_overlaps`` (N,) is the
    best IoU of responsible anchors, -1 of others.

    Args:
        pos_iou_thr: IoU above which a responsible anchor is positive.
        neg_iou_thr: IoU up to which an anchor is negative, or a pair (low, high), also as a list.
        min_pos_iou: IoU above which a ground truth takes its best responsible anchor.
        gt_max_assign_all: a ground truth takes all the anchors that share its best IoU; otherwise the first.
        iou_calculator: configuration or object; plain IoU if None.
        **common: see ``DenseAssigner``.

    Differs from mmdet: an int as ``neg_iou_thr`` works.
    """

    knobs: ClassVar[str] = "two objects in one cell compete for its anchors: a finer stride, or more anchors in a cell"
    heads: ClassVar[str] = "YOLOV3Head"
    reads: ClassVar[Mapping[str, Kind]] = {"priors": "boxes", "responsible_flags": "flags"}
    mmdet2: ClassVar[Names] = ("bboxes", "box_responsible_flags", "gt_bboxes", "gt_labels")
    needs_geometry: ClassVar[bool] = False
    priors_first: ClassVar[bool] = False

    def __init__(
        self,
        pos_iou_thr: float,
        neg_iou_thr: Threshold,
        min_pos_iou: float = 0.0,
        gt_max_assign_all: bool = True,
        iou_calculator: Any = None,
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        self.build_calculator(iou_calculator)
        self.set_thresholds(pos_iou_thr, neg_iou_thr, min_pos_iou)
        self.gt_max_assign_all = gt_max_assign_all

    def free_priors(self, assignment: Assignment, image: Inputs) -> Tensor:
        """Responsible anchors alone: the head encodes the place of an object within its cell."""
        return super().free_priors(assignment, image) & image.fields["responsible_flags"]

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        priors, responsible = image.fields.values()
        thresholds = (self.pos_iou_thr, self.neg_iou_thr, self.min_pos_iou, self.gt_max_assign_all)
        return self.run(grid, priors, image.gts, responsible, *thresholds, self.measure_in(image, "priors"))
