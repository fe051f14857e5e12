"""MaxIoU: thresholds on the IoU.

Ren et al., Faster R-CNN, NeurIPS 2015, arXiv:1506.01497, section 3.1.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.checking import Option, checked
from visdet_assigners.assigners.dense import Coverage, DenseAssigner
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, all_negative
from visdet_assigners.functional.boxes import INSIDE, border_distance
from visdet_assigners.functional.jitter import spread_repeated_boxes
from visdet_assigners.functional.overlaps import (
    IOU,
    Measure,
    OverlapTable,
    best_ground_truths,
    best_priors,
    overlap_table,
    table_of,
)
from visdet_assigners.functional.tensors import padded
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import number, threshold_band
from visdet_assigners.registry import register

Threshold = float | Sequence[float]
THRESHOLDS: dict[str, Option] = {"pos_iou_thr": number, "neg_iou_thr": threshold_band, "min_pos_iou": number}
"""How the thresholds are checked."""


def band_of(threshold: Threshold) -> tuple[float, float]:
    """A pair as it is, one number as (0, number)."""
    return (threshold[0], threshold[1]) if isinstance(threshold, Sequence) else (0.0, threshold)


class IoUThresholds(NamedTuple):
    """The rule in numbers, see `match_by_iou`."""

    pos_iou_thr: float
    neg_iou_thr: Threshold
    min_pos_iou: float = 0.0
    gt_max_assign_all: bool = True
    match_low_quality: bool = True

    @property
    def negative_band(self) -> tuple[float, float]:
        """From which IoU on, and below which, a prior is negative."""
        return band_of(self.neg_iou_thr)


@checked(THRESHOLDS, priors="boxes", gts="truths", ignored="marks")
def max_iou(
    priors: Tensor,
    gts: Tensor,
    pos_iou_thr: float,
    neg_iou_thr: Threshold,
    min_pos_iou: float = 0.0,
    gt_max_assign_all: bool = True,
    match_low_quality: bool = True,
    ignored: Tensor | None = None,
    measure: Measure = IOU,
) -> Assignment:
    """Match each prior to the ground truth it overlaps most, by fixed thresholds.

    A prior is negative when its best IoU is below ``neg_iou_thr``, positive for its best ground truth when that IoU
    reaches ``pos_iou_thr``, and ignored between the two.  Then, if ``match_low_quality``, every ground truth takes the
    prior that overlaps it most, whatever that prior had; of several ground truths the last wins.

    Args:
        priors: (N, 4) xyxy, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        pos_iou_thr: least IoU of a positive.
        neg_iou_thr: IoU below which a prior is negative, or (low, high): negative from low to below high.
        min_pos_iou: least IoU of a low-quality match.
        gt_max_assign_all: a ground truth takes all the priors that share its best IoU; otherwise the first of them.
        match_low_quality: whether ground truths take their best priors.
        ignored: (N,) bool, priors to leave out of the loss.
        measure: what takes the place of the IoU.

    Returns:
        Assignment with ``quality`` = IoU with the best ground truth (also where a low-quality match gave the prior
        to another), -1 where ignored by ``ignored``.

    Differs from mmdet: a ground truth that overlaps no prior takes none (mmdet gives it every prior of IoU 0 when
    ``min_pos_iou`` is 0); ignore regions hold in images without ground truths.

    Example:
        >>> priors = torch.tensor([[0., 0., 10., 10.], [10., 10., 20., 20.]])
        >>> max_iou(priors, torch.tensor([[0., 0., 10., 9.]]), 0.5, 0.5).gt_index
        tensor([ 0, -1])
    """
    if len(priors) == 0 or len(gts) == 0:
        return nothing_to_match(len(priors), priors, ignored)
    thresholds = IoUThresholds(pos_iou_thr, neg_iou_thr, min_pos_iou, gt_max_assign_all, match_low_quality)
    return Assignment(*match_boxes(priors[:, None], gts, measure, ignored, thresholds))


def nothing_to_match(num_priors: int, like: Tensor, ignored: Tensor | None = None) -> Assignment:
    """The assignment where there are no ground truths or no priors: negative but for (N,) ``ignored``."""
    gt_index, quality = all_negative(num_priors, like), like.new_zeros(num_priors)
    if ignored is not None:
        gt_index, quality = gt_index.masked_fill(ignored, IGNORED), quality.masked_fill(ignored, -1)
    return Assignment(gt_index, quality)


@checked(THRESHOLDS, iou="numbers", ignored="marks")
def match_by_iou(
    iou: Tensor,
    pos_iou_thr: float,
    neg_iou_thr: Threshold,
    min_pos_iou: float = 0.0,
    gt_max_assign_all: bool = True,
    match_low_quality: bool = True,
    ignored: Tensor | None = None,
) -> Assignment:
    """Match by the rule of `max_iou` on given overlaps.

    Args:
        iou: (N, M); either may be 0.
        pos_iou_thr: as in `max_iou`, and so are the others.
        neg_iou_thr: see there.
        min_pos_iou: see there.
        gt_max_assign_all: see there.
        match_low_quality: see there.
        ignored: see there.
    """
    num_priors, num_gts = iou.shape
    if num_gts == 0 or num_priors == 0:
        return nothing_to_match(num_priors, iou, ignored)
    if ignored is not None:
        iou = iou.masked_fill(ignored[:, None], -1)
    thresholds = IoUThresholds(pos_iou_thr, neg_iou_thr, min_pos_iou, gt_max_assign_all, match_low_quality)
    return Assignment(*match_table(table_of(iou.T), thresholds))


def match_table(table: OverlapTable, thresholds: IoUThresholds) -> tuple[Tensor, Tensor]:
    """Match by thresholds, the overlaps being computed in blocks, twice where low-quality matches count.

    Args:
        table: of M ground truths and N priors, neither 0.
        thresholds: the rule.

    Returns:
        ``gt_index`` (..., N) and ``quality`` (..., N) of the `Assignment`; the first dimensions are images.
    """
    quality, best_gt, block_best = best_ground_truths(table, least=thresholds.pos_iou_thr)
    low, high = thresholds.negative_band
    negative = (quality >= low) & (quality < high)
    gt_index = torch.full_like(best_gt, IGNORED).masked_fill_(negative, NEGATIVE)
    gt_index = torch.where(quality >= thresholds.pos_iou_thr, best_gt, gt_index)
    if thresholds.match_low_quality:
        best = block_best.amax(dim=-2)  # (..., M)
        allowed = (best >= thresholds.min_pos_iou) & (best > 0)
        taken_by = best_priors(table, block_best, allowed, thresholds.gt_max_assign_all)
        gt_index = torch.where(taken_by >= 0, taken_by, gt_index)
    return gt_index, quality


def match_boxes(
    candidates: Tensor, gts: Tensor, measure: Measure, ignored: Tensor | None, thresholds: IoUThresholds
) -> tuple[Tensor, Tensor]:
    """Match as `match_table` does; the other arguments are those of `overlap_table`."""
    return match_table(overlap_table(candidates, gts, measure, ignored), thresholds)


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


@register
class MaxIoUAssigner(DenseAssigner):
    """Assign priors to ground truths by fixed IoU thresholds: RPN, R-CNN, RetinaNet, SSD.

    Reads ``priors`` (N, 4) xyxy, or boxes of any other form that ``iou_calculator`` knows, as rotated ones.  Result:
    ``max_overlaps`` (N,) is the best IoU of each prior, -1 where an ignore region covers it.

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
            ``functional.jitter.spread_repeated_boxes``; None leaves them.
        ignore_outside_gt: ignore positives whose centre lies outside their ground truth, see ``ignore_outside``; for
            heads with centerness, which have no target there.
        **common: see ``DenseAssigner``.

    Differs from mmdet: thresholds may be ints, numpy numbers or lists; see ``max_iou`` for the rest.

    Example:
        >>> from types import SimpleNamespace as Instances
        >>> assigner = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4)
        >>> pred = Instances(priors=torch.tensor([[0., 0., 10., 10.], [10., 10., 20., 20.]]))
        >>> gt = Instances(bboxes=torch.tensor([[0., 0., 10., 9.]]), labels=torch.tensor([7]))
        >>> result = assigner.assign(pred, gt)
        >>> result.gt_inds, result.labels
        (tensor([1, 0]), tensor([ 7, -1]))
    """

    knobs: ClassVar[str] = (
        "lower pos_iou_thr and neg_iou_thr, keep match_low_quality=True with a low min_pos_iou, or give "
        "the anchor generator scales nearer to these objects"
    )
    handles_regions: ClassVar[bool] = True
    priors_first: ClassVar[bool] = False

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
        **common: Unpack[Coverage],
    ) -> None:
        super().__init__(ignore_iof_thr=ignore_iof_thr, **common)
        self.build_calculator(iou_calculator)
        self.set_thresholds(pos_iou_thr, neg_iou_thr, min_pos_iou)
        self.gt_max_assign_all = gt_max_assign_all
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.match_low_quality = match_low_quality
        self.gpu_assign_thr = self.number_of("gpu_assign_thr", gpu_assign_thr, finite=False)
        self.perm_repeat_gt_cfg = perm_repeat_gt_cfg
        self.ignore_outside_gt = ignore_outside_gt

    @property
    def needs_geometry(self) -> bool:  # type: ignore[override]
        """Only to see whether centres lie inside."""
        return self.ignore_outside_gt

    @property
    def covers_inside(self) -> bool:  # type: ignore[override]
        """Where positives are to lie inside."""
        return self.ignore_outside_gt

    def free_priors(self, assignment: Assignment, image: Inputs) -> Tensor:
        """As for every dense assigner, by the share that counts here."""
        ignored = self.ignored_priors(self.squares(image), image.regions, self.ignore_wrt_candidates)
        free = assignment.gt_index < 0
        return free if ignored is None else free & ~ignored

    @property
    def thresholds(self) -> IoUThresholds:
        """The rule, as the attributes are now."""
        low_quality = (self.gt_max_assign_all, self.match_low_quality)
        return IoUThresholds(self.pos_iou_thr, self.neg_iou_thr, self.min_pos_iou, *low_quality)

    def can_batch(self) -> bool:
        """Whether images can be decided together: unless boxes are drawn, or moved to the CPU, for each.

        The calculator must take boxes with leading dimensions.
        """
        return self.perm_repeat_gt_cfg is None and self.gpu_assign_thr <= 0 and bool(self.promise("takes_pairs"))

    def pads(self) -> bool:
        """Whether ground truths may be padded: unless boxes are drawn, or counted, for each image."""
        return super().pads() and self.can_batch()

    def decide_images(self, images: Sequence[Inputs]) -> list[AssignResult]:
        """Assign images at once, padded to as many ground truths and regions; one image as it is."""
        if len(images) == 1:
            return super().decide_images(images)
        priors = torch.stack([self.squares(image) for image in images])
        candidates = torch.stack([self.candidates(image) for image in images])
        regions = self.padded_regions(images)
        gts = padded([image.gts for image in images])[0]
        decided = self.match_padded(priors, candidates, gts, regions)
        return [self.result(Assignment(*own), image) for image, *own in zip(images, *decided)]

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        priors, candidates, gts, regions = self.squares(image), self.candidates(image), image.gts, image.regions
        device = priors.device
        if 0 < self.gpu_assign_thr < len(gts):
            priors, candidates, gts = priors.cpu(), candidates.cpu(), gts.cpu()
            regions = None if regions is None else regions.cpu()
        if self.perm_repeat_gt_cfg is not None and len(priors):
            gts = spread_repeated_boxes(gts, self.iou_calculator, **self.perm_repeat_gt_cfg)
        forms = (image.forms["regions"], image.forms["priors"])
        ignored = self.ignored_priors(priors, regions, self.ignore_wrt_candidates, forms)
        if len(gts) == 0 or len(priors) == 0:
            found = nothing_to_match(len(priors), priors, ignored)
        else:
            measure = self.measure_in(image, list(self.reads)[-1])
            found = Assignment(*self.match_candidates(priors, candidates, gts, ignored, measure))
        if found.gt_index.device == device:
            return found
        return Assignment(found.gt_index.to(device), found.quality.to(device))  # type: ignore[union-attr]

    def squares(self, image: Inputs) -> Tensor:
        """Boxes (N, 4) to compare with ignore regions."""
        return image.fields["priors"]

    def candidates(self, image: Inputs) -> Tensor:
        """Boxes (N, A, 4) to compare with ground truths, here the same."""
        return image.fields["priors"][:, None]

    def match_padded(
        self, priors: Tensor, candidates: Tensor, gts: Tensor, regions: Tensor | None, valid: Tensor | None = None
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
        self, priors: Tensor, candidates: Tensor, gts: Tensor, ignored: Tensor | None, measure: Measure | None = None
    ) -> tuple[Tensor, Tensor]:
        """Match with the assigner's calculator and thresholds; see ``match_boxes``."""
        gt_index, quality = self.run(match_boxes, candidates, gts, measure or self.measure, ignored, self.thresholds)
        return ignore_outside(gt_index, priors, gts) if self.ignore_outside_gt else gt_index, quality

    @torch.no_grad()
    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Assign by given overlaps, for callers that have their own.

        Args:
            overlaps: (M, N), ground truths first as in mmdet; -1 marks ignored priors.
            gt_labels: (M,).
        """
        image = self.inputs()
        image.labels = image.read_labels(gt_labels, "gt_labels")
        (overlaps,) = image.rows({"overlaps": (overlaps, "numbers")})
        image.settle()
        if len(overlaps) != len(image.labels):
            self.fail(f"overlaps are of {len(overlaps)} ground truths and gt_labels of {len(image.labels)}")
        return self.in_form(self.run(match_by_iou, overlaps.T, *self.thresholds), image)
