"""Task-aligned assignment: the predictions that classify and localise best learn most.

Feng et al., TOOD, ICCV 2021, arXiv:2108.07755, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from visdet_assigners.assigners.base import OverlapMixin
from visdet_assigners.assigners.batching import BatchingAssigner, Images, places
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import Assignment, AssignResult, all_negative, to_assign_result, to_assign_results
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import border_distance, box_center, box_iou
from visdet_assigners.functional.inputs import Policy
from visdet_assigners.functional.overlaps import Overlaps, overlap_table, overlapping_pairs
from visdet_assigners.functional.resolve import keep_best
from visdet_assigners.functional.select import largest_of_each, top
from visdet_assigners.functional.tensors import evenly, padded
from visdet_assigners.registry import register

INSIDE = 0.01
"""Pixels by which a centre must lie inside a box."""
PAIR = 32
"""Bytes that a pair takes where all are looked at."""
EPS = 1e-7
"""Keeps the normalisation of targets finite, as in the published code."""
CandidateOrder = Literal["topk_then_inside", "inside_then_topk"]


@dataclass(frozen=True)
class TaskAlignedTargets:
    """What heads of YOLOv8's style learn from, for B images with N priors each.

    Attributes:
        labels: (B, N) int64, class of the matched ground truth, C where nothing is matched.
        boxes: (B, N, 4) xyxy of the matched ground truth, 0 where nothing is matched.
        scores: (B, N, C), the normalised target in the column of the class, 0 elsewhere.
        foreground: (B, N) bool, what is matched.
        gt_index: (B, N) int64, the matched ground truth from 0, -1 where nothing is matched.
    """

    labels: Tensor
    boxes: Tensor
    scores: Tensor
    foreground: Tensor
    gt_index: Tensor


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
    candidate_order: CandidateOrder = "topk_then_inside",
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
        candidate_order: whether a prior whose centre lies outside takes one of the ``topk`` places, as in TOOD, or
            only those inside are ranked ("inside_then_topk"), as in YOLOv8.

    Returns:
        Assignment with ``quality`` = IoU of the predicted with the matched box, 0 elsewhere,
        ``extras['assign_metrics']`` (N,) = its alignment, 0 elsewhere, and ``extras['norm_metrics']`` (N,), what its
        score should become, see ``classification_targets``.

    Differs from mmdet: quality is 0 where nothing is matched (mmdet: -1e8).
    """
    num_priors, num_gts = len(priors), len(gts)
    nothing = boxes.new_zeros(num_priors)
    if num_gts == 0 or num_priors == 0:
        extras = {"assign_metrics": nothing, "norm_metrics": nothing.clone()}
        return Assignment(all_negative(num_priors, priors), nothing.clone(), extras)

    scores, topk = scores.T.contiguous(), min(topk, num_priors)  # (C, N)
    x, y = box_center(priors)
    inside_first = candidate_order == "inside_then_topk"

    def best_of_all(block: slice) -> tuple[Tensor, Tensor, Tensor]:
        points = priors if inside_first else None
        return best_aligned(gts[block], scores[labels[block]], boxes, topk, alpha, beta, overlaps, points)

    def best_of_overlapping(block: slice) -> tuple[Tensor, Tensor, Tensor]:
        gt, prior, iou = overlapping_pairs(overlap_table(boxes[:, None], gts[block], overlaps, reach))  # (P,) each
        alignment = align(scores[labels[block][gt], prior], iou, alpha, beta)
        if inside_first:
            alignment = alignment * (border_distance(x[prior], y[prior], gts[block][gt]) > INSIDE)
        pair = largest_of_each(alignment, gt, len(gts[block]), topk)  # (m, K), P where there are no more
        return tuple(torch.cat([each, each.new_zeros(1)])[pair] for each in (prior, alignment, iou))  # type: ignore

    # A pair that overlaps takes up to 80 bytes: its place, its overlap and what becomes of that.
    best_of, pair = (best_of_all, PAIR) if static_shapes(gts.device) else (best_of_overlapping, 80)
    found = [best_of(block) for block in split(num_gts, pair * num_priors, gts.device, least=num_gts)]
    gt_index, quality, metrics, targets = match_aligned(priors, gts, *(torch.cat(each) for each in zip(*found)))
    return Assignment(gt_index, quality, {"assign_metrics": metrics, "norm_metrics": targets})


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
    overlaps: Overlaps,
    points: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The predictions best aligned with each ground truth, all pairs being looked at.

    Args:
        gts: (..., M, 4) xyxy.
        scores: (..., M, N) of their classes.
        boxes: (..., N, 4) xyxy, predicted.
        topk: predictions for each.
        alpha: exponent of the score.
        beta: exponent of the IoU.
        overlaps: gives the (..., M, N) overlaps of ground truths and predicted boxes.
        points: (..., N, 4) xyxy, priors whose centre must lie inside, or None.

    Returns:
        Three (..., M, topk): rows of ``boxes``, their alignments and their IoUs.
    """
    iou = overlaps(gts, boxes)  # (..., M, N)
    alignment = align(scores, iou, alpha, beta)
    if points is not None:
        x, y = box_center(points)
        alignment = alignment * (border_distance(x[..., None, :], y[..., None, :], gts[..., None, :]) > INSIDE)
    best, prior = top(alignment, topk, dim=-1, largest=True)
    return prior, best, iou.gather(-1, prior)


def match_aligned(
    priors: Tensor, gts: Tensor, candidates: Tensor, alignment: Tensor, iou: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Match candidates whose centres lie inside, those claimed twice by the higher IoU.

    Args:
        priors: (N, 4) xyxy, those of several images one after another.
        gts: (M, 4) xyxy, likewise; M at least 1.
        candidates: (M, K) int64, rows of ``priors`` that each ground truth considers.
        alignment: (M, K) of the candidates.
        iou: (M, K) of the candidates.

    Returns:
        The ground truth of each prior, (N,) int64, -1 where there is none; and (N,) each, 0 likewise, the IoU, the
        alignment, and the target of `classification_targets`.
    """
    candidates, alignment, iou = candidates.T, alignment.T, iou.T  # (K, M)
    x, y = box_center(priors)
    inside = border_distance(x[candidates], y[candidates], gts) > INSIDE
    gt_index, row = keep_best(candidates, inside & (alignment > 0), iou, len(priors))
    matched, column = gt_index >= 0, gt_index.clamp(min=0)
    metrics = torch.where(matched, alignment[row, column], 0)
    quality = torch.where(matched, iou[row, column], 0)
    return gt_index, quality, metrics, classification_targets(metrics, quality, gt_index, len(gts))


def classification_targets(
    metrics: Tensor, quality: Tensor, gt_index: Tensor, num_gts: int, eps: float = EPS
) -> Tensor:
    """What the score of each positive should become: its alignment, scaled so that the best gets the best IoU.

    For each ground truth, metric / largest metric * largest IoU over its positives (section 3.3), those that are left
    after conflicts.

    Args:
        metrics: (N,) alignments, at least 0.
        quality: (N,) IoUs.
        gt_index: (N,) int64, the matched ground truth from 0, negative where nothing is matched.
        num_gts: M; may be 0.
        eps: added to the largest metric; 1e-7 in TOOD, 1e-9 in YOLOv8.

    Returns:
        (N,), 0 where nothing is matched.

    Example:
        >>> metrics, iou = torch.tensor([0.0706, 0.0, 0.1131]), torch.tensor([0.70, 0.0, 0.85])
        >>> classification_targets(metrics, iou, torch.tensor([0, -1, 0]), 1)
        tensor([0.5306, 0.0000, 0.8500])
    """
    matched = gt_index >= 0
    owner = torch.where(matched, gt_index, num_gts)  # the last takes what nobody has
    largest, best = (
        values.new_zeros(num_gts + 1).scatter_reduce(0, owner, values, "amax") for values in (metrics, quality)
    )
    return torch.where(matched, metrics / (largest[owner] + eps) * best[owner], 0)


@register
class TaskAlignedAssigner(OverlapMixin, BatchingAssigner):
    """Assign priors by the alignment of their classification and localisation: TOOD.

    Args:
        topk: candidates per ground truth over all levels; 13 in the paper.
        iou_calculator: configuration or object; plain IoU if None.
        candidate_order: "topk_then_inside" as in TOOD, where a prior whose centre lies outside the box takes one of the
            ``topk`` places, or "inside_then_topk" as in YOLOv8.
    """

    def __init__(
        self,
        topk: int,
        iou_calculator: Any = None,
        candidate_order: CandidateOrder = "topk_then_inside",
        *,
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        super().__init__(memory_budget, compile, deterministic, on_nonfinite)
        if topk < 1:
            self.fail(f"topk is {topk}; at least 1 candidate is needed")
        if candidate_order not in get_args(CandidateOrder):
            self.fail(f"candidate_order is {candidate_order!r}; choose one of {', '.join(get_args(CandidateOrder))}")
        self.topk = topk
        self.candidate_order = candidate_order
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
            attributes ``assign_metrics`` (N,), the alignment, which TOODHead reads, and ``norm_metrics`` (N,), the
            normalised target that TOODHead makes of it.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite or no probability.
        """
        priors, boxes, scores, gts, labels = self.read_image(pred_instances, gt_instances)
        self.without_regions(gt_instances_ignore)
        numbers = (self.topk, alpha, beta)
        assignment = self.run(
            task_aligned,
            priors,
            gts,
            labels,
            boxes,
            scores,
            *numbers,
            overlaps=self.overlaps,
            reach=self.reach,
            candidate_order=self.candidate_order,
        )
        result = to_assign_result(Assignment(assignment.gt_index, assignment.quality), labels)
        result.assign_metrics = assignment.extras["assign_metrics"]
        result.norm_metrics = assignment.extras["norm_metrics"]
        return result

    def takes_images(self, **shared: Any) -> bool:
        """Where the calculator takes boxes of any number of leading dimensions."""
        return getattr(self.iou_calculator, "takes_pairs", False)

    def bytes_of(self, pred_instances: Any, num_gts: int) -> int:
        """Those of all pairs."""
        return PAIR * self.count(pred_instances) * num_gts

    def assign_images(self, images: Images, alpha: float = 1, beta: float = 6, **shared: Any) -> list[AssignResult]:
        """Assign images at once, see ``assign_batch``."""
        read = self.read_images(images)
        priors, boxes = (torch.stack([own[index] for own in read]) for index in (0, 1))  # (B, N, 4)
        scores, gts, labels = ([own[index] for own in read] for index in (2, 3, 4))
        score = [own.index_select(1, classes) for own, classes in zip(scores, padded(labels)[0])]  # (N, M) each
        points = priors if self.candidate_order == "inside_then_topk" else None
        topk = min(self.topk, priors.shape[1])
        found = best_aligned(
            padded(gts)[0], torch.stack(score).mT.contiguous(), boxes, topk, alpha, beta, self.overlaps, points
        )

        # From here on the ground truths stand one after another, T in all, and so do the priors.
        image, number = places([len(own) for own in labels], priors)  # (T,) each
        candidates, alignment, iou = (each[image, number] for each in found)  # (T, K)
        candidates = candidates + priors.shape[1] * image[:, None]
        decided = match_aligned(priors.flatten(0, 1), torch.cat(gts), candidates, alignment, iou)
        gt_index, quality, metrics, targets = (each.view(priors.shape[:2]) for each in decided)
        gt_index = torch.where(gt_index >= 0, number[gt_index.clamp(min=0)], gt_index)
        results = to_assign_results(gt_index, quality, labels)
        for result, metric, target in zip(results, metrics, targets):
            result.assign_metrics, result.norm_metrics = metric, target
        return results

    def read_image(self, pred_instances: Any, gt_instances: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Priors, boxes and scores of the predictions, boxes and labels of the ground truths, checked."""
        priors, boxes, scores = self.read_predictions(
            pred_instances, priors="boxes", bboxes="predicted", scores="probabilities"
        )
        gts, labels = self.read_ground_truths(gt_instances, scores.shape[1])
        return priors, boxes, scores, gts, labels

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
        num_classes = shapes[0][1]
        rows = []
        for result, gt in zip(self.assign_batch(pred_list, gt_list, alpha=alpha, beta=beta), gt_list):
            gts, classes = self.read_ground_truths(gt)
            foreground, index = result.gt_inds > 0, (result.gt_inds - 1).clamp(min=-1)
            # A box, a class and a column of scores behind the others are for the background, at index -1.
            labels = torch.cat([classes.long(), classes.new_full((1,), num_classes).long()])[index]
            boxes = torch.cat([gts, gts.new_zeros(1, 4)])[index]
            scores = result.norm_metrics.new_zeros(len(labels), num_classes + 1)
            scores = scores.scatter(1, labels[:, None], result.norm_metrics[:, None])[:, :num_classes]
            rows.append((labels, boxes, scores, foreground, index))
        return TaskAlignedTargets(*map(torch.stack, zip(*rows)))
