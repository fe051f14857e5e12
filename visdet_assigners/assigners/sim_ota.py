"""SimOTA: each ground truth takes its cheapest few predictions, how few is its own.

Ge et al., YOLOX, arXiv:2107.08430, section 2.2; after OTA, CVPR 2021, arXiv:2103.14259.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.base import PREDICTING
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import FINER, DenseAssigner, DenseCommon
from visdet_assigners.assigners.forms import Names
from visdet_assigners.assignment import Assignment, all_negative
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.costs import one_hot_costs
from visdet_assigners.functional.geometry import PAIR, UPRIGHT, Geometry
from visdet_assigners.functional.overlaps import IOU, Measure
from visdet_assigners.functional.resolve import Conflict, match_dynamic_k
from visdet_assigners.functional.tensors import as_float32
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import not_negative, number, whole_number
from visdet_assigners.registry import register

OUTSIDE = 1e5
"""Added to the cost of a prior that is not both inside a box and near its centre."""
APART = 1e6
"""The same under "center"."""
EPS = 1e-7
CandidateRegion = Literal["box_and_center", "center"]


def near_and_inside(points: Tensor, gts: Tensor, radius: float, geometry: Geometry = UPRIGHT) -> tuple[Tensor, Tensor]:
    """Which points lie inside boxes, and which near their centres.

    Args:
        points: (N, 4) centre x, y and stride in x and y, pixels.
        gts: (M, 4) xyxy.
        radius: half side of the central square, in strides of the point.
        geometry: what is known of the ground truths.

    Returns:
        Two (M, N) bool: inside the box, and inside the central square; strictly, and never for a box of no area.
    """
    x, y, stride_x, stride_y = points.T.contiguous()  # (N,) each
    center_x, center_y = (side[:, None] for side in geometry.centers(gts))  # (M, 1) each
    reach_x, reach_y = radius * stride_x, radius * stride_y
    horizontal = torch.min(x - (center_x - reach_x), (center_x + reach_x) - x)
    vertical = torch.min(y - (center_y - reach_y), (center_y + reach_y) - y)
    has_area = geometry.areas(gts)[:, None] > 0
    inside = geometry.inside(x, y, gts, 0.0)
    return inside & has_area, (torch.min(horizontal, vertical) > 0) & has_area


@checked(
    {"topk": whole_number, "center_radius": not_negative, "iou_weight": number, "cls_weight": number},
    points="strided", gts="truths", boxes="predicted", scores="probabilities", labels="labels",
)  # fmt: skip
def sim_ota(
    points: Tensor,
    gts: Tensor,
    labels: Tensor,
    boxes: Tensor,
    scores: Tensor,
    topk: int = 10,
    center_radius: float = 2.5,
    iou_weight: float = 3.0,
    cls_weight: float = 1.0,
    measure: Measure = IOU,
    geometry: Geometry = UPRIGHT,
    candidate_region: CandidateRegion = "box_and_center",
    conflict: Conflict = "all",
) -> Assignment:
    """Match points to the ground truths of one image by the cost of their predictions.

    A point is a candidate when it lies inside any box or near any centre.  Its cost for a ground truth is the
    classification loss + ``iou_weight`` * -log IoU, and 1e5 more unless it is inside this box and near this centre.
    Each ground truth takes its cheapest candidates, as many as its ``topk`` largest IoUs sum to.

    Args:
        points: (N, 4) x, y and stride in x and y, or (N, 3) with one stride, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        labels: (M,) classes.
        boxes: (N, 4) xyxy, predicted.
        scores: (N, C) probabilities.
        topk: IoUs that are summed.
        center_radius: half side of the central square, in strides.
        iou_weight: weight of the IoU cost.
        cls_weight: weight of the classification cost.
        measure: what takes the place of the IoU of ground truths and predicted boxes.
        geometry: what is known of the ground truths; where they aren't upright, they and the predicted boxes may have
            any columns that it and ``measure`` know.
        candidate_region: "box_and_center" as above; "center" asks for nearness alone: only points near a
            centre are candidates, and 1e6 is added where it is another's.
        conflict: a point that several take goes to the one that it is cheapest for of "all" ground truths, or of those
            that have "selected" it.

    Returns:
        Assignment with ``quality`` = IoU of the predicted with the matched box, 0 elsewhere.

    Differs from mmdet: a box of no area gets no positive, and quality is 0 where nothing is matched (mmdet: -1e5).
    """
    if len(gts) == 0 or len(points) == 0:
        return Assignment(all_negative(len(points), points), points.new_zeros(len(points), dtype=torch.float32))

    def near_or_inside(block: Tensor) -> Tensor:
        inside, near = near_and_inside(points, block, center_radius, geometry)
        return (near if candidate_region == "center" else inside | near).any(dim=0)

    def costs(rows: Tensor | slice) -> tuple[Callable[[slice], Tensor], Callable[[slice, Tensor], Tensor]]:
        cls_cost, number = one_hot_costs(scores[rows], labels)  # (K, n), (M,)
        own_points, own_boxes = points[rows], boxes[rows]

        def cost_of(block: slice, iou: Tensor) -> Tensor:
            inside, near = near_and_inside(own_points, gts[block], center_radius, geometry)
            cost = cls_cost[number[block]] * cls_weight + -torch.log(iou + EPS) * iou_weight
            return cost + (~near * APART if candidate_region == "center" else ~(inside & near) * OUTSIDE)

        return lambda block: measure.overlaps(gts[block], own_boxes), cost_of

    candidates = any_ground_truth(near_or_inside, gts, len(points), geometry)
    return match_candidates(candidates, geometry.areas(gts) > 0, costs, topk, measure.blockwise, conflict)


def any_ground_truth(test: Callable[[Tensor], Tensor], gts: Tensor, num_points: int, geometry: Geometry) -> Tensor:
    """Which points pass a test with any ground truth, tried in blocks of these.

    Args:
        test: from ground truths (m, 4) to (N,) bool.
        gts: (M, D).
        num_points: N.
        geometry: what is known of the ground truths.
    """
    bytes_each = (8 * 4 if geometry is UPRIGHT else PAIR) * num_points
    blocks = split(len(gts), bytes_each, gts.device)
    return torch.stack([test(gts[block]) for block in blocks]).any(dim=0)


def match_candidates(
    candidates: Tensor,
    has_area: Tensor,
    costs: Callable[[Tensor | slice], tuple[Callable[[slice], Tensor], Callable[[slice, Tensor], Tensor]]],
    topk: int,
    blockwise: bool = True,
    conflict: Conflict = "all",
) -> Assignment:
    """Match the candidates by their costs, a dynamic number to each ground truth; all other points are negative.

    Args:
        candidates: (N,) bool, points that may match; N at least 1.
        has_area: (M,) bool; the other ground truths get nothing.
        costs: makes, for the points that are worked on, what ``match_dynamic_k`` takes: IoUs and costs by block.
        topk: IoUs that are summed.
        blockwise: whether blocks may be as small as is fastest, see `Measure`.
        conflict: see ``match_dynamic_k``.

    Returns:
        Assignment with ``quality`` (N,) float32 = IoU of the match, 0 elsewhere.
    """
    device = candidates.device
    if static_shapes(device):
        gt_index, quality = match_dynamic_k(*costs(slice(None)), candidates, has_area, topk, blockwise, conflict)
        return Assignment(gt_index, quality.float())
    kept = candidates.nonzero()[:, 0]
    gt_index = all_negative(len(candidates), candidates)
    quality = torch.zeros(len(candidates), device=device)
    if len(kept):
        matched, iou = match_dynamic_k(*costs(kept), candidates[kept], has_area, topk, blockwise, conflict)
        gt_index, quality = gt_index.index_copy(0, kept, matched), quality.index_copy(0, kept, iou.float())
    return Assignment(gt_index, quality)


@register
class SimOTAAssigner(DenseAssigner):
    """Assign points by the cost of their predictions, a dynamic number to each ground truth: YOLOX.

    Reads ``priors`` (N, 4) x, y and stride in x and y, ``bboxes`` (N, 4) xyxy decoded, and ``scores`` (N, C)
    probabilities.  Result: ``max_overlaps`` (N,) float32 is the IoU of the match, 0 where there is none.

    Args:
        center_radius: half side of the central square, in strides.
        candidate_topk: IoUs whose sum is the number of positives of a ground truth.
        iou_weight: weight of the IoU cost.
        cls_weight: weight of the classification cost.
        iou_calculator: configuration or object; plain IoU if None.
        candidate_region: "box_and_center" as published and as in mmdet; "center" as in today's YOLOX, which
            asks for nearness alone, with ``center_radius=1.5``: small objects, whose boxes hold few points, keep those
            around them.
        conflict: a point that several take goes to the cheapest of "all" objects, as published, or of those that
            have "selected" it: under "all" it may go to one that had not taken it, and a small object that loses its
            only points so has none.
        **common: see ``DenseAssigner``.
    """

    knobs: ClassVar[str] = f"raise center_radius and candidate_topk; {FINER}"
    heads: ClassVar[str] = PREDICTING
    asks_boxes: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Kind]] = {"priors": "strided", "bboxes": "predicted", "scores": "probabilities"}
    mmdet2: ClassVar[Names] = (
        "pred_scores", "priors", "decoded_bboxes", "gt_bboxes", "gt_labels", "gt_bboxes_ignore", "eps",
    )  # fmt: skip

    def __init__(
        self,
        center_radius: float = 2.5,
        candidate_topk: int = 10,
        iou_weight: float = 3.0,
        cls_weight: float = 1.0,
        iou_calculator: Any = None,
        *,
        candidate_region: CandidateRegion = "box_and_center",
        conflict: Conflict = "all",
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        self.candidate_region = self.option_of("candidate_region", candidate_region, CandidateRegion)
        self.conflict = self.option_of("conflict", conflict, Conflict)
        self.center_radius = self.number_of("center_radius", center_radius, least=0)
        self.candidate_topk = self.count_of("candidate_topk", candidate_topk)
        self.iou_weight = self.number_of("iou_weight", iou_weight)
        self.cls_weight = self.number_of("cls_weight", cls_weight)
        self.build_calculator(iou_calculator)

    def from_mmdet2(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Take the root of the scores, which mmdet 2's class did and since mmdet 3 its head does."""
        scores = fields["pred_instances.scores"]
        if isinstance(scores, Tensor):
            fields["pred_instances.scores"] = as_float32(scores.detach()).sqrt()
        return fields

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        points, boxes, scores = image.fields.values()
        return self.run(
            sim_ota,
            points,
            image.gts,
            image.labels,
            boxes,
            scores,
            self.candidate_topk,
            self.center_radius,
            self.iou_weight,
            self.cls_weight,
            self.measure_in(image, "bboxes"),
            image.geometry("gts"),
            self.candidate_region,
            self.conflict,
        )
