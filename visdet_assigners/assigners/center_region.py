"""CenterRegion: the core of an object is positive, the smallest object first, and what lies in a shadow is marked.

Zhu et al., FSAF, CVPR 2019, arXiv:1903.00621, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner, OverlapMixin
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.boxes import border_distance, box_area
from visdet_assigners.registry import register


def scale_boxes(boxes: Tensor, scale: float) -> Tensor:
    """Scale boxes about their centres: (M, 4) xyxy -> (M, 4)."""
    center, half = (boxes[:, 2:] + boxes[:, :2]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    return torch.cat([center - half, center + half], dim=1)


def smallest_claim(claims: Tensor, gts: Tensor) -> Tensor:
    """The smallest ground truth that claims each prior: (N, M) bool, (M, 4) -> (N,) int64, -1 where none does."""
    rank = box_area(gts).sort(descending=True).indices.argsort()  # (M,), the smallest has the highest
    best = torch.where(claims, rank, -1).max(dim=1)
    return torch.where(best.values >= 0, best.indices, NEGATIVE)


def center_region(
    priors: Tensor,
    gts: Tensor,
    labels: Tensor,
    core_iof: Tensor,
    shadow_iof: Tensor,
    min_pos_iof: float = 0.01,
    foreground_dominate: bool = False,
    ignored: Tensor | None = None,
) -> Assignment:
    """Match priors to the ground truths whose cores they lie in.

    A prior is positive when its centre lies inside a box and more than ``min_pos_iof`` of it inside the box's core; of
    several boxes the smallest wins.  It lies in a shadow of a box when it would belong to its core but lost, or
    when more than ``min_pos_iof`` of it lies inside the box's larger shadow region.

    Args:
        priors: (N, 4) xyxy; N may be 0.
        gts: (M, 4) xyxy; M may be 0.
        labels: (M,) classes.
        core_iof: (N, M) intersection of priors with the cores over the prior's area.
        shadow_iof: (N, M), with the shadow regions.
        min_pos_iof: share of the prior.
        foreground_dominate: a prior that is positive and in the shadow of a box of the same class stays positive;
            otherwise it becomes negative.
        ignored: (N,) bool, priors to leave out of the loss.

    Returns:
        Assignment without ``quality``; ``extras['shadowed_labels']`` (S, 2) int64 are pairs (prior, class), shadow
        regions first, then those who lost.
    """
    center = (priors[:, 2:4] + priors[:, :2]) / 2  # (N, 2)
    in_core = (border_distance(center[:, :1], center[:, 1:], gts) > 0) & (core_iof > min_pos_iof)  # (N, M)
    in_shadow = (shadow_iof > min_pos_iof) & ~in_core
    if len(gts) == 0 or len(priors) == 0:
        gt_index = all_negative(len(priors), priors)
        shadows = gt_index.new_zeros(0, 2)
    else:
        gt_index = smallest_claim(in_core, gts)
        lost = in_core & (torch.arange(len(gts), device=gts.device) != gt_index[:, None])
        shadows = torch.cat([in_shadow.nonzero(), lost.nonzero()])  # (S, 2): prior, ground truth
    if ignored is not None:
        gt_index = gt_index.masked_fill(ignored, IGNORED)
    if len(shadows):
        prior, shadow_class = shadows[:, 0], labels[shadows[:, 1]].long()
        own = gt_index[prior]
        both = (own >= 0) & (labels[own.clamp(min=0)] == shadow_class)
        shadows = torch.stack([prior, shadow_class], dim=1)
        if foreground_dominate:
            shadows = shadows[~both]
        else:
            demoted = torch.zeros_like(gt_index, dtype=torch.bool)
            demoted[prior[both]] = True
            gt_index = gt_index.masked_fill(demoted, NEGATIVE)
    return Assignment(gt_index, None, {"shadowed_labels": shadows})


@register
class CenterRegionAssigner(OverlapMixin, BaseAssigner):
    """Assign priors by the cores of the ground truths, the smallest first: FSAF.

    Args:
        pos_scale: size of the core in parts of the box.
        neg_scale: size of the shadow region in parts of the box.
        min_pos_iof: share of a prior that must lie in a region.
        ignore_gt_scale: size of the part of an ignore region that counts.
        foreground_dominate: a positive prior in the shadow of a box of the same class stays positive.
        iou_calculator: configuration or object; plain IoU if None.
    """

    def __init__(
        self,
        pos_scale: float,
        neg_scale: float,
        min_pos_iof: float = 1e-2,
        ignore_gt_scale: float = 0.5,
        foreground_dominate: bool = False,
        iou_calculator: Any = None,
    ) -> None:
        self.pos_scale = pos_scale
        self.neg_scale = neg_scale
        self.min_pos_iof = min_pos_iof
        self.ignore_gt_scale = ignore_gt_scale
        self.foreground_dominate = foreground_dominate
        self.build_calculator(iou_calculator)

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
            gt_instances_ignore: with ``bboxes`` (R, 4); priors whose centre lies in their inner part are ignored.
            num_level_priors: accepted so that assigners can be exchanged; not used.
            img_meta: accepted for the same reason; not used.

        Returns:
            AssignResult with ``max_overlaps`` None and the extra property ``shadowed_labels`` (S, 2) that FSAFHead
            reads.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite.
        """
        priors = self.read(pred_instances, "pred_instances", "priors", columns=4)
        gts, labels = self.read_ground_truths(gt_instances)
        ignored = None
        if gt_instances_ignore is not None:
            regions = self.read(gt_instances_ignore, "gt_instances_ignore", "bboxes", columns=4)
            center = (priors[:, 2:4] + priors[:, :2]) / 2
            inner = scale_boxes(regions, self.ignore_gt_scale)
            ignored = (border_distance(center[:, :1], center[:, 1:], inner) > 0).any(dim=1)
        assignment = center_region(
            priors,
            gts,
            labels,
            self.overlaps(priors, scale_boxes(gts, self.pos_scale), mode="iof"),
            self.overlaps(priors, scale_boxes(gts, self.neg_scale), mode="iof"),
            self.min_pos_iof,
            self.foreground_dominate,
            ignored,
        )
        return to_assign_result(assignment, labels)
