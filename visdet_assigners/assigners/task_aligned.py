"""Task-aligned assignment: the predictions that classify and localise best learn most.

Feng et al., TOOD, ICCV 2021, arXiv:2108.07755, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.aligned_targets import (
    TaskAlignedTargets,
    classification_targets,
    targets_of_images,
)
from visdet_assigners.assigners.base import PREDICTING
from visdet_assigners.assigners.calling import assigner_method
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import FINER, DenseAssigner, DenseCommon
from visdet_assigners.assigners.forms import TRUTHS, Names, in_any_form
from visdet_assigners.assignment import Assignment, AssignResult, all_negative
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import INSIDE, with_least_sides
from visdet_assigners.functional.geometry import UPRIGHT, Geometry
from visdet_assigners.functional.overlaps import IOU, Measure, overlap_table, overlapping_pairs
from visdet_assigners.functional.resolve import keep_best, keep_best_aligned
from visdet_assigners.functional.select import largest_of_each, top
from visdet_assigners.functional.tensors import cat_or_only, evenly, row_of_image
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import literal, number, whole_number
from visdet_assigners.registry import register

PAIR = 32
"""Bytes that a pair takes where all are looked at."""
CandidateOrder = Literal["topk_then_inside", "inside_then_topk"]


@checked(
    {"topk": whole_number, "alpha": number, "beta": number, "candidate_order": literal(CandidateOrder)},
    priors="boxes", gts="truths", boxes="predicted", scores="probabilities", labels="labels",
)  # fmt: skip
def task_aligned(
    priors: Tensor,
    gts: Tensor,
    labels: Tensor,
    boxes: Tensor,
    scores: Tensor,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    measure: Measure = IOU,
    candidate_order: CandidateOrder = "topk_then_inside",
    topk2: int | None = None,
    side_floor: tuple[float, float] | None = None,
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
        measure: what takes the place of the IoU of ground truths and predicted boxes.
        candidate_order: whether a prior whose centre lies outside takes one of the ``topk`` places, as in TOOD, or
            only those inside are ranked ("inside_then_topk"), as in YOLOv8.
        topk2: positives that a ground truth keeps of those that it has after conflicts, the best aligned; all if None.
        side_floor: (least, counted) pixels: to tell what lies inside, a side below the first counts as the second.

    Returns:
        Assignment with ``quality`` = IoU of the predicted with the matched box, 0 elsewhere,
        ``extras['assign_metrics']`` (N,) = its alignment, 0 elsewhere, and ``extras['norm_metrics']`` (N,), what its
        score should become, see ``classification_targets``.

    Differs from mmdet: quality is 0 where nothing is matched (mmdet: -1e8).
    """
    found = aligned_of_images(
        priors[None], [gts], [labels], boxes[None], scores[None], topk, alpha, beta, measure, candidate_order,
        topk2=topk2, side_floor=side_floor,
    )  # fmt: skip
    return in_assignment(*(each[0] for each in found))


def in_assignment(gt_index: Tensor, quality: Tensor, metrics: Tensor, targets: Tensor) -> Assignment:
    """What `aligned_of_images` gives for one image, (N,) each, as an `Assignment`."""
    return Assignment(gt_index, quality, {"assign_metrics": metrics, "norm_metrics": targets})


def aligned_of_images(
    priors: Tensor,
    gts: Sequence[Tensor],
    labels: Sequence[Tensor],
    boxes: Tensor,
    scores: Tensor,
    topk: int,
    alpha: float,
    beta: float,
    measure: Measure,
    candidate_order: CandidateOrder,
    geometry: Geometry = UPRIGHT,
    prior_geometry: Geometry = UPRIGHT,
    topk2: int | None = None,
    side_floor: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Match the priors of B images as `task_aligned` does.

    Args:
        priors: (B, N, 4) xyxy, or columns that ``prior_geometry`` knows; N may be 0.
        gts: (M_i, 4) xyxy of each image, or columns that ``geometry`` knows.
        labels: (M_i,) of each image.
        boxes: (B, N, 4) xyxy, or columns that ``measure`` knows, predicted.
        scores: (B, N, C).
        topk: see there, and so for the others.
        alpha: see there.
        beta: see there.
        measure: see there.
        candidate_order: see there.
        geometry: what is known of the ground truths; several images need upright ones.
        prior_geometry: what is known of the priors.
        topk2: see there.
        side_floor: see there.

    Returns:
        Four (B, N): the ground truth of each prior in its image, -1 where there is none; the IoU, the alignment, and
        the target of the score, 0 likewise.
    """
    num_images, num_priors = priors.shape[:2]
    counts, several = [len(own) for own in gts], num_images > 1
    if num_priors == 0 or sum(counts) == 0:
        nothing = boxes.new_zeros(3, num_images, num_priors)
        return (torch.stack([all_negative(num_priors, priors)] * num_images), *nothing)

    # The ground truths of all images stand one after another, T in all, and so do the priors.
    all_gts, all_labels = (cat_or_only(own) for own in (gts, labels))
    regions = all_gts if side_floor is None else with_least_sides(all_gts, *side_floor)
    all_priors, by_class = priors.flatten(0, 1), scores.mT.contiguous()  # (B, C, N)
    image, row = row_of_image(counts, priors) if several else (None, None)  # (T,) each
    topk, inside_first = min(topk, num_priors), candidate_order == "inside_then_topk"
    x, y = prior_geometry.centers(all_priors)

    def best_of_all(block: slice) -> tuple[Tensor, Tensor, Tensor]:
        own = 0 if image is None else image[block]
        inside = None
        if inside_first:
            own_x, own_y = (each.view(num_images, num_priors)[own] for each in (x, y))
            inside = geometry.inside(own_x, own_y, regions[block], INSIDE)
        score = by_class[own, all_labels[block]]
        found = best_aligned(all_gts[block], score, boxes[own], topk, alpha, beta, measure, inside)
        return found if image is None else (found[0] + num_priors * image[block, None], *found[1:])

    def best_of_overlapping(block: slice) -> tuple[Tensor, Tensor, Tensor]:
        gt, prior, iou = overlapping_pairs(overlap_table(boxes[0][:, None], all_gts[block], measure))  # (P,) each
        alignment = align(by_class[0][all_labels[block][gt], prior], iou, alpha, beta)
        if inside_first:
            alignment = alignment * geometry.inside_own(x[prior], y[prior], regions[block][gt], INSIDE)
        pair = largest_of_each(alignment, gt, len(all_gts[block]), topk)  # (m, K), P where there are no more
        return tuple(torch.cat([each, each.new_zeros(1)])[pair] for each in (prior, alignment, iou))  # type: ignore

    # A pair that overlaps takes up to 80 bytes: its place, its overlap and what becomes of that.
    of_all = several or static_shapes(priors.device)
    best_of, pair = (best_of_all, PAIR + 16 * several) if of_all else (best_of_overlapping, 80)
    blocks = split(len(all_gts), pair * num_priors, priors.device, least=len(all_gts))
    found = [best_of(block) for block in blocks]
    candidates, alignment, iou = (torch.cat(each) for each in zip(*found))
    gt_index, *values = match_aligned((x, y), regions, candidates, alignment, iou, geometry, topk2)
    if row is not None:
        gt_index = torch.where(gt_index >= 0, row[gt_index.clamp(min=0)], gt_index)
    return tuple(each.view(num_images, num_priors) for each in (gt_index, *values))  # type: ignore[return-value]


def align(score: Tensor, iou: Tensor, alpha: float, beta: float) -> Tensor:
    """The alignment score^alpha * IoU^beta, (...) each."""
    return evenly(lambda value: value**alpha, score) * evenly(lambda value: value**beta, iou)


def best_aligned(
    gts: Tensor,
    scores: Tensor,
    boxes: Tensor,
    topk: int,
    alpha: float,
    beta: float,
    measure: Measure,
    inside: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The predictions best aligned with each ground truth, all pairs being looked at.

    Args:
        gts: (M, 4) xyxy.
        scores: (M, N) of their classes.
        boxes: (N, 4) xyxy, predicted; or (M, N, 4), those of the image of each ground truth.
        topk: predictions for each.
        alpha: exponent of the score.
        beta: exponent of the IoU.
        measure: of ground truths and predicted boxes.
        inside: (M, N) bool, which predictions may be chosen, or None.

    Returns:
        Three (M, topk): rows of ``boxes``, their alignments and their IoUs.
    """
    iou = measure.overlaps(gts, boxes) if boxes.ndim == 2 else measure.overlaps(gts[:, None], boxes)[:, 0]  # (M, N)
    alignment = align(scores, iou, alpha, beta)
    if inside is not None:
        alignment = alignment * inside
    best, prior = top(alignment, topk, dim=-1, largest=True)
    return prior, best, iou.gather(-1, prior)


def match_aligned(
    prior_centers: Sequence[Tensor],
    regions: Tensor,
    candidates: Tensor,
    alignment: Tensor,
    iou: Tensor,
    geometry: Geometry,
    topk2: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Match candidates whose centres lie inside, those claimed twice by the higher IoU.

    Args:
        prior_centers: x and y, (N,) each, those of several images one after another.
        regions: (M, 4) xyxy, the ground truths, likewise, or what counts as inside of them, or columns that
            ``geometry`` knows; M at least 1.
        candidates: (M, K) int64, the priors that each ground truth considers.
        alignment: (M, K) of the candidates.
        iou: (M, K) of the candidates.
        geometry: what is known of the ground truths.
        topk2: how many of its matches a ground truth keeps, the best aligned; all if None.

    Returns:
        The ground truth of each prior, (N,) int64, -1 where there is none; and (N,) each, 0 likewise, the IoU, the
        alignment, and the target of `classification_targets`.
    """
    candidates, alignment, iou = candidates.T, alignment.T, iou.T  # (K, M)
    x, y = prior_centers
    inside = geometry.inside_own(x[candidates], y[candidates], regions, INSIDE)
    gt_index, row = keep_best(candidates, inside & (alignment > 0), iou, len(x))
    if topk2 is not None:
        gt_index = keep_best_aligned(gt_index, candidates, alignment, topk2)
    matched, column = gt_index >= 0, gt_index.clamp(min=0)
    metrics = torch.where(matched, alignment[row, column], 0)
    quality = torch.where(matched, iou[row, column], 0)
    return gt_index, quality, metrics, classification_targets(metrics, quality, gt_index, len(regions))


@register
class TaskAlignedAssigner(DenseAssigner):
    """Assign priors by the alignment of their classification and localisation: TOOD.

    Reads ``priors`` (N, 4) xyxy, ``bboxes`` (N, 4) decoded in the scale of the ground truths, and ``scores`` (N, C)
    probabilities.  Result: ``max_overlaps`` (N,) is the IoU of the match, 0 where there is none, with the plain
    attributes ``assign_metrics`` (N,), the alignment, which TOODHead reads, and ``norm_metrics`` (N,), the normalised
    target that TOODHead makes of it.

    Boxes of another form, as rotated ones, will do in a class that knows their centres and insides, as mmdet's
    ``BaseBoxes``, with an ``iou_calculator`` that knows them.

    Args:
        topk: candidates per ground truth over all levels; 13 in the paper.
        iou_calculator: configuration or object; plain IoU if None.
        candidate_order: "topk_then_inside" as in TOOD, where a prior whose centre lies outside the box takes one of the
            ``topk`` places, or "inside_then_topk" as in YOLOv8.
        topk2: positives that an object keeps of those that it has after conflicts, the best aligned; all if None.  1
            gives one positive an object, for detectors without suppression, as YOLO26's second head.
        side_floor: (least, counted) pixels: to tell what lies inside, a side below the first counts as the second, as
            in YOLO26 with the strides of the first two levels.  For objects smaller than a cell, which hold no centre;
            their predictions must overlap them all the same.  None is off.
        **common: see ``DenseAssigner``.
    """

    knobs: ClassVar[str] = f"raise topk, which also counts candidates outside the box; {FINER}"
    heads: ClassVar[str] = PREDICTING
    asks_boxes: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Kind]] = {"priors": "boxes", "bboxes": "predicted", "scores": "probabilities"}
    mmdet2: ClassVar[Names] = ("pred_scores", "decode_bboxes", "anchors", *TRUTHS, "alpha", "beta")

    def __init__(
        self,
        topk: int,
        iou_calculator: Any = None,
        candidate_order: CandidateOrder = "topk_then_inside",
        *,
        topk2: int | None = None,
        side_floor: tuple[float, float] | None = None,
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        self.topk = self.count_of("topk", topk)
        self.candidate_order = self.option_of("candidate_order", candidate_order, CandidateOrder)
        self.topk2 = None if topk2 is None else self.count_of("topk2", topk2)
        self.side_floor = None if side_floor is None else self._pair_of(side_floor)
        self.build_calculator(iou_calculator)

    def _pair_of(self, side_floor: Any) -> tuple[float, float]:
        if not isinstance(side_floor, Sequence) or len(side_floor) != 2:
            self.fail(f"side_floor is {side_floor!r}; (least, counted) is expected, as (8, 16)")
        least = self.number_of("side_floor", side_floor[0], above=0)
        return least, self.number_of("side_floor", side_floor[1], least=least)

    @in_any_form
    @assigner_method
    def assign(  # type: ignore[override]
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
            pred_instances: with ``priors``, ``bboxes`` and ``scores``; N may be 0.
            gt_instances: as for every dense assigner, and so are the other three.
            gt_instances_ignore: see there.
            alpha: exponent of the score.
            beta: exponent of the IoU.
            num_level_priors: see there.
            img_meta: see there.

        Raises:
            AssignerInputError: see there.
        """
        image = self.read(
            pred_instances, gt_instances, gt_instances_ignore, num_level_priors, img_meta, alpha=alpha, beta=beta
        )
        image.settle()
        return self.decide_images([image])[0]

    def upright_options(self) -> list[str]:
        """Options in use that know xyxy boxes alone."""
        return [*super().upright_options(), *([] if self.side_floor is None else ["side_floor"])]

    def can_batch(self) -> bool:
        """Whether images can be decided together: if the calculator takes boxes with leading dimensions."""
        return bool(self.promise("takes_pairs"))

    def decide_images(self, images: Sequence[Inputs]) -> list[AssignResult]:
        """Assign images with as many priors each."""
        each = [[image.fields[name] for image in images] for name in self.reads]
        priors, boxes, scores = (torch.stack(own) if len(own) > 1 else own[0][None] for own in each)
        options = images[0].options
        found = self.run(
            aligned_of_images,
            priors,
            [image.gts for image in images],
            [image.labels for image in images],
            boxes,
            scores,
            self.topk,
            options.get("alpha", 1),
            options.get("beta", 6),
            self.measure_in(images[0], "bboxes"),
            self.candidate_order,
            images[0].geometry("gts"),
            images[0].geometry("priors"),
            self.topk2,
            self.side_floor,
        )
        return [self.result(in_assignment(*own), image) for image, *own in zip(images, *found)]

    def batch_targets(
        self, pred_list: Sequence[Any], gt_list: Sequence[Any], alpha: float = 1, beta: float = 6
    ) -> TaskAlignedTargets:
        """Assign B images and lay out what their priors learn, as heads of YOLOv8's style take it.

        Args:
            pred_list: ``pred_instances`` of each image, all with the same number of priors; B at least 1.
            gt_list: ``gt_instances`` of each image.
            alpha: exponent of the score.
            beta: exponent of the IoU.

        Raises:
            ValueError: the images have different numbers of priors, or there is none; or as in ``assign``.
        """
        shapes = sorted({tuple(pred.scores.shape) for pred in pred_list})
        if len(shapes) != 1:
            self.fail(f"batch_targets needs images with the same number of priors and classes, got scores of {shapes}")
        results = self.assign_batch(pred_list, gt_list, alpha=alpha, beta=beta)
        return targets_of_images(results, gt_list, shapes[0][1])
