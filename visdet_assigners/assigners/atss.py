"""ATSS: every ground truth sets its own IoU threshold.

Zhang et al., CVPR 2020, arXiv:1912.02424, Algorithm 1; with predictions, DDOD's cost: Chen et al., ACM MM 2021,
arXiv:2107.02963, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import OverlapMixin, in_either_order
from visdet_assigners.assigners.batching import BatchingAssigner, Images, places
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import (
    IGNORED,
    Assignment,
    AssignResult,
    all_negative,
    to_assign_result,
    to_assign_results,
)
from visdet_assigners.functional.blocks import split
from visdet_assigners.functional.boxes import INSIDE, border_distance, box_center, center_distance
from visdet_assigners.functional.inputs import Kind, Policy
from visdet_assigners.functional.overlaps import overlaps_of_pairs
from visdet_assigners.functional.resolve import keep_best
from visdet_assigners.functional.select import nearest_per_level
from visdet_assigners.functional.tensors import evenly, padded
from visdet_assigners.registry import register

MATRICES = 3
"""Matrices of the size (M, N) that are there at once."""
FAR = 1e8
"""Distance given to ignored priors, so that they are candidates last."""


def atss(
    priors: Tensor,
    gts: Tensor,
    level_sizes: Sequence[int],
    topk: int = 9,
    ignored: Tensor | None = None,
    quality_of: Callable[[slice, Tensor], Tensor] | None = None,
) -> Assignment:
    """Match priors to the ground truths of one image by adaptive thresholds.

    A prior is positive for a ground truth when it is one of the ``topk`` priors of its level nearest to the box centre,
    its own centre lies inside the box, and its IoU reaches mean + std of the candidates' IoUs.  Claimed twice, it goes
    to the higher IoU.

    Args:
        priors: (N, 4) xyxy, pixels; levels one after another; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        level_sizes: priors in each level; sums to N.
        topk: candidates per level and ground truth; a smaller level gives all it has.
        ignored: (N,) bool, priors to leave out of the loss.  They are candidates only where a level has fewer than
            ``topk`` others, and then a match wins over the mark.
        quality_of: what takes the place of the IoU, as ``ddod_quality`` does: from a block of ground truths and the
            candidates (m, K) of each, rows of ``priors``, to their quality (m, K); None computes the IoU.

    Returns:
        Assignment with ``quality`` = IoU (or the other quality) with the matched box, 0 elsewhere.

    The standard deviation is the unbiased one, as in the published code, and 0 of a single candidate.  ``topk`` counts
    priors, as in mmdet; the published code counts locations, each with all its A anchors: ``topk=9 * A`` here.  Differs
    from mmdet: quality is 0 where nothing is matched (mmdet: -1e8), a single candidate can match, and ignore regions
    hold in images without ground truths.

    Example:
        >>> priors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [0., 8., 8., 16.], [8., 8., 16., 16.]])
        >>> atss(priors, torch.tensor([[0., 0., 9., 9.]]), level_sizes=[4]).gt_index
        tensor([ 0, -1, -1, -1])
    """
    num_priors, num_gts = len(priors), len(gts)
    background = all_negative(num_priors, priors)
    if ignored is not None:
        background = background.masked_fill(ignored, IGNORED)
    if num_gts == 0 or num_priors == 0:
        return Assignment(background, priors.new_zeros(num_priors))

    chosen, qualities = [], []
    for block in split(num_gts, MATRICES * priors.element_size() * num_priors, priors.device):
        near = nearest_candidates(priors, gts[block], level_sizes, topk, ignored)
        chosen.append(near)
        qualities.append(quality_of(block, near) if quality_of else overlaps_of_pairs(priors, gts[block], near))
    gt_index, quality = match_candidates(priors, gts, torch.cat(chosen), torch.cat(qualities), [num_gts])
    return Assignment(torch.where(gt_index >= 0, gt_index, background), quality)


def nearest_candidates(
    priors: Tensor, gts: Tensor, level_sizes: Sequence[int], topk: int, ignored: Tensor | None
) -> Tensor:
    """The priors of each level nearest to each ground truth: (..., N, 4), (..., M, 4), (..., N) bool -> (..., M, K)."""
    distance = center_distance(gts, priors)  # (..., M, N)
    if ignored is not None:
        distance.masked_fill_(ignored[..., None, :], FAR)
    return nearest_per_level(distance, level_sizes, topk)


def match_candidates(
    priors: Tensor, gts: Tensor, candidates: Tensor, quality: Tensor, counts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Match the candidates that lie inside their ground truth and reach its threshold.

    Args:
        priors: (N, 4) xyxy, those of several images one after another.
        gts: (M, 4) xyxy, likewise.
        candidates: (M, K) int64, rows of ``priors`` that each ground truth considers.
        quality: (M, K) of the candidates.
        counts: ground truths of each image, summing to M.

    Returns:
        (N,) int64 the ground truth of each prior, -1 where there is none, and (N,) the quality of the match, 0 there.
    """
    # Turned and image by image, since the order in which a mean adds depends on the layout.
    parts = [part.T.contiguous() for part in quality.split(list(counts))]  # (K, m) each
    # One candidate deviates from nothing, though its standard deviation is not defined.
    threshold = torch.cat([part.mean(0) + (part.std(0) if len(part) > 1 else 0.0) for part in parts])  # (M,)
    candidates, quality = candidates.T.contiguous(), torch.cat(parts, dim=1)  # (K, M)

    x, y = box_center(priors)
    inside = border_distance(x[candidates], y[candidates], gts) > INSIDE  # (K, M)
    gt_index, row = keep_best(candidates, inside & (quality >= threshold), quality, len(priors))
    return gt_index, torch.where(gt_index >= 0, quality[row, gt_index.clamp(min=0)], 0)


def ddod_quality(iou: Tensor, logits: Tensor, alpha: float) -> Tensor:
    """DDOD's measure of a match, from predictions: score^(1 - alpha) * IoU^alpha.

    Args:
        iou: (...) of predicted boxes with ground truths.
        logits: (...) of the ground truths' classes.
        alpha: share of the IoU, 0 to 1.

    Returns:
        (...), from 0 to 1.
    """
    score = evenly(lambda logit: logit.sigmoid() ** (1 - alpha), logits)
    return score * evenly(lambda overlap: overlap**alpha, iou)


@register
class ATSSAssigner(OverlapMixin, BatchingAssigner):
    """Assign priors by adaptive IoU thresholds: ATSS, GFL, VFNet, DyHead, TOOD's first epochs; with ``alpha`` DDOD.

    Args:
        topk: candidates per level and ground truth; 9 in the paper.
        alpha: share of the IoU in DDOD's measure, which then takes the place of the IoU everywhere and needs ``scores``
            (logits) and ``bboxes`` (decoded) of the predictions; None is plain ATSS.
        iou_calculator: configuration or object; plain IoU if None.
        ignore_iof_thr: a prior covered by ignore regions beyond this share is ignored; off when not above 0.
        topk_per_location: ``topk`` counts locations with all their anchors, as the paper's code does, not anchors, as
            mmdet does; the same where each location has one anchor.
        num_anchors_per_location: anchors of each location, all with the same centre; for ``topk_per_location``.

    Example:
        >>> from types import SimpleNamespace as Instances
        >>> priors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [0., 8., 8., 16.], [8., 8., 16., 16.]])
        >>> gt = Instances(bboxes=torch.tensor([[0., 0., 9., 9.]]), labels=torch.tensor([2]))
        >>> ATSSAssigner(topk=9).assign(Instances(priors=priors), [4], gt).gt_inds
        tensor([1, 0, 0, 0])
    """

    def __init__(
        self,
        topk: int,
        alpha: float | None = None,
        iou_calculator: Any = None,
        ignore_iof_thr: float = -1,
        *,
        topk_per_location: bool = False,
        num_anchors_per_location: int = 1,
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        super().__init__(memory_budget, compile, deterministic, on_nonfinite)
        if topk < 1:
            self.fail(f"topk is {topk}; at least 1 candidate per level is needed")
        if num_anchors_per_location < 1:
            self.fail(f"num_anchors_per_location is {num_anchors_per_location}; it must be at least 1")
        if num_anchors_per_location > 1 and not topk_per_location:
            self.fail("num_anchors_per_location has no effect without topk_per_location=True; set both or neither")
        self.topk = topk
        self.num_candidates = topk * num_anchors_per_location
        self.alpha = alpha
        self.ignore_iof_thr = ignore_iof_thr
        self.build_calculator(iou_calculator)

    @in_either_order
    @within_memory
    @torch.no_grad()
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any = None,
        *,
        num_level_priors: Sequence[int] | None = None,
        img_meta: Mapping[str, Any] | None = None,
    ) -> AssignResult:
        """Assign the priors of one image.

        Args:
            pred_instances: with ``priors`` (N, 4) xyxy, further columns are not used; N may be 0.  With ``alpha`` also
                ``scores`` (N, C) logits and ``bboxes`` (N, 4) xyxy.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: with ``bboxes`` (R, 4), or None.
            num_level_priors: priors in each level, summing to N; may also come second, as mmdet's ATSSHead passes it,
                or be left out where ``pred_instances`` has ``level_ids`` (N,), ascending from 0.
            img_meta: accepted so that assigners can be exchanged; not used.

        Returns:
            AssignResult whose ``max_overlaps`` (N,) is the quality of the match, 0 where there is none.

        Raises:
            ValueError: the levels don't sum to N, a field is missing or has the wrong shape, or on CPU is not finite.
        """
        priors, predicted, gts, labels = self.read_image(pred_instances, gt_instances)
        level_sizes = self.read_level_sizes(pred_instances, num_level_priors, len(priors))
        assignment = self.run(
            atss,
            priors,
            gts,
            level_sizes,
            self.num_candidates,
            self.ignored_priors(priors, self.read_regions(gt_instances_ignore)),
            self._quality_of(priors, predicted, gts, labels),
        )
        return to_assign_result(assignment, labels)

    def takes_images(self, num_level_priors: Sequence[int] | None = None, **shared: Any) -> bool:
        """Where the calculator compares pair by pair and all images have the same levels."""
        return num_level_priors is not None and getattr(self.iou_calculator, "takes_pairs", False)

    def bytes_of(self, pred_instances: Any, num_gts: int) -> int:
        """Those of the distances."""
        return MATRICES * 4 * self.count(pred_instances) * num_gts

    def assign_images(
        self, images: Images, num_level_priors: Sequence[int] | None = None, **shared: Any
    ) -> list[AssignResult]:
        """Assign images at once, see ``assign_batch``: thresholds image by image, everything else for all."""
        each, predicted, gts, labels = zip(*self.read_images(images))
        level_sizes = self.read_level_sizes(images[0][0], num_level_priors, len(each[0]))
        priors, shape = torch.stack(list(each)), (len(each), len(each[0]))  # (B, N, 4)
        regions = [self.read_regions(ignore) for _, _, ignore, _ in images]
        ignored = None
        if any(region is not None for region in regions):
            boxes = [priors.new_zeros(0, 4) if region is None else region for region in regions]
            ignored = self.ignored_priors(priors, padded(boxes)[0])  # (B, N)
        near = nearest_candidates(priors, padded(gts)[0], level_sizes, self.num_candidates, ignored)  # (B, M, K)

        # From here on the ground truths stand one after another, T in all, and so do the priors.
        counts = [len(own) for own in labels]
        image, number = places(counts, priors)  # (T,) each
        near, all_gts, all_priors = near[image, number], torch.cat(gts), priors.flatten(0, 1)
        candidates = near + shape[1] * image[:, None]  # (T, K)
        if self.alpha is None:
            quality = self.overlaps_at(all_priors, all_gts, candidates)
        else:
            scores, decoded = zip(*predicted)
            score = [own[part, classes[:, None]] for own, part, classes in zip(scores, near.split(counts), labels)]
            quality = ddod_quality(
                self.overlaps_at(torch.cat(decoded), all_gts, candidates), torch.cat(score), self.alpha
            )
        gt_index, quality = match_candidates(all_priors, all_gts, candidates, quality, counts)
        background = all_negative(len(gt_index), priors)
        if ignored is not None:
            background = background.masked_fill(ignored.flatten(), IGNORED)
        gt_index = torch.where(gt_index >= 0, number[gt_index.clamp(min=0)], background)
        return to_assign_results(gt_index.view(shape), quality.view(shape), labels)

    def read_image(self, pred_instances: Any, gt_instances: Any) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """Priors, what DDOD's measure needs (scores and boxes), boxes and labels of the ground truths, checked."""
        priors, *predicted = self.read_predictions(pred_instances, **self._fields_of(pred_instances))
        gts, labels = self.read_ground_truths(gt_instances, predicted[0].shape[1] if predicted else None)
        return priors, predicted, gts, labels

    def _fields_of(self, pred_instances: Any) -> dict[str, Kind]:
        """The fields that are read, with DDOD's measure those of the predictions, too."""
        has_predictions = hasattr(pred_instances, "scores") and hasattr(pred_instances, "bboxes")
        if self.alpha is not None:
            if not has_predictions:
                text = "which needs scores and bboxes in pred_instances; use DDODHead or alpha=None"
                self.fail(f"alpha is {self.alpha}, {text}")
            return {"priors": "boxes", "scores": "scores", "bboxes": "predicted"}
        if has_predictions:
            text = "pred_instances has scores and bboxes, not used without alpha; set alpha for DDOD's measure"
            self.tell_once("predictions", text)
        return {"priors": "boxes"}

    def _quality_of(
        self, priors: Tensor, predicted: Sequence[Tensor], gts: Tensor, labels: Tensor
    ) -> Callable[[slice, Tensor], Tensor]:
        if self.alpha is None:
            return lambda block, near: self.overlaps_at(priors, gts[block], near)
        (scores, boxes), alpha = predicted, self.alpha

        def quality_of(block: slice, near: Tensor) -> Tensor:
            return ddod_quality(self.overlaps_at(boxes, gts[block], near), scores[near, labels[block, None]], alpha)

        return quality_of
