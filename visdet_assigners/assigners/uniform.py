"""Uniform: every object gets the same number of positives, large or small.

Chen et al., YOLOF, CVPR 2021, arXiv:2103.09460, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.base import PREDICTING
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import DenseAssigner, DenseCommon
from visdet_assigners.assigners.forms import TRUTHS, Names
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, all_negative
from visdet_assigners.functional.blocks import split
from visdet_assigners.functional.boxes import common_origin, l1_distance, xyxy_to_cxcywh
from visdet_assigners.functional.overlaps import IOU, Measure, best_ground_truths, overlap_table, overlaps_of_pairs
from visdet_assigners.functional.select import top
from visdet_assigners.functional.validity import Kind, is_dropped
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import number, whole_number
from visdet_assigners.registry import register


def nearest_boxes(boxes: Tensor, gts: Tensor, count: int) -> Tensor:
    """The boxes nearest to each ground truth by the L1 distance of centre and size: (M, count) rows of ``boxes``."""
    own, theirs = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(gts)
    blocks = split(len(gts), 2 * boxes.element_size() * len(boxes), boxes.device)
    return torch.cat([top(l1_distance(theirs[block], own), count, dim=1, largest=False)[1] for block in blocks])


@checked(
    {"topk": whole_number, "pos_ignore_thr": number, "neg_ignore_thr": number}, keeps_gradient=True,
    priors="boxes", gts="truths", boxes="predicted",
)  # fmt: skip
def uniform(
    priors: Tensor,
    gts: Tensor,
    boxes: Tensor,
    pos_ignore_thr: float,
    neg_ignore_thr: float,
    topk: int = 4,
    measure: Measure = IOU,
    overlaps_at: Callable[[Tensor, Tensor, Tensor], Tensor] = overlaps_of_pairs,
) -> Assignment:
    """Match each ground truth with its nearest anchors and its nearest predictions.

    Every ground truth takes the ``topk`` anchors and the ``topk`` predictions nearest to it; one whose
    anchor overlaps it by less than ``pos_ignore_thr`` is ignored.  What is taken by nobody is negative, or ignored
    when its prediction overlaps some ground truth by more than ``neg_ignore_thr``.  Taken twice, the last taker wins.

    Args:
        priors: (N, 4) xyxy, the anchors; N may be 0.
        gts: (M, 4) xyxy; M may be 0.
        boxes: (N, 4) xyxy, predicted at the anchors.
        pos_ignore_thr: least IoU of a taken anchor.
        neg_ignore_thr: IoU of a prediction above which an anchor is not negative.
        topk: anchors and predictions per ground truth; fewer priors give all they have.
        measure: what takes the place of the IoU.
        overlaps_at: gives the overlaps of boxes (N, 4) and ground truths (M, 4) at (M, K) rows of the boxes.

    Returns:
        Assignment with ``quality`` = best IoU of each anchor, and in the extras, for P = 2 * topk * M pairs in
        the order of YOLOF's loss: ``pos_idx`` (P,) bool, the pairs that are not ignored, ``pos_predicted_boxes`` (P,
        4) and ``target_boxes`` (P, 4).
    """
    num_anchors, num_gts = len(priors), len(gts)
    if num_gts == 0 or num_anchors == 0:
        nothing = {"pos_idx": boxes.new_zeros(0, dtype=torch.bool)}
        nothing |= {name: boxes.new_zeros(0, 4) for name in ("pos_predicted_boxes", "target_boxes")}
        return Assignment(all_negative(num_anchors, boxes), boxes.new_zeros(num_anchors), nothing)
    count = min(topk, num_anchors)
    with torch.no_grad():
        origin = common_origin(gts)
        nearest = torch.stack(
            [nearest_boxes(own - origin, gts - origin, count) for own in (boxes, priors)], dim=2
        ).flatten(1)
        near_enough = overlaps_at(priors, gts, nearest) >= pos_ignore_thr  # (M, 2 * count)
        counts = (near_enough & ~(is_dropped(priors)[nearest] | is_dropped(gts)[:, None])).T.flatten()
        best_anchor, best_predicted = (
            best_ground_truths(overlap_table(own[:, None], gts, measure))[0] for own in (priors, boxes)
        )  # (N,) each
    taken = nearest.T.flatten()  # (P,), of (M, 2 * count)
    taker = torch.arange(num_gts, device=gts.device).repeat(2 * count)

    # The pair that comes last decides, the same on every device; none of a ground truth that is dropped.
    pair = torch.arange(len(taken), device=taken.device)
    pair = pair.masked_fill(is_dropped(gts)[taker], -1)
    last = taken.new_full((num_anchors,), -1).scatter_reduce(0, taken, pair, "amax")
    decided = torch.where(counts, taker, IGNORED)[last.clamp(min=0)]
    untaken = torch.where(best_predicted > neg_ignore_thr, IGNORED, NEGATIVE)
    extras = {"pos_idx": counts, "pos_predicted_boxes": boxes[taken], "target_boxes": gts[taker]}
    return Assignment(torch.where(last >= 0, decided, untaken), best_anchor, extras)


@register
class UniformAssigner(DenseAssigner):
    """Assign each ground truth the same number of anchors and predictions: YOLOF.

    Reads ``priors`` (N, 4) xyxy, the anchors, and ``decoder_priors`` (N, 4) xyxy, the decoded predictions.  Result:
    ``max_overlaps`` (N,) is the best IoU of each anchor, with the extra properties that YOLOFHead reads, see
    ``uniform``; ``pos_predicted_boxes`` carries the gradient of the predictions.

    Args:
        pos_ignore_thr: a taken anchor that overlaps its ground truth by less is ignored.
        neg_ignore_thr: an anchor whose prediction overlaps a ground truth by more is ignored instead of negative.
        match_times: anchors and predictions per ground truth.
        anchors_only: whether the anchors stand for predictions, too: each ground truth takes its ``match_times``
            nearest anchors, and what nobody takes is ignored where the anchor itself overlaps a ground truth by more
            than ``neg_ignore_thr``.  Then ``decoder_priors`` are not read.
        iou_calculator: configuration or object; plain IoU if None.
        **common: see ``DenseAssigner``.

    What ``min_positives`` adds is learnt by the class alone: YOLOF's boxes learn from the extra properties.

    Differs from mmdet: ``match_times`` may exceed the number of anchors, and ``max_overlaps`` has length N (mmdet: M,
    or None without ground truths).
    """

    knobs: ClassVar[str] = "raise match_times, or lower pos_ignore_thr, which drops positives that fit badly"
    heads: ClassVar[str] = f"{PREDICTING}; with anchors_only also VFNet, YOLOv3, SABL, RepPoints"
    reads: ClassVar[Mapping[str, Kind]] = {"priors": "boxes", "decoder_priors": "predicted"}
    mmdet2: ClassVar[Names] = ("bbox_pred=pred_instances.decoder_priors", "anchor", *TRUTHS)
    keeps_gradient: ClassVar[bool] = True

    def __init__(
        self,
        pos_ignore_thr: float,
        neg_ignore_thr: float,
        match_times: int = 4,
        iou_calculator: Any = None,
        anchors_only: bool = False,
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        self.pos_ignore_thr = self.number_of("pos_ignore_thr", pos_ignore_thr)
        self.neg_ignore_thr = self.number_of("neg_ignore_thr", neg_ignore_thr)
        self.match_times = self.count_of("match_times", match_times)
        self.anchors_only = anchors_only
        self.build_calculator(iou_calculator)

    @classmethod
    def reads_of(cls, assigner: Any) -> Mapping[str, Kind]:
        """The anchors, and what is predicted at them unless they are to do."""
        return {"priors": "boxes"} if getattr(assigner, "anchors_only", False) else cls.reads

    def fields_of(self, pred_instances: Any) -> Mapping[str, Kind]:
        """What ``reads_of`` says."""
        return self.reads_of(self)

    def pads(self) -> bool:
        """Whether ground truths may be padded: not here, where the result has an entry for each pair."""
        return False

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        anchors = image.fields["priors"]
        boxes = image.fields.get("decoder_priors", anchors)
        numbers = (self.pos_ignore_thr, self.neg_ignore_thr, self.match_times)
        return self.run(uniform, anchors, image.gts, boxes, *numbers, self.measure, self.overlaps_at)
