"""ATSS: every ground truth sets its own IoU threshold.

Zhang et al., CVPR 2020, arXiv:1912.02424, Algorithm 1; with predictions, DDOD's cost: Chen et al., ACM MM 2021,
arXiv:2107.02963, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import FINER, Coverage, DenseAssigner
from visdet_assigners.assigners.forms import TRUTHS, Names
from visdet_assigners.assignment import (
    IGNORED,
    Assignment,
    AssignResult,
    all_negative,
    to_assign_results,
)
from visdet_assigners.functional.blocks import split
from visdet_assigners.functional.boxes import INSIDE, length
from visdet_assigners.functional.geometry import UPRIGHT, Geometry
from visdet_assigners.functional.overlaps import overlaps_of_pairs
from visdet_assigners.functional.resolve import keep_best
from visdet_assigners.functional.select import nearest_per_level
from visdet_assigners.functional.tensors import cat_or_only, evenly, row_of_image
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import whole_number
from visdet_assigners.registry import register

MATRICES = 3
"""Matrices of the size (M, N) that are there at once."""
LAST = 1e8
"""Distance given to ignored priors, so that they are candidates last."""
Quality = Callable[[slice, Tensor], Tensor]
"""What ranks candidates: a block of m ground truths and their candidates (m, K), rows of the priors, -> (m, K)."""


@checked({"topk": whole_number}, priors="boxes", gts="truths", level_sizes="levels", ignored="marks")
def atss(
    priors: Tensor,
    gts: Tensor,
    level_sizes: Sequence[int],
    topk: int = 9,
    ignored: Tensor | None = None,
    quality_of: Quality | None = None,
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
    return Assignment(*atss_of_images(priors, gts, level_sizes, topk, ignored, quality_of))


def atss_of_images(
    priors: Tensor,
    gts: Tensor,
    level_sizes: Sequence[int],
    topk: int,
    ignored: Tensor | None = None,
    quality_of: Quality | None = None,
    whole: bool = False,
    counts: Sequence[int] | None = None,
    geometry: Geometry = UPRIGHT,
    prior_geometry: Geometry = UPRIGHT,
) -> tuple[Tensor, Tensor]:
    """Match the priors of B images, N each, as `atss` does.

    The ground truths of all images stand one after another, T in all, and so do the priors.

    Args:
        priors: (B * N, 4) xyxy, or D columns that ``prior_geometry`` knows; N may be 0.
        gts: (T, 4) xyxy, or columns that ``geometry`` knows.
        level_sizes: the same for all images.
        topk: see there.
        ignored: (B * N,) bool, or None.
        quality_of: see there, of ground truths and priors of all images.
        whole: whether ``quality_of`` must be asked once for all, as far as the memory budget allows.
        counts: ground truths of each image; None means one image.
        geometry: what is known of the ground truths.
        prior_geometry: what is known of the priors.

    Returns:
        (B * N,) int64 the ground truth of each prior in its image, and (B * N,) the quality.
    """
    background = all_negative(len(priors), priors)
    if ignored is not None:
        background = background.masked_fill(ignored, IGNORED)
    if len(priors) == 0 or len(gts) == 0:
        return background, priors.new_zeros(len(priors))

    num_images = 1 if counts is None else len(counts)
    num_priors = len(priors) // num_images
    image, number = (None, None) if counts is None else row_of_image(counts, priors)  # (T,) each
    prior_centers = prior_geometry.centers(priors)  # x and y, (B * N,) each
    chosen, qualities = [], []
    bytes_each = (MATRICES if image is None else MATRICES + 4) * priors.element_size() * num_priors
    for block in split(len(gts), bytes_each, priors.device, least=len(gts) if whole else 1):
        own, marks = prior_centers, ignored
        if image is not None:
            x, y = (each.view(num_images, num_priors)[image[block]] for each in prior_centers)  # (m, N) each
            own = x, y
            marks = None if ignored is None else ignored.view(num_images, num_priors)[image[block]]
        near = nearest_candidates(own, geometry.centers(gts[block]), level_sizes, topk, marks)
        near = near if image is None else near + num_priors * image[block, None]
        chosen.append(near)
        qualities.append(quality_of(block, near) if quality_of else overlaps_of_pairs(priors, gts[block], near))
    gt_index, quality = match_candidates(
        prior_centers, gts, cat_or_only(chosen), cat_or_only(qualities), counts or [len(gts)], geometry
    )
    if number is not None:
        gt_index = torch.where(gt_index >= 0, number[gt_index.clamp(min=0)], gt_index)
    return torch.where(gt_index >= 0, gt_index, background), quality


def nearest_candidates(
    prior_centers: Sequence[Tensor],
    gt_centers: Sequence[Tensor],
    level_sizes: Sequence[int],
    topk: int,
    ignored: Tensor | None,
) -> Tensor:
    """The priors of each level nearest to each ground truth.

    Args:
        prior_centers: x and y, (N,) each, or (M, N), those of the image of each ground truth.
        gt_centers: x and y, (M,) each.
        level_sizes: priors in each level.
        topk: how many of each level.
        ignored: (N,) or (M, N) bool, priors that come last; or None.

    Returns:
        (M, K) int64, rows of the priors of an image.
    """
    distance = length(*(own[:, None] - other for own, other in zip(gt_centers, prior_centers)))  # (M, N)
    if ignored is not None:
        distance.masked_fill_(ignored, LAST)
    return nearest_per_level(distance, level_sizes, topk)


def match_candidates(
    prior_centers: Sequence[Tensor],
    gts: Tensor,
    candidates: Tensor,
    quality: Tensor,
    counts: Sequence[int],
    geometry: Geometry,
) -> tuple[Tensor, Tensor]:
    """Match the candidates that lie inside their ground truth and reach its threshold.

    Args:
        prior_centers: x and y, (N,) each, those of several images one after another.
        gts: (M, 4) xyxy, or columns that ``geometry`` knows, likewise.
        candidates: (M, K) int64, the priors that each ground truth considers.
        quality: (M, K) of the candidates.
        counts: ground truths of each image, summing to M.
        geometry: what is known of the ground truths.

    Returns:
        (N,) int64 the ground truth of each prior, -1 where there is none, and (N,) the quality of the match, 0 there.
    """
    # Turned and image by image, since the order in which a mean adds depends on the layout.
    parts = [part.T.contiguous() for part in quality.split(list(counts))]  # (K, m) each
    # One candidate deviates from nothing, though its standard deviation is not defined.
    threshold = torch.cat([part.mean(0) + (part.std(0) if len(part) > 1 else 0.0) for part in parts])  # (M,)
    candidates, quality = candidates.T.contiguous(), torch.cat(parts, dim=1)  # (K, M)

    x, y = prior_centers
    inside = geometry.inside_own(x[candidates], y[candidates], gts, INSIDE)  # (K, M)
    gt_index, row = keep_best(candidates, inside & (quality >= threshold), quality, len(x))
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
class ATSSAssigner(DenseAssigner):
    """Assign priors by adaptive IoU thresholds: ATSS, GFL, VFNet, DyHead, TOOD's first epochs; with ``alpha`` DDOD.

    Reads ``priors`` (N, 4) xyxy, of which further columns are not used, and the level sizes, or ``level_ids`` (N,) of
    the predictions, ascending from 0; with ``alpha`` also ``scores`` (N, C) logits and ``bboxes`` (N, 4) xyxy.  Boxes
    of another form, as rotated ones, will do in a class that knows their centres and insides, as mmdet's ``BaseBoxes``,
    with an ``iou_calculator`` that knows them.  Result: ``max_overlaps`` (N,) is the quality of the match, 0 where
    there is none.

    Of rotated boxes it decides as mmrotate's ``RotatedATSSAssigner`` does.

    Args:
        topk: candidates per level and ground truth; 9 in the paper.
        alpha: share of the IoU in DDOD's measure, which then takes the place of the IoU everywhere and needs ``scores``
            (logits) and ``bboxes`` (decoded) of the predictions; None is plain ATSS.
        iou_calculator: configuration or object; plain IoU if None.
        ignore_iof_thr: a prior covered by ignore regions beyond this share is ignored; off when not above 0.
        topk_per_location: ``topk`` counts locations with all their anchors, as the paper's code does, not anchors, as
            mmdet does; the same where each location has one anchor.
        num_anchors_per_location: anchors of each location, all with the same centre; for ``topk_per_location``.
        **common: see ``DenseAssigner``.

    Example:
        >>> from types import SimpleNamespace as Instances
        >>> priors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [0., 8., 8., 16.], [8., 8., 16., 16.]])
        >>> gt = Instances(bboxes=torch.tensor([[0., 0., 9., 9.]]), labels=torch.tensor([2]))
        >>> ATSSAssigner(topk=9).assign(Instances(priors=priors), [4], gt).gt_inds
        tensor([1, 0, 0, 0])
    """

    knobs: ClassVar[str] = f"{FINER}; topk is no help"
    levels: ClassVar[Literal["needed", "optional", "unused"]] = "needed"
    handles_regions: ClassVar[bool] = True
    mmdet2: ClassVar[Names] = ("bboxes", "num_level_bboxes", *TRUTHS, "cls_scores", "bbox_preds")
    asks_boxes: ClassVar[bool] = True
    covers_inside: ClassVar[bool] = True

    def __init__(
        self,
        topk: int,
        alpha: float | None = None,
        iou_calculator: Any = None,
        ignore_iof_thr: float = -1,
        *,
        topk_per_location: bool = False,
        num_anchors_per_location: int = 1,
        **common: Unpack[Coverage],
    ) -> None:
        super().__init__(ignore_iof_thr=ignore_iof_thr, **common)
        self.topk = self.count_of("topk", topk)
        per_location = self.count_of("num_anchors_per_location", num_anchors_per_location)
        if per_location > 1 and not topk_per_location:
            self.fail("num_anchors_per_location has no effect without topk_per_location=True; set both or neither")
        self.num_candidates = self.topk * per_location
        self.alpha = None if alpha is None else self.number_of("alpha", alpha)
        self.build_calculator(iou_calculator)

    @classmethod
    def reads_of(cls, assigner: Any) -> Mapping[str, Kind]:
        """The priors, and with DDOD's measure the predictions, too."""
        with_predictions: dict[str, Kind] = {"priors": "boxes", "scores": "scores", "bboxes": "predicted"}
        return cls.reads if assigner.alpha is None else with_predictions

    def fields_of(self, pred_instances: Any) -> Mapping[str, Kind]:
        """What ``reads_of`` says, if the head passes it."""
        has_predictions = hasattr(pred_instances, "scores") and hasattr(pred_instances, "bboxes")
        if self.alpha is not None:
            if not has_predictions:
                text = "which needs scores and bboxes in pred_instances; use DDODHead or alpha=None"
                self.fail(f"alpha is {self.alpha}, {text}", pred_instances)
        elif has_predictions:
            text = "pred_instances has scores and bboxes, not used without alpha; set alpha for DDOD's measure"
            self.warn_once("predictions", text)
        return self.reads_of(self)

    def can_batch(self) -> bool:
        """Whether images can be decided together: if the calculator compares pair by pair."""
        return bool(self.promise("takes_pairs"))

    def decide_images(self, images: Sequence[Inputs]) -> list[AssignResult]:
        """Assign images with as many priors each."""
        names = self.reads_of(self)
        priors, *predicted = (cat_or_only([image.fields[name] for image in images]) for name in names)
        gts, labels = cat_or_only([image.gts for image in images]), [image.labels for image in images]
        if len(images) == 1:
            forms = (images[0].forms["regions"], images[0].forms["priors"])
            ignored = self.ignored_priors(priors, images[0].regions, forms=forms)
        else:
            ignored = self.ignored_priors(priors.view(len(images), -1, 4), self.padded_regions(images))
            ignored = None if ignored is None else ignored.flatten()
        gt_index, quality = self.run(
            atss_of_images,
            priors,
            gts,
            images[0].level_sizes,
            self.num_candidates,
            ignored,
            self._quality_of(priors, gts, labels, predicted, images[0].forms),
            not self.blockwise,
            None if len(images) == 1 else [len(own) for own in labels],
            images[0].geometry("gts"),
            images[0].geometry("priors"),
        )
        if len(images) == 1:
            return [self.result(Assignment(gt_index, quality), images[0])]
        shape = (len(images), len(priors) // len(images))
        gt_index, quality = gt_index.view(shape), quality.view(shape)
        if self.min_positives:
            return [self.result(Assignment(*own), image) for image, *own in zip(images, gt_index, quality)]
        return to_assign_results(gt_index, quality, labels)

    def _quality_of(
        self,
        priors: Tensor,
        gts: Tensor,
        labels: Sequence[Tensor],
        predicted: Sequence[Tensor],
        forms: Mapping[str, Any],
    ) -> Quality:
        """What ranks candidates, of priors, ground truths and predictions of all images one after another."""
        if self.alpha is None:
            own = (forms["gts"], forms["priors"])
            return lambda block, near: self.overlaps_at(priors, gts[block], near, own)
        own = (forms["gts"], forms["bboxes"])
        (scores, boxes), alpha, classes = predicted, self.alpha, cat_or_only(labels)

        def quality_of(block: slice, near: Tensor) -> Tensor:
            return ddod_quality(
                self.overlaps_at(boxes, gts[block], near, own), scores[near, classes[block, None]], alpha
            )

        return quality_of
