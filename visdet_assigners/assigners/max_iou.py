"""MaxIoU: thresholds on the IoU.

Ren et al., Faster R-CNN, NeurIPS 2015, arXiv:1506.01497, section 3.1.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner, OverlapMixin
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.boxes import box_iou
from visdet_assigners.functional.resolve import best_priors
from visdet_assigners.iou_calculators import IoUCalculator
from visdet_assigners.registry import register

Threshold = float | Sequence[float]


def threshold_band(threshold: Threshold) -> tuple[float, float]:
    """A pair as it is, one number as (0, number)."""
    return (threshold[0], threshold[1]) if isinstance(threshold, Sequence) else (0.0, threshold)


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
    return match_by_iou(
        box_iou(priors, gts), pos_iou_thr, neg_iou_thr, min_pos_iou, gt_max_assign_all, match_low_quality, ignored
    )


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
    if num_gts == 0:
        gt_index = all_negative(num_priors, iou)
        quality = iou.new_zeros(num_priors)
        if ignored is not None:
            gt_index, quality = gt_index.masked_fill(ignored, IGNORED), quality.masked_fill(ignored, -1)
        return Assignment(gt_index, quality)
    if num_priors == 0:
        return Assignment(iou.new_zeros(0, dtype=torch.long), iou.new_zeros(0))
    if ignored is not None:
        iou = iou.masked_fill(ignored[:, None], -1)

    quality, best_gt = iou.max(dim=1)  # (N,)
    low, high = threshold_band(neg_iou_thr)
    negative = (quality >= low) & (quality < high)
    gt_index = torch.where(negative, NEGATIVE, IGNORED)
    gt_index = torch.where(quality >= pos_iou_thr, best_gt, gt_index)
    if match_low_quality:
        best_iou = iou.amax(dim=0)  # (M,)
        taken_by = best_priors(iou, (best_iou >= min_pos_iou) & (best_iou > 0), gt_max_assign_all)
        gt_index = torch.where(taken_by >= 0, taken_by, gt_index)
    return Assignment(gt_index, quality)


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
    ) -> None:
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.min_pos_iou = min_pos_iou
        self.gt_max_assign_all = gt_max_assign_all
        self.ignore_iof_thr = ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.match_low_quality = match_low_quality
        self.gpu_assign_thr = gpu_assign_thr
        self.perm_repeat_gt_cfg = perm_repeat_gt_cfg
        self.build_calculator(iou_calculator)
        if isinstance(neg_iou_thr, Sequence) and len(neg_iou_thr) != 2:
            self.fail(f"neg_iou_thr is {neg_iou_thr!r}; one number or (low, high) is expected")

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
            num_level_priors: accepted so that assigners can be exchanged; not used.
            img_meta: accepted for the same reason; not used.

        Returns:
            AssignResult whose ``max_overlaps`` (N,) is the best IoU of each prior, -1 where ignored.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite.
        """
        priors = self.read(pred_instances, "pred_instances", "priors", columns=4)
        return self.assign_candidates(priors, priors, gt_instances, gt_instances_ignore)

    def assign_candidates(
        self, priors: Tensor, candidates: Tensor, gt_instances: Any, gt_instances_ignore: Any
    ) -> AssignResult:
        """Assign the priors by the overlaps of their candidates, on the CPU where there are too many ground truths.

        Args:
            priors: (N, 4), compared with the ignore regions.
            candidates: what ``candidate_overlaps`` compares with the ground truths; the priors themselves here.
            gt_instances: as in ``assign``.
            gt_instances_ignore: as in ``assign``.
        """
        gts, labels = self.read_ground_truths(gt_instances)
        regions = None
        if gt_instances_ignore is not None:
            regions = self.read(gt_instances_ignore, "gt_instances_ignore", "bboxes", columns=4)
        device = priors.device
        if 0 < self.gpu_assign_thr < len(gts):
            priors, candidates, gts, labels = priors.cpu(), candidates.cpu(), gts.cpu(), labels.cpu()
            regions = None if regions is None else regions.cpu()

        if self.perm_repeat_gt_cfg is not None and len(priors):
            gts = spread_repeated_boxes(gts, self.iou_calculator, **self.perm_repeat_gt_cfg)
        ignored = self.ignored_priors(priors, regions, self.ignore_wrt_candidates)
        result = self._assign_by_iou(self.candidate_overlaps(candidates, gts), labels, ignored)
        if result.gt_inds.device != device:
            for name in ("gt_inds", "max_overlaps", "labels"):
                setattr(result, name, getattr(result, name).to(device))
        return result

    def candidate_overlaps(self, candidates: Tensor, gts: Tensor) -> Tensor:
        """Overlaps (N, M) of the candidates; in the order of arguments in which mmdet calls its calculators."""
        return self.overlaps(gts, candidates).T

    @torch.no_grad()
    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Assign by given overlaps, for callers that have their own.

        Args:
            overlaps: (M, N), ground truths first as in mmdet; -1 marks ignored priors.
            gt_labels: (M,).
        """
        return self._assign_by_iou(overlaps.T, gt_labels, None)

    def _assign_by_iou(self, iou: Tensor, labels: Tensor, ignored: Tensor | None) -> AssignResult:
        assignment = match_by_iou(
            iou,
            self.pos_iou_thr,
            self.neg_iou_thr,
            self.min_pos_iou,
            self.gt_max_assign_all,
            self.match_low_quality,
            ignored,
        )
        return to_assign_result(assignment, labels)
