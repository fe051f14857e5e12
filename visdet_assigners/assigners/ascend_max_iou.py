"""AscendMaxIoU: MaxIoU for a whole batch at once, in tensors whose shapes don't depend on the data.

The rule is that of ``max_iou``; the batched form comes from mmdet 2, where it served accelerators that compile static
shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from visdet_assigners.assigners.calling import assigner_method
from visdet_assigners.assigners.forms import Names, in_any_form
from visdet_assigners.assigners.max_iou import MaxIoUAssigner
from visdet_assigners.assignment import IGNORED, NEGATIVE
from visdet_assigners.functional.tensors import as_float32
from visdet_assigners.functional.validity import NOWHERE, Kind, drop_rows, good_boxes, good_rows
from visdet_assigners.inputs import Inputs
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
    for each image, giving a list of ``AssignResult``; instances of one image, as ``MaxIoUAssigner`` does.

    The constructor is that of ``MaxIoUAssigner``; ``gpu_assign_thr`` and ``perm_repeat_gt_cfg`` are for single images
    alone, and ``iou_calculator`` must take batches, (B, A, 4) boxes, for padded tensors.

    Differs from mmdet 2: ignore regions work (mmdet 2's branch fails on shapes), ``neg_iou_thr`` may be an int or a
    list, the mask of valid priors may be left out, and a batch may have no objects.

    Example:
        >>> priors = torch.tensor([[[0., 0., 8., 8.], [8., 8., 16., 16.]]])
        >>> gts = torch.tensor([[[0., 0., 8., 7.], [0., 0., 0., 0.]]])  # the second is padding
        >>> result = AscendMaxIoUAssigner(0.5, 0.4).assign(priors, gts)
        >>> result.batch_pos_mask.tolist(), result.batch_neg_mask.tolist()
        ([[1, 0]], [[0, 1]])
    """

    mmdet2: ClassVar[Names] = (
        "batch_bboxes", "batch_gt_bboxes", "batch_gt_bboxes_ignore", "batch_gt_labels", "batch_bboxes_ignore_mask",
        "batch_num_gts",
    )  # fmt: skip

    @in_any_form
    def assign(  # type: ignore[override]
        self,
        pred_instances: Any = None,
        gt_instances: Any = None,
        gt_instances_ignore: Any = None,
        batch_gt_labels: Tensor | None = None,
        batch_bboxes_ignore_mask: Tensor | None = None,
        batch_num_gts: Sequence[int] | Tensor | None = None,
        *,
        num_level_priors: Sequence[int] | None = None,
        img_meta: Any = None,
    ) -> Any:
        """Assign one image, a list of images, or a padded batch.

        Args:
            pred_instances: with ``priors`` (N, 4); or a list of such; or a tensor (B, N, 4), which mmdet 2 calls
                ``batch_bboxes``.
            gt_instances: with ``bboxes`` (M, 4) and ``labels`` (M,); or a list; or a tensor (B, M, 4), there
                ``batch_gt_bboxes``, padded with boxes of no area; M may be 0.
            gt_instances_ignore: with ``bboxes`` (R, 4); or a list of such or of None; or a tensor (B, R, 4), there
                ``batch_gt_bboxes_ignore``, padded with boxes of no area; or None.
            batch_gt_labels: (B, M), for tensors alone; those of padding are not looked at.
            batch_bboxes_ignore_mask: (B, N), 1 for valid priors, in spite of its name; all are if None; for tensors
                alone.
            batch_num_gts: handed on to the result.
            num_level_priors: not used.
            img_meta: of the image, or of each in a list, named in errors.

        Returns:
            AssignResult, a list of them, or AscendAssignResult, as the input.

        Raises:
            AssignerInputError: a field is missing or has the wrong shape, or, where values are checked, one is wrong.
        """
        if isinstance(pred_instances, (list, tuple)):
            return self.assign_batch(pred_instances, gt_instances, gt_instances_ignore, img_meta)
        if isinstance(pred_instances, Tensor):
            return self.assign_padded(
                pred_instances,
                gt_instances,
                gt_instances_ignore,
                batch_gt_labels,
                batch_bboxes_ignore_mask,
                batch_num_gts,
            )
        return super().assign(pred_instances, gt_instances, gt_instances_ignore, img_meta=img_meta)

    @assigner_method
    def assign_padded(
        self,
        priors: Tensor,
        gts: Tensor,
        regions: Tensor | None = None,
        labels: Tensor | None = None,
        valid: Tensor | None = None,
        num_gts: Any = None,
    ) -> AscendAssignResult:
        """Assign a padded batch; the arguments are those of ``assign`` for tensors."""
        if self.perm_repeat_gt_cfg is not None:
            self.fail("perm_repeat_gt_cfg is for single images; leave it out, or assign the images one by one")
        if self.min_positives:
            self.fail(
                "min_positives is for instances, not for padded tensors; leave it out, or give lists of instances"
            )
        inputs = self.inputs()
        if valid is not None:
            valid = inputs.field(valid, "batch_bboxes_ignore_mask", "flags")
        priors = self.read_padded(inputs, priors, "batch_bboxes", -NOWHERE, valid=valid)
        gts = self.read_padded(inputs, gts, "batch_gt_bboxes", NOWHERE)
        images, names = {"batch_bboxes": len(priors), "batch_gt_bboxes": len(gts)}, "batch_gt_bboxes_ignore"
        if regions is not None:
            regions = self.read_padded(inputs, regions, names, NOWHERE, "predicted")
            images[names] = len(regions)
        if labels is not None:
            labels = self.read_padded_labels(inputs, labels, gts)
        if len(set(images.values())) > 1:
            self.fail(f"the arguments have different numbers of images: {images}")
        inputs.settle()

        if gts.shape[1] == 0 or priors.shape[1] == 0:
            in_region = self.ignored_priors(priors, regions, self.ignore_wrt_candidates)
            decided = torch.full(priors.shape[:2], NEGATIVE, device=priors.device)
            for marks in (in_region, None if valid is None else ~valid):
                decided = decided if marks is None else decided.masked_fill(marks, IGNORED)
            quality = torch.where(decided == IGNORED, -1.0, 0.0)
        else:
            decided, quality = self.match_padded(priors, priors[..., None, :], gts, regions, valid)
        gt_index = decided.clamp(min=0)
        own_labels = None
        if labels is not None:
            own_labels = labels.gather(1, gt_index) if labels.shape[1] else torch.zeros_like(gt_index)
        return AscendAssignResult(
            num_gts, (decided >= 0).int(), (decided == NEGATIVE).int(), quality, gt_index, own_labels
        )

    def read_padded(
        self,
        inputs: Inputs,
        boxes: Any,
        name: str,
        to: float,
        kind: Kind = "boxes",
        valid: Tensor | None = None,
    ) -> Tensor:
        """Padded boxes (B, N, 4) in float32; bad ones are dropped, or named if that is the policy.

        Args:
            inputs: of this call.
            boxes: as they were given.
            name: of the argument.
            to: where dropped boxes go.
            kind: of boxes.
            valid: (B, N) bool, those that are looked at; all if None.
        """
        boxes = as_float32(inputs.tensor(boxes, name))
        if boxes.ndim != 3 or boxes.shape[2] != 4:
            inputs.fail(f"{name} must have shape (images, boxes, 4), got {tuple(boxes.shape)}")
        if valid is not None:
            if valid.shape != boxes.shape[:2]:
                text = f"must have shape {tuple(boxes.shape[:2])}, one for each prior, got {tuple(valid.shape)}"
                inputs.fail(f"batch_bboxes_ignore_mask {text}")
            boxes = boxes.where(valid[..., None], 0.0)
        if not boxes.numel():
            return boxes
        if not inputs.replaces:
            inputs.check(boxes, name, kind)
            return boxes
        rows = boxes.flatten(0, 1)
        good = good_boxes(rows) if to > 0 and kind == "boxes" else good_rows([rows], [kind])
        return drop_rows(rows, kind, good, to).view_as(boxes) if inputs.drops(name, good) else boxes

    def read_padded_labels(self, inputs: Inputs, labels: Any, gts: Tensor) -> Tensor:
        """Labels (B, M) int64; those of boxes without area, the padding, are not looked at."""
        labels = inputs.tensor(labels, "batch_gt_labels")
        if labels.shape != gts.shape[:2]:
            text = f"must have shape {tuple(gts.shape[:2])}, one for each box, got {tuple(labels.shape)}"
            inputs.fail(f"batch_gt_labels {text}")
        real = ((gts[..., 2:] - gts[..., :2]) > 0).all(dim=-1)
        looked_at = labels.where(real, 0)
        inputs.check_labels(looked_at, "batch_gt_labels", None)
        return looked_at.long()
