"""MaxIoU: thresholds on the IoU.

Ren et al., Faster R-CNN, NeurIPS 2015, arXiv:1506.01497, section 3.1.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner, OverlapMixin, in_either_order
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.boxes import INSIDE, border_distance, box_iou
from visdet_assigners.functional.inputs import Policy
from visdet_assigners.functional.overlaps import (
    Overlaps,
    OverlapTable,
    best_ground_truths,
    best_priors,
    overlap_table,
    table_of,
)
from visdet_assigners.functional.tensors import padded
from visdet_assigners.iou_calculators import IoUCalculator
from visdet_assigners.registry import register

Threshold = float | Sequence[float]


def threshold_band(threshold: Threshold) -> tuple[float, float]:
    """A pair as it is, one number as (0, number)."""
    return (threshold[0], threshold[1]) if isinstance(threshold, Sequence) else (0.0, threshold)


def check_thresholds(assigner: BaseAssigner, pos_iou_thr: float, neg_iou_thr: Threshold) -> None:
    """Raise in the name of an assigner if its thresholds are none, and warn once if they cross."""
    if isinstance(neg_iou_thr, Sequence) and len(neg_iou_thr) != 2:
        assigner.fail(f"neg_iou_thr is {neg_iou_thr!r}; one number or (low, high) is expected")
    if threshold_band(neg_iou_thr)[1] > pos_iou_thr:
        text = f"neg_iou_thr {neg_iou_thr} is above pos_iou_thr {pos_iou_thr}; priors between the two become positive"
        assigner.tell_once("thresholds", text)


def max_iou(
    priors: Tensor,
    gts: Tensor,
    pos_iou_thr: float,
    neg_iou_thr: Threshold,
    min_pos_iou: float = 0.0,
    gt_max_assign_all: bool = True,
    match_low_quality: bool = True,
    ignored: Tensor | None = None,
) -> Assignment:
    """Match each prior to the ground truth it overlaps most, by fixed thresholds.

    See ``match_by_iou`` for the rule; this computes the IoU.

    Args:
        priors: (N, 4) xyxy, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        pos_iou_thr: as in ``match_by_iou``, and so are the others.
        neg_iou_thr: see there.
        min_pos_iou: see there.
        gt_max_assign_all: see there.
        match_low_quality: see there.
        ignored: see there.

    Example:
        >>> priors = torch.tensor([[0., 0., 10., 10.], [10., 10., 20., 20.]])
        >>> max_iou(priors, torch.tensor([[0., 0., 10., 9.]]), 0.5, 0.5).gt_index
        tensor([ 0, -1])
    """
    thresholds = (pos_iou_thr, neg_iou_thr, min_pos_iou, gt_max_assign_all, match_low_quality)
    if len(priors) == 0 or len(gts) == 0:
        return nothing_to_match(len(priors), priors, ignored)
    return Assignment(*match_boxes(priors[:, None], gts, box_iou, 0.0, ignored, *thresholds))


def nothing_to_match(num_priors: int, like: Tensor, ignored: Tensor | None = None) -> Assignment:
    """The assignment where there are no ground truths or no priors: negative but for (N,) ``ignored``."""
    gt_index, quality = all_negative(num_priors, like), like.new_zeros(num_priors)
    if ignored is not None:
        gt_index, quality = gt_index.masked_fill(ignored, IGNORED), quality.masked_fill(ignored, -1)
    return Assignment(gt_index, quality)


def match_by_iou(
    iou: Tensor,
    pos_iou_thr: float,
    neg_iou_thr: Threshold,
    min_pos_iou: float = 0.0,
    gt_max_assign_all: bool = True,
    match_low_quality: bool = True,
    ignored: Tensor | None = None,
) -> Assignment:
    """Match by thresholds on given overlaps.

    A prior is negative when its best IoU is below ``neg_iou_thr``, positive for its best ground truth when that IoU
    reaches ``pos_iou_thr``, and ignored between the two.  Then, if ``match_low_quality``, every ground truth takes the
    prior that overlaps it most, whatever that prior had; of several ground truths the last wins.

    Args:
        iou: (N, M); either may be 0.
        pos_iou_thr: least IoU of a positive.
        neg_iou_thr: IoU below which a prior is negative, or (low, high): negative from low to below high.
        min_pos_iou: least IoU of a low-quality match.
        gt_max_assign_all: a ground truth takes all the priors that share its best IoU; otherwise the first of them.
        match_low_quality: whether ground truths take their best priors.
        ignored: (N,) bool, priors to leave out of the loss.

    Returns:
        Assignment with ``quality`` = IoU with the best ground truth (also where a low-quality match gave the prior
        to another), -1 where ignored by ``ignored``.

    Differs from mmdet: a ground truth that overlaps no prior takes none (mmdet gives it every prior of IoU 0 when
    ``min_pos_iou`` is 0); ignore regions hold in images without ground truths.
    """
    num_priors, num_gts = iou.shape
    if num_gts == 0 or num_priors == 0:
        return nothing_to_match(num_priors, iou, ignored)
    if ignored is not None:
        iou = iou.masked_fill(ignored[:, None], -1)
    table = table_of(iou.T)
    thresholds = (pos_iou_thr, neg_iou_thr, min_pos_iou, gt_max_assign_all, match_low_quality)
    return Assignment(*match_table(table, *thresholds))


def match_table(
    table: OverlapTable,
    pos_iou_thr: float,
    neg_iou_thr: Threshold,
    min_pos_iou: float = 0.0,
    gt_max_assign_all: bool = True,
    match_low_quality: bool = True,
) -> tuple[Tensor, Tensor]:
    """Match as `match_by_iou` does, the overlaps being computed in blocks, twice where low-quality matches count.

    Args:
        table: of M ground truths and N priors, neither 0.
        pos_iou_thr: see `match_by_iou`, and so for the others.
        neg_iou_thr: see there.
        min_pos_iou: see there.
        gt_max_assign_all: see there.
        match_low_quality: see there.

    Returns:
        ``gt_index`` (..., N) and ``quality`` (..., N) of the `Assignment`; the first dimensions are images.
    """
    quality, best_gt, block_best = best_ground_truths(table, least=pos_iou_thr)
    low, high = threshold_band(neg_iou_thr)
    negative = (quality >= low) & (quality < high)
    gt_index = torch.full_like(best_gt, IGNORED).masked_fill_(negative, NEGATIVE)
    gt_index = torch.where(quality >= pos_iou_thr, best_gt, gt_index)
    if match_low_quality:
        best = block_best.amax(dim=-2)  # (..., M)
        taken_by = best_priors(table, block_best, (best >= min_pos_iou) & (best > 0), gt_max_assign_all)
        gt_index = torch.where(taken_by >= 0, taken_by, gt_index)
    return gt_index, quality


def match_boxes(
    candidates: Tensor, gts: Tensor, overlaps: Overlaps, reach: float | None, ignored: Tensor | None, *thresholds: Any
) -> tuple[Tensor, Tensor]:
    """Match as `match_table` does with these thresholds; the other arguments are those of `overlap_table`."""
    return match_table(overlap_table(candidates, gts, overlaps, reach, ignored), *thresholds)


def ignore_outside(gt_index: Tensor, priors: Tensor, gts: Tensor) -> Tensor:
    """Ignore positives whose centre lies outside their ground truth, "In GT Box" in the ATSS paper, arXiv:1912.02424.

    Args:
        gt_index: (..., N) of an `Assignment`; the first dimensions are images.
        priors: (..., N, 4) xyxy.
        gts: (..., M, 4) xyxy; M at least 1.

    Returns:
        (..., N), `IGNORED` there.
    """
    own = gts.gather(-2, gt_index.clamp(min=0)[..., None].expand(*gt_index.shape, 4))  # (..., N, 4)
    x, y = (priors[..., 0] + priors[..., 2]) / 2, (priors[..., 1] + priors[..., 3]) / 2
    outside = border_distance(x, y, own) <= INSIDE
    return gt_index.masked_fill((gt_index >= 0) & outside, IGNORED)


def spread_repeated_boxes(
    boxes: Tensor, calculator: IoUCalculator, iou_thr: float = 0.97, perm_range: float = 0.01
) -> Tensor:
    """Move boxes that stand more than once a little apart, so that each can be some prior's best.

    Every coordinate is multiplied by a number drawn from 1 - ``perm_range`` to 1 + ``perm_range``; a draw that inverts
    a box or falls below ``iou_thr`` is drawn again, five times at most, from a narrower range.

    Args:
        boxes: (M, 4) xyxy.
        calculator: pairwise overlaps.
        iou_thr: least IoU with the original box of the first draw; 0.97 in later draws, as in mmdet.
        perm_range: half width of the factors.

    Returns:
        (M, 4), a copy.

    The draws come from torch's global generator in mmdet's order, so that the same seed gives the same boxes.  This is
    the one place that loops over boxes: how many are drawn depends on each outcome.
    """
    boxes = boxes.clone()
    for box in boxes.unique(dim=0):
        same = (boxes == box).all(dim=1)
        if int(same.sum()) != 1:
            boxes[same] = _draw_around(boxes[same], calculator, iou_thr, perm_range)
    return boxes


def _draw_around(boxes: Tensor, calculator: IoUCalculator, iou_thr: float, perm_range: float) -> Tensor:
    original = boxes.unique(dim=0)
    drawn = boxes
    for attempt in range(6):
        drawn = boxes * torch.empty_like(boxes).uniform_(1 - perm_range, 1 + perm_range)
        upright = (drawn[:, 2:] > drawn[:, :2]).all()
        if upright and not (calculator(original, drawn) < iou_thr).any():
            break
        iou_thr, perm_range = 0.97, max(perm_range - attempt * 0.001, 1e-3)
    return drawn


@register
class MaxIoUAssigner(OverlapMixin, BaseAssigner):
    """Assign priors to ground truths by fixed IoU thresholds: RPN, R-CNN, RetinaNet, SSD.

    The attributes are read at each call, so that heads may change the thresholds while training (Dynamic R-CNN does).

    Args:
        pos_iou_thr: least IoU of a positive.
        neg_iou_thr: IoU below which a prior is negative, or a pair (low, high), also as a list.
        min_pos_iou: least IoU of a low-quality match.
        gt_max_assign_all: a ground truth takes all the priors that share its best IoU; otherwise the first.
        ignore_iof_thr: a prior covered by ignore regions beyond this share is ignored; off when not above 0.
        ignore_wrt_candidates: take the share of the prior; otherwise of the region.
        match_low_quality: whether each ground truth takes its best priors.
        gpu_assign_thr: with more ground truths than this, work on the CPU; off when not above 0.
        iou_calculator: configuration or object; plain IoU if None.
        perm_repeat_gt_cfg: ``dict(iou_thr=..., perm_range=...)`` moves repeated boxes apart, see
            ``spread_repeated_boxes``; None leaves them.
        ignore_outside_gt: ignore positives whose centre lies outside their ground truth, see ``ignore_outside``; for
            heads with centerness, which have no target there.

    Differs from mmdet: thresholds may be ints, numpy numbers or lists; see ``match_by_iou`` for the rest.

    Example:
        >>> from types import SimpleNamespace as Instances
        >>> assigner = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4)
        >>> pred = Instances(priors=torch.tensor([[0., 0., 10., 10.], [10., 10., 20., 20.]]))
        >>> gt = Instances(bboxes=torch.tensor([[0., 0., 10., 9.]]), labels=torch.tensor([7]))
        >>> result = assigner.assign(pred, gt)
        >>> result.gt_inds, result.labels
        (tensor([1, 0]), tensor([ 7, -1]))
    """

    def __init__(
        self,
        pos_iou_thr: float,
        neg_iou_thr: Threshold,
        min_pos_iou: float = 0.0,
        gt_max_assign_all: bool = True,
        ignore_iof_thr: float = -1,
        ignore_wrt_candidates: bool = True,
        match_low_quality: bool = True,
        gpu_assign_thr: float = -1,
        iou_calculator: Any = None,
        perm_repeat_gt_cfg: Mapping[str, float] | None = None,
        *,
        ignore_outside_gt: bool = False,
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        super().__init__(memory_budget, compile, deterministic, on_nonfinite)
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.min_pos_iou = min_pos_iou
        self.gt_max_assign_all = gt_max_assign_all
        self.ignore_iof_thr = ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.match_low_quality = match_low_quality
        self.gpu_assign_thr = gpu_assign_thr
        self.perm_repeat_gt_cfg = perm_repeat_gt_cfg
        self.ignore_outside_gt = ignore_outside_gt
        self.build_calculator(iou_calculator)
        check_thresholds(self, pos_iou_thr, neg_iou_thr)

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
            pred_instances: with ``priors`` (N, 4) xyxy; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: with ``bboxes`` (R, 4), or None.
            num_level_priors: accepted so that assigners can be exchanged, also second, as ATSSHead passes it; not used.
            img_meta: accepted for the same reason; not used.

        Returns:
            AssignResult whose ``max_overlaps`` (N,) is the best IoU of each prior, -1 where ignored.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite.
        """
        priors, candidates = self.read_candidates(pred_instances)
        gts, labels = self.read_ground_truths(gt_instances)
        regions = self.read_regions(gt_instances_ignore)
        device = priors.device
        if 0 < self.gpu_assign_thr < len(gts):
            priors, candidates, gts, labels = priors.cpu(), candidates.cpu(), gts.cpu(), labels.cpu()
            regions = None if regions is None else regions.cpu()

        if self.perm_repeat_gt_cfg is not None and len(priors):
            gts = spread_repeated_boxes(gts, self.iou_calculator, **self.perm_repeat_gt_cfg)
        ignored = self.ignored_priors(priors, regions, self.ignore_wrt_candidates)
        if len(gts) and len(priors):
            assignment = Assignment(*self.match_candidates(priors, candidates, gts, ignored))
        else:
            assignment = nothing_to_match(len(priors), priors, ignored)
        result = to_assign_result(assignment, labels)
        if result.gt_inds.device != device:
            for name in ("gt_inds", "max_overlaps", "labels"):
                setattr(result, name, getattr(result, name).to(device))
        return result

    def read_candidates(self, pred_instances: Any) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4) to compare with ignore regions, and (N, A, 4) to compare with ground truths, here the same."""
        (priors,) = self.read_predictions(pred_instances, priors="boxes")
        return priors, priors[:, None]

    @property
    def thresholds(self) -> tuple[float, Threshold, float, bool, bool]:
        """What `match_table` takes behind the table, as the attributes are now."""
        low_quality = (self.gt_max_assign_all, self.match_low_quality)
        return (self.pos_iou_thr, self.neg_iou_thr, self.min_pos_iou, *low_quality)

    def assign_batch(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any]] | None = None,
        **shared: Any,
    ) -> list[AssignResult]:
        """Assign B images, padded to one size and all at once on a device; see ``BaseAssigner.assign_batch``.

        On a CPU one by one is faster: what is near in one image fills its cache.
        """
        if self.perm_repeat_gt_cfg is None and len(pred_list) and self.on_device(gt_list[0]):
            return self.assign_images(pred_list, gt_list, ignore_list, img_metas)
        return super().assign_batch(pred_list, gt_list, ignore_list, img_metas, **shared)

    @within_memory
    @torch.no_grad()
    def assign_images(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> list[AssignResult]:
        """Assign a list of images in one padded batch, equal to assigning them one by one.

        Args:
            pred_list: B instances as in ``assign``.
            gt_list: B instances with ``bboxes`` (M_i, 4) and ``labels`` (M_i,).
            ignore_list: B instances with ``bboxes`` or None; or None.
            img_metas: of each image, named in errors; or None.
        """
        images = self.images_of(pred_list, gt_list, ignore_list, img_metas)
        if not images:
            return []
        boxes, truths, regions = [], [], []
        for pred, gt, ignore, meta in images:
            self.about(meta, gt, pred)
            boxes.append(self.read_candidates(pred))
            truths.append(self.read_ground_truths(gt))
            regions.append(self.read_regions(ignore))
        nothing = boxes[0][0].new_zeros(0, 4)
        priors, valid = padded([priors for priors, _ in boxes])
        indices, qualities = self.match_padded(
            priors,
            padded([candidates for _, candidates in boxes])[0],
            padded([gts for gts, _ in truths])[0],
            padded([nothing if region is None else region for region in regions])[0],
            valid,
        )
        results = []
        for image, ((own, _), (_, labels)) in enumerate(zip(boxes, truths)):
            gt_index, quality = indices[image, : len(own)], qualities[image, : len(own)]
            if len(labels) == 0:  # background, whatever the thresholds, but for ignore regions
                gt_index = torch.where(quality >= 0, NEGATIVE, IGNORED)
            results.append(to_assign_result(Assignment(gt_index, quality), labels))
        return results

    def match_padded(
        self, priors: Tensor, candidates: Tensor, gts: Tensor, regions: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Match a padded batch.

        Args:
            priors: (B, N, 4), compared with the ignore regions.
            candidates: (B, N, A, 4), compared with the ground truths; N at least 1.
            gts: (B, M, 4), padded with boxes that overlap nothing; M at least 1.
            regions: (B, R, 4), padded alike, or None.
            valid: (B, N) bool, or None where all priors are.

        Returns:
            ``gt_index`` (B, N) and ``quality`` (B, N) of the ``Assignment``.
        """
        ignored = None if valid is None else ~valid
        in_region = self.ignored_priors(priors, regions, self.ignore_wrt_candidates)
        if in_region is not None:
            ignored = in_region if ignored is None else ignored | in_region
        return self.match_candidates(priors, candidates, gts, ignored)

    def match_candidates(
        self, priors: Tensor, candidates: Tensor, gts: Tensor, ignored: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Match with the assigner's calculator and thresholds; see ``match_boxes``."""
        gt_index, quality = self.run(match_boxes, candidates, gts, self.overlaps, self.reach, ignored, *self.thresholds)
        return ignore_outside(gt_index, priors, gts) if self.ignore_outside_gt else gt_index, quality

    @torch.no_grad()
    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Assign by given overlaps, for callers that have their own.

        Args:
            overlaps: (M, N), ground truths first as in mmdet; -1 marks ignored priors.
            gt_labels: (M,).
        """
        return to_assign_result(match_by_iou(overlaps.T, *self.thresholds), gt_labels)
