"""MultiInstance: a proposal may stand for several objects of a crowd.

Chu et al., CrowdDet, CVPR 2020, arXiv:2003.09163, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.assigners.max_iou import MaxIoUAssigner, Threshold, threshold_band
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import AssignResult
from visdet_assigners.functional.blocks import split
from visdet_assigners.functional.inputs import Policy
from visdet_assigners.functional.ties import ties_by_index
from visdet_assigners.registry import register

IGNORE_LABEL = -1


def multi_instance(
    iou: Tensor, iof: Tensor, labels: Tensor, pos_iou_thr: float, neg_iou_thr: Threshold, num_instance: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Give each prior the boxes it overlaps most, one for each of its instances.

    The first ``num_instance`` boxes by IoU are taken; an instance whose IoU is below ``pos_iou_thr`` takes an ignore
    box instead if its IoF with that is larger.

    Args:
        iou: (N, B) with all boxes, ground truths and ignore boxes.
        iof: (N, B), intersection over the prior.
        labels: (B,) class + 1 of ground truths, -1 of ignore boxes.
        pos_iou_thr: least overlap of the foreground.
        neg_iou_thr: overlap below which an instance is background, or (low, high).
        num_instance: boxes per prior; where there are fewer boxes, the others are background at overlap 0.

    Returns:
        (N, num_instance) each: index of the box from 0; the overlap; and 1 for foreground, 0 for background, -1 for
        ignored (between the thresholds class + 1, as in mmdet).
    """
    is_ignore_box = labels == IGNORE_LABEL
    by_iou = (iou * ~is_ignore_box).sort(descending=True, dim=1, stable=ties_by_index())
    by_iof = (iof * is_ignore_box).sort(descending=True, dim=1, stable=ties_by_index())
    overlap, index = by_iou.values[:, :num_instance], by_iou.indices[:, :num_instance]
    ignore_overlap, ignore_index = by_iof.values[:, :num_instance], by_iof.indices[:, :num_instance]
    to_ignore = (overlap < pos_iou_thr) & (ignore_overlap > overlap)
    overlap = torch.where(to_ignore, ignore_overlap, overlap)
    index = torch.where(to_ignore, ignore_index, index)

    own = labels[index] if len(labels) else labels.new_zeros(index.shape)
    low, high = threshold_band(neg_iou_thr)
    flag = torch.where((overlap >= pos_iou_thr) & (own != IGNORE_LABEL), 1, own)
    flag = torch.where((overlap < high) & (overlap >= low), 0, flag)
    missing = (0, num_instance - index.shape[1])
    return F.pad(index, missing), F.pad(overlap, missing), F.pad(flag, missing)


@register
class MultiInstanceAssigner(MaxIoUAssigner):
    """Assign each proposal several ground truths: CrowdDet.

    Args:
        num_instance: ground truths per proposal.
        pos_iou_thr: least overlap of the foreground.
        neg_iou_thr: overlap below which an instance is background, or a pair (low, high), also as a list.
        min_pos_iou: accepted without effect, as in mmdet, and so are ``gt_max_assign_all``, ``ignore_iof_thr``,
            ``ignore_wrt_candidates``, ``match_low_quality`` and ``perm_repeat_gt_cfg``.
        gt_max_assign_all: see there.
        ignore_iof_thr: see there.
        ignore_wrt_candidates: see there.
        match_low_quality: see there.
        gpu_assign_thr: with more ground truths than this, work on the CPU; off when not above 0.
        iou_calculator: configuration or object; plain IoU if None.
        perm_repeat_gt_cfg: see there.

    The result is laid out as CrowdDet's sampler and head read it, not as other assigners' results.

    Differs from mmdet: fewer boxes than ``num_instance`` leave the missing instances background at overlap 0, where
    mmdet fails or mixes up the proposals.
    """

    def __init__(
        self,
        num_instance: int = 2,
        *,
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
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        super().__init__(
            pos_iou_thr,
            neg_iou_thr,
            min_pos_iou,
            gt_max_assign_all,
            ignore_iof_thr,
            ignore_wrt_candidates,
            match_low_quality,
            gpu_assign_thr,
            iou_calculator,
            perm_repeat_gt_cfg,
            memory_budget=memory_budget,
            compile=compile,
            deterministic=deterministic,
            on_nonfinite=on_nonfinite,
        )
        if num_instance < 1:
            self.fail(f"num_instance is {num_instance}; at least 1 is needed")
        self.num_instance = num_instance

    assign_batch = BaseAssigner.assign_batch  # the padded one is MaxIoU's rule

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
        """Assign the proposals of one image; the boxes themselves are appended to them.

        Args:
            pred_instances: with ``priors`` (N, 4) xyxy; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: with ``bboxes`` (R, 4) and perhaps ``labels`` (R,), -1 for boxes to ignore, as the
                CrowdHuman data set has them; all are to be ignored where there are none.  Or None.
            num_level_priors: accepted so that assigners can be exchanged; not used.
            img_meta: accepted for the same reason; not used.

        Returns:
            AssignResult of (N + M + R, num_instance) tensors: ``gt_inds`` counted from 0 into ground truths and ignore
            boxes, ``labels`` 1 for foreground, 0 for background, -1 for ignored, ``max_overlaps``; ``num_gts`` = M + R.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite.
        """
        (priors,) = self.read_predictions(pred_instances, priors="boxes")
        boxes, labels = self.read_ground_truths(gt_instances)
        labels = labels + 1
        regions = self.read_regions(gt_instances_ignore)
        if regions is not None:
            kinds = labels.new_full((len(regions),), IGNORE_LABEL)
            if hasattr(gt_instances_ignore, "labels"):
                kinds = self.read(gt_instances_ignore, "gt_instances_ignore", "labels").long()
            boxes, labels = torch.cat([boxes, regions]), torch.cat([labels, kinds])
        device = priors.device
        if 0 < self.gpu_assign_thr < len(gt_instances.labels):
            priors, boxes, labels = priors.cpu(), boxes.cpu(), labels.cpu()
        everything = torch.cat([priors, boxes])
        # Two sorts with their indices make some 80 bytes of a pair.
        blocks = split(len(everything), 80 * max(1, len(boxes)), boxes.device, least=1024) or [slice(0, 0)]
        found = [
            multi_instance(
                self.overlaps(everything[rows], boxes),
                self.overlaps(everything[rows], boxes, mode="iof"),
                labels,
                self.pos_iou_thr,
                self.neg_iou_thr,
                self.num_instance,
            )
            for rows in blocks
        ]
        index, overlap, flag = (torch.cat(parts).to(device) for parts in zip(*found))
        return AssignResult(len(boxes), index, overlap, flag)
