"""POTO: one prior for each object, the one whose prediction fits best, so that nothing need be suppressed.

Wang et al., "End-to-end object detection with fully convolutional network", CVPR 2021, arXiv:2012.03544, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.base import PREDICTING
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import FINER, DenseAssigner, DenseCommon
from visdet_assigners.assigners.forms import in_any_form
from visdet_assigners.assigners.sim_ota import any_ground_truth, near_and_inside
from visdet_assigners.assignment import NEGATIVE, Assignment, AssignResult, all_negative
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import box_area, box_center
from visdet_assigners.functional.geometry import UPRIGHT
from visdet_assigners.functional.lsap import matched_columns
from visdet_assigners.functional.overlaps import IOU, Measure
from visdet_assigners.functional.resolve import first_true, keep_best
from visdet_assigners.functional.tensors import evenly
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import number
from visdet_assigners.registry import register

Matching = Literal["argmax", "hungarian"]
PriorForm = Literal["points", "boxes"]
ScoreForm = Literal["logits", "probabilities"]


@checked(
    {"alpha": number, "center_radius": number},
    points="strided", gts="truths", boxes="predicted", scores="probabilities", labels="labels",
)  # fmt: skip
def poto(
    points: Tensor,
    gts: Tensor,
    labels: Tensor,
    boxes: Tensor,
    scores: Tensor,
    alpha: float = 0.8,
    center_radius: float = 1.5,
    matching: Matching = "argmax",
    measure: Measure = IOU,
) -> Assignment:
    """Match each ground truth with one point.

    The quality of a point for a ground truth is score^(1 - alpha) * IoU^alpha of what it predicts, and 0 unless
    it lies inside the box and within ``center_radius`` strides of its centre.  The matching has the largest sum of
    qualities; or each ground truth takes the point that is best for it ("argmax"), and one that several take
    goes to the larger quality.  A quality of 0 makes no match.

    Args:
        points: (N, 4) x, y and stride in x and y, or (N, 3) with one stride, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        labels: (M,) classes.
        boxes: (N, 4) xyxy, predicted.
        scores: (N, C) probabilities.
        alpha: share of the IoU, 0 to 1.
        center_radius: half side of the central square, in strides.
        matching: "argmax", or "hungarian" for the largest sum, which copies one matrix to the host.
        measure: what takes the place of the IoU of ground truths and predicted boxes.

    Returns:
        Assignment with ``quality`` = IoU of the predicted with the matched box, 0 elsewhere, and
        ``extras['assign_metrics']`` (N,), the quality of the match, 0 elsewhere.

    The simple choice does about as well as the matching (paper): a ground truth that loses its point has none in this
    step, and the next step's predictions differ.
    """
    num_points, num_gts = len(points), len(gts)
    if num_points == 0 or num_gts == 0:
        nothing = boxes.new_zeros(num_points)
        return Assignment(all_negative(num_points, points), nothing, {"assign_metrics": nothing})

    def near(block: Tensor) -> Tensor:
        inside, central = near_and_inside(points, block, center_radius)
        return (inside & central).any(dim=0)

    if static_shapes(points.device):
        rows = torch.arange(num_points, device=points.device)
    else:  # the points that come into question, at least one
        rows = any_ground_truth(near, gts, num_points, UPRIGHT).nonzero()[:, 0]
        rows = rows if len(rows) else rows.new_zeros(1)
    own_points, own_boxes, by_class = points[rows], boxes[rows], scores[rows].T.contiguous()  # (C, K)

    def qualities(block: slice) -> tuple[Tensor, Tensor]:
        iou = measure.overlaps(gts[block], own_boxes)  # (m, K)
        quality = evenly(lambda score: score ** (1 - alpha), by_class[labels[block]])
        quality = quality * evenly(lambda overlap: overlap**alpha, iou)
        inside, central = near_and_inside(own_points, gts[block], center_radius)
        return iou, quality.masked_fill_(~(inside & central), 0)

    blocks = split(num_gts, 12 * 4 * len(rows), points.device, least=1 if measure.blockwise else num_gts)
    if matching == "hungarian":
        quality = torch.cat([qualities(block)[1] for block in blocks])  # (M, K)
        column = matched_columns([-quality.T[None]], [[num_gts]])[0][0]  # (K,)
        gt = column.clamp(min=0)
        best = quality.gather(0, gt[None])[0]
        index = torch.where((column >= 0) & (best > 0), column, NEGATIVE)
        metrics = best.where(index >= 0, 0.0)
    else:
        best, row = (torch.cat(each) for each in zip(*(best_of_each(qualities(block)[1]) for block in blocks)))  # (M,)
        index, _ = keep_best(row[None], best[None] > 0, best[None], len(rows))
        metrics = best[index.clamp(min=0)].where(index >= 0, 0.0)
    overlap = torch.zeros_like(metrics)
    for block in blocks:
        here = (index >= block.start) & (index < block.stop)
        own = (index - block.start).clamp(0, block.stop - block.start - 1)
        iou = measure.overlaps(gts[block], own_boxes).gather(0, own[None])[0]
        overlap = torch.where(here, iou, overlap)
    gt_index = all_negative(num_points, points).index_copy(0, rows, index)
    quality, metrics = (points.new_zeros(num_points).index_copy(0, rows, each) for each in (overlap, metrics))
    return Assignment(gt_index, quality, {"assign_metrics": metrics})


def best_of_each(quality: Tensor) -> tuple[Tensor, Tensor]:
    """The largest entry of each row and the first place of it: (m, K) -> two (m,)."""
    best = quality.amax(dim=1)
    return best, first_true((quality == best[:, None]).T)


def points_of(anchors: Tensor, scale: float) -> Tensor:
    """Points with their strides in place of anchors: (N, 4) xyxy, sides in strides -> (N, 4) x, y, stride, stride."""
    x, y = box_center(anchors)
    stride = box_area(anchors).clamp(min=0).sqrt() / scale
    return torch.stack([x, y, stride, stride], dim=1)


@register
class POTOAssigner(DenseAssigner):
    """Assign each ground truth one prior by what it predicts, for detectors without suppression (NMS): POTO.

    Reads ``priors``, ``bboxes`` (N, 4) xyxy decoded, and ``scores`` (N, C), as RTMDet's head gives them, or YOLOX's
    with ``score_form="probabilities"``, or TOOD's with ``prior_form="boxes"``, too.  Result: ``max_overlaps`` (N,) is
    the IoU of the match, 0 where there is none, with the plain attributes ``assign_metrics`` (N,), its quality, and
    ``norm_metrics`` (N,), the IoU again: of one positive that is TOOD's target.

    What it is known to do: on COCO 39.2 AP without NMS, where FCOS has 41.4 with; on CrowdHuman 88.5 AP50 and 96.3
    recall, where FCOS has 86.1 and 94.2 (paper).  One positive an object teaches more slowly than many, hence the
    paper's auxiliary losses.  Test without NMS, for instance by ``nms=dict(type='nms', iou_threshold=1.0)``.

    Args:
        alpha: share of the IoU in the quality.
        center_radius: how far in strides from the centre of a box its positive may lie.
        matching: "argmax", or "hungarian" for the largest sum of qualities, which waits for a device once.
        prior_form: "points" (N, 3 or 4) x, y and stride, or "boxes" (N, 4) xyxy.
        anchor_scale: side of the boxes in strides; for "boxes".
        score_form: "logits" or "probabilities".
        iou_calculator: configuration or object; plain IoU if None.
        **common: see ``DenseAssigner``; "hungarian" isn't compiled.
    """

    knobs: ClassVar[str] = f"raise center_radius, or min_positives=1; {FINER}"
    heads: ClassVar[str] = PREDICTING
    mmdet2: ClassVar[None] = None
    reads: ClassVar[Mapping[str, Kind]] = {"priors": "strided", "bboxes": "predicted", "scores": "scores"}

    def __init__(
        self,
        alpha: float = 0.8,
        center_radius: float = 1.5,
        matching: Matching = "argmax",
        prior_form: PriorForm = "points",
        anchor_scale: float = 8.0,
        score_form: ScoreForm = "logits",
        iou_calculator: Any = None,
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        self.alpha = self.number_of("alpha", alpha, least=0, most=1)
        self.center_radius = self.number_of("center_radius", center_radius, above=0)
        self.matching = self.option_of("matching", matching, Matching)
        self.prior_form = self.option_of("prior_form", prior_form, PriorForm)
        self.anchor_scale = self.number_of("anchor_scale", anchor_scale, above=0)
        self.score_form = self.option_of("score_form", score_form, ScoreForm)
        self.build_calculator(iou_calculator)

    @classmethod
    def reads_of(cls, assigner: Any) -> Mapping[str, Kind]:
        """Points or boxes, and logits or probabilities."""
        priors: Kind = "strided" if assigner.prior_form == "points" else "boxes"
        scores: Kind = "scores" if assigner.score_form == "logits" else "probabilities"
        return {"priors": priors, "bboxes": "predicted", "scores": scores}

    @in_any_form
    def assign(  # type: ignore[override]
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any = None,
        alpha: float | None = None,
        beta: float | None = None,
        *,
        num_level_priors: Sequence[int] | None = None,
        img_meta: Mapping[str, Any] | None = None,
    ) -> AssignResult:
        """Assign the priors of one image.

        Args:
            pred_instances: with ``priors``, ``bboxes`` and ``scores``; N may be 0.
            gt_instances: as for every dense assigner, and so are the others.
            gt_instances_ignore: see there.
            alpha: not used: TOODHead passes its exponents.
            beta: not used.
            num_level_priors: see there.
            img_meta: see there.

        Raises:
            AssignerInputError: see there.
        """
        instances = (pred_instances, gt_instances, gt_instances_ignore)
        return super().assign(*instances, num_level_priors=num_level_priors, img_meta=img_meta)

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        priors, boxes, scores = image.fields.values()
        points = points_of(priors, self.anchor_scale) if self.prior_form == "boxes" else priors
        if self.score_form == "logits":
            scores = evenly(torch.sigmoid, scores)
        options = (self.alpha, self.center_radius, self.matching, self.measure)
        arguments = (points, image.gts, image.labels, boxes, scores, *options)
        on_host = self.matching == "hungarian"  # which isn't compiled
        decided = poto.__wrapped__(*arguments) if on_host else self.run(poto, *arguments)  # type: ignore[attr-defined]
        return Assignment(decided.gt_index, decided.quality, {**decided.extras, "norm_metrics": decided.quality})
