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

from visdet_assigners.assigners.max_iou import MaxIoUAssigner
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import NEGATIVE
from visdet_assigners.functional.inputs import AWAY, good_rows, without_rows
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
        batch_anchor_gt_indes: (B, N) int64 from 0, the matched ground truth, and 0 for other priors: never negative,
            since heads gather with it.
        batch_anchor_gt_labels: (B, N), its class, or None.
    """

    batch_num_gts: Any
    batch_pos_mask: Tensor
    batch_neg_mask: Tensor
    batch_max_overlaps: Tensor
    batch_anchor_gt_indes: Tensor | None = None
    batch_anchor_gt_labels: Tensor | None = None
    _extra_properties: dict[str, Any] = field(default_factory=dict)


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

    @within_memory
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
            return self.assign_images(pred_instances, gt_instances, gt_instances_ignore, img_meta)  # type: ignore[arg-type]
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
        return super().assign(pred_instances, gt_instances, gt_instances_ignore, img_meta=img_meta)

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
        priors = self.read_padded(priors, "batch_bboxes", -AWAY)
        gts = self.read_padded(gts, "batch_gt_bboxes", AWAY)
        regions = None if regions is None else self.read_padded(regions, "batch_gt_bboxes_ignore", AWAY)
        decided, quality = self.match_padded(priors, priors[..., None, :], gts, regions, valid)
        gt_index = decided.clamp(min=0)
        return AscendAssignResult(
            num_gts,
            (decided >= 0).int(),
            (decided == NEGATIVE).int(),
            quality,
            gt_index,
            None if labels is None else labels.gather(1, gt_index),
        )

    def read_padded(self, boxes: Tensor, name: str, away: float) -> Tensor:
        """Padded boxes (B, N, 4) in float32, those that are not finite taken out, or named if that is the policy."""
        boxes = as_float32(boxes)
        handling = self.policy(boxes.device)
        if handling.replaces:
            rows = boxes.flatten(0, 1)
            good = good_rows([rows], ["predicted"])
            return without_rows(rows, "predicted", good, away).view_as(boxes) if self.takes_out(name, good) else boxes
        if handling.looks:
            self.expect_finite(boxes, name, "predicted")
        return boxes
