"""MultiInstance: a proposal may stand for several objects of a crowd.

Chu et al., CrowdDet, CVPR 2020, arXiv:2003.09163, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.base import Common
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import DenseAssigner
from visdet_assigners.assigners.max_iou import THRESHOLDS, Threshold, band_of
from visdet_assigners.assignment import AssignResult
from visdet_assigners.functional.blocks import split
from visdet_assigners.functional.select import ties_by_index
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import whole_number
from visdet_assigners.registry import register

IGNORE_LABEL = -1


@checked({**THRESHOLDS, "num_instance": whole_number}, iou="numbers", iof="numbers")
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
    low, high = band_of(neg_iou_thr)
    flag = torch.where((overlap >= pos_iou_thr) & (own != IGNORE_LABEL), 1, own)
    flag = torch.where((overlap < high) & (overlap >= low), 0, flag)
    missing = (0, num_instance - index.shape[1])
    return F.pad(index, missing), F.pad(overlap, missing), F.pad(flag, missing)


@register
class MultiInstanceAssigner(DenseAssigner):
    """Assign each proposal several ground truths: CrowdDet.

    Reads ``priors`` (N, 4) xyxy; the boxes themselves are appended to them.  Ignore regions may have ``labels`` (R,),
    -1 for boxes to ignore, as the CrowdHuman data set has them; all are to be ignored where there are none.

    Result, laid out as CrowdDet's sampler and head read it, not as other assigners' results: (N + M + R, num_instance)
    tensors, ``gt_inds`` counted from 0 into ground truths and ignore boxes, ``labels`` 1 for foreground, 0 for
    background, -1 for ignored, and ``max_overlaps``; ``num_gts`` = M + R.

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
        **common: see ``BaseAssigner``.

    Differs from mmdet: fewer boxes than ``num_instance`` leave the missing instances background at overlap 0, where
    mmdet fails or mixes up the proposals.
    """

    knobs: ClassVar[str] = "lower pos_iou_thr, or raise num_instance where objects overlap"
    heads: ClassVar[str] = "MultiInstanceRoIHead, of CrowdDet"
    needs_geometry: ClassVar[bool] = False
    handles_regions: ClassVar[bool] = True

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
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        if self.min_positives:
            self.fail("min_positives has no meaning: each proposal has several objects; lower pos_iou_thr")
        self.num_instance = self.count_of("num_instance", num_instance)
        self.build_calculator(iou_calculator)
        self.set_thresholds(pos_iou_thr, neg_iou_thr, min_pos_iou)
        self.gpu_assign_thr = self.number_of("gpu_assign_thr", gpu_assign_thr, finite=False)

    def read(self, pred_instances: Any, gt_instances: Any, gt_instances_ignore: Any, *args: Any, **_: Any) -> Inputs:
        """As for every dense assigner, with the labels of the ignore regions."""
        image = super().read(pred_instances, gt_instances, gt_instances_ignore, *args)
        if image.regions is not None:
            kinds = image.labels.new_full((len(image.regions),), IGNORE_LABEL)
            if hasattr(gt_instances_ignore, "labels"):
                kinds = image.tensor(gt_instances_ignore.labels, "gt_instances_ignore.labels").long()
            image.options = {"kinds": kinds}
        return image

    def pads(self) -> bool:
        """Whether ground truths may be padded: not here, where the result has a row for each of them."""
        return False

    def decide_images(self, images: Sequence[Inputs]) -> list[AssignResult]:
        """Assign images one by one."""
        return [self.decide_proposals(image) for image in images]

    def decide_proposals(self, image: Inputs) -> AssignResult:
        """Assign the proposals of one image."""
        priors, boxes, labels = image.fields["priors"], image.gts, image.labels + 1
        device = priors.device
        if image.regions is not None:
            boxes, labels = torch.cat([boxes, image.regions]), torch.cat([labels, image.options["kinds"]])
        if 0 < self.gpu_assign_thr < len(image.labels):
            priors, boxes, labels = priors.cpu(), boxes.cpu(), labels.cpu()
        everything = torch.cat([priors, boxes])
        # Two sorts with their indices make some 80 bytes of a pair.
        least = 1024 if self.blockwise else len(everything)
        blocks = split(len(everything), 80 * max(1, len(boxes)), boxes.device, least) or [slice(0, 0)]
        found = [
            multi_instance.__wrapped__(  # type: ignore[attr-defined]
                self.measure.overlaps(boxes, everything[rows]).mT.contiguous(),
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
