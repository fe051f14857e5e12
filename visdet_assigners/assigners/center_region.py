"""CenterRegion: the core of an object is positive, the smallest object first, and what lies in a shadow is marked.

Zhu et al., FSAF, CVPR 2019, arXiv:1903.00621, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import DenseAssigner, DenseCommon
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, Deferred, all_negative
from visdet_assigners.functional.blocks import Reach, static_shapes
from visdet_assigners.functional.boxes import border_distance, box_area, box_overlaps
from visdet_assigners.functional.overlaps import near_blocks
from visdet_assigners.functional.select import ties_by_index
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import not_negative, number
from visdet_assigners.registry import register
from visdet_assigners.settings import memory_budget


def scale_boxes(boxes: Tensor, scale: float) -> Tensor:
    """Scale boxes about their centres: (M, 4) xyxy -> (M, 4)."""
    center, half = (boxes[:, 2:] + boxes[:, :2]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    return torch.cat([center - half, center + half], dim=1)


@checked(
    {"pos_scale": not_negative, "neg_scale": not_negative, "min_pos_iof": number},
    priors="boxes", gts="truths", labels="labels", ignored="marks",
)  # fmt: skip
def center_region(
    priors: Tensor,
    gts: Tensor,
    labels: Tensor,
    pos_scale: float,
    neg_scale: float,
    min_pos_iof: float = 0.01,
    foreground_dominate: bool = False,
    ignored: Tensor | None = None,
    overlaps: Callable[..., Tensor] = box_overlaps,
    reach: float | Reach | None = 0.0,
) -> Assignment:
    """Match priors to the ground truths whose cores they lie in.

    A prior is positive when its centre lies inside a box and more than ``min_pos_iof`` of it inside the box's core; of
    several boxes the smallest wins.  It lies in a shadow of a box when it would belong to its core but lost, or
    when more than ``min_pos_iof`` of it lies inside the box's larger shadow region.

    Args:
        priors: (N, 4) xyxy; N may be 0.
        gts: (M, 4) xyxy; M may be 0.
        labels: (M,) classes.
        pos_scale: size of the core in parts of the box.
        neg_scale: size of the shadow region in parts of the box.
        min_pos_iof: share of the prior.
        foreground_dominate: a prior that is positive and in the shadow of a box of the same class stays positive;
            otherwise it becomes negative.
        ignored: (N,) bool, priors to leave out of the loss.
        overlaps: gives the (n, m) overlaps of priors and regions, in the mode "iof".
        reach: from which on boxes apart overlap by exactly 0, None if unknown.

    Returns:
        Assignment without ``quality``; ``extras['shadowed_labels']`` (S, 2) int64 are pairs (prior, class), shadow
        regions first, then those who lost.  Their number depends on the data.  On a device they are ``Deferred``:
        reading them synchronises once, as FSAF's head does anyway.  Where 2 N M bytes exceed the memory budget, they
        are listed at once, which synchronises for each block.
    """
    if len(gts) == 0 or len(priors) == 0:
        gt_index = all_negative(len(priors), priors)
        gt_index = gt_index if ignored is None else gt_index.masked_fill(ignored, IGNORED)
        return Assignment(gt_index, None, {"shadowed_labels": gt_index.new_zeros(0, 2)})
    cores, regions = scale_boxes(gts, pos_scale), scale_boxes(gts, neg_scale)
    by_size = box_area(gts).sort(descending=True, stable=ties_by_index()).indices
    rank = by_size.argsort()  # (M,), the smallest has the highest
    around = torch.cat([torch.minimum(gts, regions)[:, :2], torch.maximum(gts, regions)[:, 2:]], dim=1)
    blocks = near_blocks(priors[:, None], around, 8, reach if min_pos_iof >= 0 else None)
    marks = None
    if static_shapes(gts.device) and 2 * len(priors) * len(gts) <= memory_budget():
        marks = torch.empty(2, len(priors), len(gts), dtype=torch.bool, device=gts.device)
    indices, shadows = [], []
    for block in blocks:
        here = slice(None) if block.columns is None else block.columns
        own, number = priors[block.rows], torch.arange(len(gts), device=gts.device)[here]  # (n, 4), (m,)
        center = (own[:, 2:4] + own[:, :2]) / 2  # (n, 2)
        in_core = border_distance(center[:, :1], center[:, 1:], gts[here]) > 0  # (n, m)
        in_core &= overlaps(own, cores[here], mode="iof") > min_pos_iof
        in_shadow = (overlaps(own, regions[here], mode="iof") > min_pos_iof) & ~in_core
        gt_index = all_negative(len(own), own)
        if len(number):
            best = torch.where(in_core, rank[here], -1).max(dim=1)
            gt_index = torch.where(best.values >= 0, number[best.indices], NEGATIVE)
        shadowed = torch.stack([in_shadow, in_core & (number != gt_index[:, None])])  # (2, n, m)
        gt_index = gt_index if ignored is None else gt_index.masked_fill(ignored[block.rows], IGNORED)
        same = (gt_index >= 0)[:, None] & (labels[here] == labels[gt_index.clamp(min=0)][:, None])
        if foreground_dominate:
            shadowed &= ~same
        else:
            gt_index = gt_index.masked_fill((shadowed & same).any(dim=2).any(dim=0), NEGATIVE)
        indices.append(gt_index)
        if marks is not None:
            marks[:, block.rows] = shadowed
            continue
        kind, prior, gt = shadowed.nonzero().unbind(1)
        shadows.append(torch.stack([kind, prior + block.rows.start, labels[here][gt].long()]))
    if marks is not None:
        return Assignment(torch.cat(indices), None, {"shadowed_labels": Deferred(partial(listed, marks, labels))})
    kind, prior, shadow_class = torch.cat(shadows, dim=1)
    shadow = torch.stack([prior, shadow_class], dim=1)[kind.argsort(stable=True)]
    return Assignment(torch.cat(indices), None, {"shadowed_labels": shadow})


def listed(marks: Tensor, labels: Tensor) -> Tensor:
    """The pairs (prior, class) that are marked, kind by kind: (K, N, M) bool, (M,) -> (S, 2) int64."""
    _, prior, gt = marks.nonzero().unbind(1)
    return torch.stack([prior, labels[gt].long()], dim=1)


@register
class CenterRegionAssigner(DenseAssigner):
    """Assign priors by the cores of the ground truths, the smallest first: FSAF.

    Reads ``priors`` (N, 4) xyxy; priors whose centre lies in the inner part of an ignore region are ignored.  Result:
    ``max_overlaps`` None, and the extra property ``shadowed_labels`` (S, 2) that FSAFHead reads.

    Args:
        pos_scale: size of the core in parts of the box.
        neg_scale: size of the shadow region in parts of the box.
        min_pos_iof: share of a prior that must lie in a region.
        ignore_gt_scale: size of the part of an ignore region that counts.
        foreground_dominate: a positive prior in the shadow of a box of the same class stays positive.
        iou_calculator: configuration or object; plain IoU if None.
        **common: see ``DenseAssigner``; ``ignore_iof_thr`` counts besides the centres.
    """

    covers_inside: ClassVar[bool] = True
    knobs: ClassVar[str] = "raise pos_scale, the part of the box that is positive"

    def __init__(
        self,
        pos_scale: float,
        neg_scale: float,
        min_pos_iof: float = 1e-2,
        ignore_gt_scale: float = 0.5,
        foreground_dominate: bool = False,
        iou_calculator: Any = None,
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        self.pos_scale = self.number_of("pos_scale", pos_scale, least=0)
        self.neg_scale = self.number_of("neg_scale", neg_scale, least=0)
        self.min_pos_iof = self.number_of("min_pos_iof", min_pos_iof)
        self.ignore_gt_scale = self.number_of("ignore_gt_scale", ignore_gt_scale, least=0)
        self.foreground_dominate = foreground_dominate
        self.build_calculator(iou_calculator)

    def uses_regions(self) -> bool:
        """Always: the method defines them."""
        return True

    def pads(self) -> bool:
        """Whether ground truths may be padded: not here, where the result has a list of shadows."""
        return False

    def free_priors(self, assignment: Assignment, image: Inputs) -> Tensor:
        """What is negative: all that is ignored lies in ignore regions."""
        return super().free_priors(assignment, image) & (assignment.gt_index == NEGATIVE)

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image, not compiled: how many shadows there are depends on the data."""
        priors, ignored = image.fields["priors"], None
        if image.regions is not None:
            center = (priors[:, 2:4] + priors[:, :2]) / 2
            inner = scale_boxes(image.regions, self.ignore_gt_scale)
            ignored = (border_distance(center[:, :1], center[:, 1:], inner) > 0).any(dim=1)
        scales = (self.pos_scale, self.neg_scale, self.min_pos_iof, self.foreground_dominate)
        reach = self.promise("reach")
        match = center_region.__wrapped__  # type: ignore[attr-defined]
        return match(priors, image.gts, image.labels, *scales, ignored, self.overlaps, reach)
