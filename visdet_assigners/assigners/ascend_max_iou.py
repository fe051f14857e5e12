"""AscendMaxIoU: MaxIoU for a whole batch at once, in tensors whose shapes don't depend on the data.

The rule is that of ``max_iou``; the batched form comes from mmdet 2, where it served accelerators that compile static
shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from visdet_assigners.assigners.max_iou import MaxIoUAssigner, Threshold, threshold_band
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, to_assign_result
from visdet_assigners.functional.resolve import best_priors
from visdet_assigners.functional.tensors import as_float32
from visdet_assigners.registry import register


@dataclass
class AscendAssignResult:
    """Assignments of a batch of B images, laid out as mmdet 2's Ascend heads read them.

    Attributes:
        batch_num_gts: number of real ground truths of each image, as the caller gave it.
        batch_pos_mask: (B, N) int32, 1 for positives.
        batch_neg_mask: (B, N) int32, 1 for negatives; priors with neither are ignored.
        batch_max_overlaps: (B, N), best IoU of each prior, -1 where it is not valid.
        batch_anchor_gt_indes: (B, N) int64 from 0, the matched ground truth, and for other priors the one that they
            overlap most: never negative, since heads gather with it.
        batch_anchor_gt_labels: (B, N), its class, or None.
    """

    batch_num_gts: Any
    batch_pos_mask: Tensor
    batch_neg_mask: Tensor
    batch_max_overlaps: Tensor
    batch_anchor_gt_indes: Tensor | None = None
    batch_anchor_gt_labels: Tensor | None = None
    _extra_properties: dict[str, Any] = field(default_factory=dict)


def max_iou_padded(
    iou: Tensor,
    pos_iou_thr: float,
    neg_iou_thr: Threshold,
    min_pos_iou: float = 0.0,
    gt_max_assign_all: bool = True,
    match_low_quality: bool = True,
    ignored: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MaxIoU over a batch of padded images; the rule and the other arguments are those of ``match_by_iou``.

    Args:
        iou: (B, N, M); padding ground truths overlap nothing; M at least 1, N at least 1.
        pos_iou_thr: see there.
        neg_iou_thr: see there.
        min_pos_iou: see there.
        gt_max_assign_all: see there.
        match_low_quality: see there.
        ignored: (B, N) bool, priors to leave out, padding among them.

    Returns:
        (B, N) each: positive and negative, bool; best IoU, -1 where ignored; and the ground truth, never negative.
    """
    if ignored is not None:
        iou = iou.masked_fill(ignored[..., None], -1)
    quality, gt_index = iou.max(dim=-1)  # (B, N)
    low, high = threshold_band(neg_iou_thr)
    positive = quality >= pos_iou_thr
    if match_low_quality:
        best_iou = iou.amax(dim=-2)  # (B, M)
        taken_by = best_priors(iou, (best_iou >= min_pos_iou) & (best_iou > 0), gt_max_assign_all)
        positive = positive | (taken_by >= 0)
        gt_index = torch.where(taken_by >= 0, taken_by, gt_index)
    negative = (quality >= low) & (quality < high) & ~positive
    return positive, negative, quality, gt_index


@register
class AscendMaxIoUAssigner(MaxIoUAssigner):
    """Assign a batch of images by IoU thresholds in static shapes.

    Takes three kinds of input: padded tensors as in mmdet 2, giving an ``AscendAssignResult``; lists of instances, one
    for each image, padded inside, giving a list of ``AssignResult``; instances of one image, as ``MaxIoUAssigner``
    does.

    The constructor is that of ``MaxIoUAssigner``; ``gpu_assign_thr`` and ``perm_repeat_gt_cfg`` are for single images
    alone, and ``iou_calculator`` must take batches, (B, A, 4) boxes, for the other two kinds of input.

    Differs from mmdet 2: ignore regions work (mmdet 2's branch fails on shapes), ``neg_iou_thr`` may be an int or a
    list, and the mask of valid priors may be left out.

    Example:
        >>> priors = torch.tensor([[[0., 0., 8., 8.], [8., 8., 16., 16.]]])
        >>> gts = torch.tensor([[[0., 0., 8., 7.], [0., 0., 0., 0.]]])  # the second is padding
        >>> result = AscendMaxIoUAssigner(0.5, 0.4).assign(priors, gts)
        >>> result.batch_pos_mask.tolist(), result.batch_neg_mask.tolist()
        ([[1, 0]], [[0, 1]])
    """

    def assign(  # type: ignore[override]
        self,
        pred_instances: Any = None,
        gt_instances: Any = None,
        gt_instances_ignore: Any = None,
        batch_gt_labels: Tensor | None = None,
        batch_bboxes_ignore_mask: Tensor | None = None,
        batch_num_gts: Sequence[int] | Tensor | None = None,
        *,
        batch_bboxes: Tensor | None = None,
        batch_gt_bboxes: Tensor | None = None,
        batch_gt_bboxes_ignore: Tensor | None = None,
        num_level_priors: Sequence[int] | None = None,
        img_meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """Assign one image, a list of images, or a padded batch.

        Args:
            pred_instances: with ``priors`` (N, 4); or a list of such; or a tensor (B, N, 4), as ``batch_bboxes``.
            gt_instances: with ``bboxes`` (M, 4) and ``labels`` (M,); or a list; or a tensor (B, M, 4), as
                ``batch_gt_bboxes``, padded with boxes that overlap no prior.
            gt_instances_ignore: with ``bboxes`` (R, 4); or a list of such or of None; or a tensor (B, R, 4), as
                ``batch_gt_bboxes_ignore``, padded with boxes of no area; or None.
            batch_gt_labels: (B, M), for tensors alone.
            batch_bboxes_ignore_mask: (B, N), 1 for valid priors, in spite of its name; all are if None; for tensors
                alone.
            batch_num_gts: handed on to the result.
            batch_bboxes: mmdet 2's name of the first argument.
            batch_gt_bboxes: of the second.
            batch_gt_bboxes_ignore: of the third.
            num_level_priors: accepted so that assigners can be exchanged; not used.
            img_meta: accepted for the same reason; not used.

        Returns:
            AssignResult, a list of them, or AscendAssignResult, as the input.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite.
        """
        pred_instances = batch_bboxes if pred_instances is None else pred_instances
        gt_instances = batch_gt_bboxes if gt_instances is None else gt_instances
        gt_instances_ignore = batch_gt_bboxes_ignore if gt_instances_ignore is None else gt_instances_ignore
        if isinstance(pred_instances, (list, tuple)):
            return self.assign_images(pred_instances, gt_instances, gt_instances_ignore)
        if isinstance(pred_instances, Tensor):
            valid = batch_bboxes_ignore_mask
            return self.assign_padded(
                pred_instances,
                gt_instances,
                gt_instances_ignore,
                batch_gt_labels,
                None if valid is None else valid.bool(),
                batch_num_gts,
            )
        return super().assign(pred_instances, gt_instances, gt_instances_ignore)

    @torch.no_grad()
    def assign_padded(
        self,
        priors: Tensor,
        gts: Tensor,
        regions: Tensor | None = None,
        labels: Tensor | None = None,
        valid: Tensor | None = None,
        num_gts: Any = None,
    ) -> AscendAssignResult:
        """Assign a padded batch; the arguments are those of ``assign`` for tensors, ``valid`` (B, N) being bool."""
        if self.perm_repeat_gt_cfg is not None:
            self.fail("perm_repeat_gt_cfg is for single images; leave it out, or assign the images one by one")
        for name, boxes in (("batch_bboxes", priors), ("batch_gt_bboxes", gts)):
            if not isinstance(boxes, Tensor) or boxes.ndim != 3 or boxes.shape[2] != 4 or 0 in boxes.shape:
                shape = tuple(boxes.shape) if isinstance(boxes, Tensor) else type(boxes).__name__
                self.fail(f"{name} must have shape (images, boxes, 4) without empty dimensions, got {shape}")
            self.check_finite(boxes, name)
        priors, gts = as_float32(priors), as_float32(gts)
        ignored = None if valid is None else ~valid
        if self.ignore_iof_thr > 0 and regions is not None and regions.numel():
            if self.ignore_wrt_candidates:
                covered = self.overlaps(priors, as_float32(regions), mode="iof").amax(dim=2)
            else:
                covered = self.overlaps(as_float32(regions), priors, mode="iof").amax(dim=1)
            in_region = covered > self.ignore_iof_thr
            ignored = in_region if ignored is None else ignored | in_region
        positive, negative, quality, gt_index = max_iou_padded(
            self.overlaps(gts, priors).mT,
            self.pos_iou_thr,
            self.neg_iou_thr,
            self.min_pos_iou,
            self.gt_max_assign_all,
            self.match_low_quality,
            ignored,
        )
        return AscendAssignResult(
            num_gts,
            positive.int(),
            negative.int(),
            quality,
            gt_index,
            None if labels is None else labels.gather(1, gt_index),
        )

    @torch.no_grad()
    def assign_images(
        self, pred_list: Sequence[Any], gt_list: Sequence[Any], ignore_list: Sequence[Any] | None = None
    ) -> list[AssignResult]:
        """Assign a list of images at once, equal to assigning them one by one.

        Args:
            pred_list: B instances with ``priors`` (N_i, 4).
            gt_list: B instances with ``bboxes`` (M_i, 4) and ``labels`` (M_i,).
            ignore_list: B instances with ``bboxes`` or None; or None.
        """
        ignore_list = [None] * len(pred_list) if ignore_list is None else ignore_list
        if not len(pred_list) == len(gt_list) == len(ignore_list):
            self.fail(
                f"{len(pred_list)} images of priors, {len(gt_list)} of ground truths, {len(ignore_list)} of regions"
            )
        if not pred_list:
            return []
        priors = [self.read(pred, "pred_instances", "priors", columns=4)[:, :4] for pred in pred_list]
        truths = [self.read_ground_truths(gt) for gt in gt_list]
        regions = [
            priors[0].new_zeros(0, 4)
            if ignore is None
            else self.read(ignore, "gt_instances_ignore", "bboxes", columns=4)[:, :4]
            for ignore in ignore_list
        ]
        # One box of no area behind the last, so that there is always something to compare with.
        blank = priors[0].new_zeros(1, 4)
        padded_priors = pad_sequence([torch.cat([boxes, blank]) for boxes in priors], batch_first=True)
        counts = torch.tensor([len(boxes) for boxes in priors], device=blank.device)
        valid = torch.arange(padded_priors.shape[1], device=blank.device) < counts[:, None]
        result = self.assign_padded(
            padded_priors,
            pad_sequence([torch.cat([boxes[:, :4], blank]) for boxes, _ in truths], batch_first=True),
            pad_sequence([torch.cat([boxes, blank]) for boxes in regions], batch_first=True),
            valid=valid,
        )
        results = []
        for image, (boxes, (_, labels)) in enumerate(zip(priors, truths)):
            count = len(boxes)
            negative, positive = result.batch_neg_mask[image, :count] > 0, result.batch_pos_mask[image, :count] > 0
            quality = result.batch_max_overlaps[image, :count]
            if len(labels) == 0:  # background, whatever the thresholds, but for ignore regions
                negative = quality >= 0
            assert result.batch_anchor_gt_indes is not None
            matched = result.batch_anchor_gt_indes[image, :count]
            gt_index = torch.where(positive, matched, torch.where(negative, NEGATIVE, IGNORED))
            results.append(to_assign_result(Assignment(gt_index, quality), labels))
        return results
