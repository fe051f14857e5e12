"""Region: the inner part of an object is positive on one level, a ring around it and its neighbour levels are ignored.

Wang et al., Guided Anchoring, CVPR 2019, arXiv:1901.03278, section 3.2; Vu et al., Cascade RPN, NeurIPS 2019,
arXiv:1909.06720, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.boxes import box_area
from visdet_assigners.functional.resolve import last_claim
from visdet_assigners.registry import register


def in_region(x: Tensor, y: Tensor, boxes: Tensor, margin: float, size: tuple[int, int]) -> Tensor:
    """Which points lie in the inner part of boxes, its border rounded to whole cells.

    Args:
        x: (N,) in cells; ``y`` alike.
        y: (N,) in cells.
        boxes: (M, 4) xyxy in cells.
        margin: share of the width and height that is cut off on each side.
        size: (height, width) of the feature map.

    Returns:
        (N, M) bool; the border is inside.
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    height, width = size
    left = torch.round((1 - margin) * x1 + margin * x2).clamp(min=0, max=width)
    top = torch.round((1 - margin) * y1 + margin * y2).clamp(min=0, max=height)
    right = torch.round(margin * x1 + (1 - margin) * x2).clamp(min=0, max=width)
    bottom = torch.round(margin * y1 + (1 - margin) * y2).clamp(min=0, max=height)
    x, y = x[:, None], y[:, None]
    return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)


def region(
    anchors: Tensor,
    gts: Tensor,
    level_sizes: Sequence[int],
    featmap_sizes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    anchor_scale: float,
    center_ratio: float = 0.2,
    ignore_ratio: float = 0.5,
) -> Assignment:
    """Match the anchors whose centres lie in the inner part of a ground truth, on the level of its size.

    On that level the anchors within ``center_ratio`` of the box are positive and those within ``ignore_ratio`` ignored;
    a later ground truth overrides an earlier one.  On the levels beside it, those within ``ignore_ratio`` are ignored,
    whatever they were.

    Args:
        anchors: (N, 4) xyxy, pixels, one for each cell; levels one after another.
        gts: (M, 4) xyxy, pixels; M may be 0.
        level_sizes: anchors in each level; sums to N.
        featmap_sizes: (height, width) of each level in cells.
        strides: of each level, pixels.
        anchor_scale: side of the anchors in strides; decides which level a size belongs to.
        center_ratio: share of the box that is positive.
        ignore_ratio: share of the box that is not negative.

    Returns:
        Assignment without ``quality``.
    """
    target = torch.log2(box_area(gts).sqrt()) - torch.log2(gts.new_tensor(float(anchor_scale * strides[0])))
    target = torch.floor(target + 0.5).clamp(min=0, max=len(level_sizes) - 1)  # (M,), a box of no area on the first
    decided, start = [], 0
    for level, (size, featmap_size, stride) in enumerate(zip(level_sizes, featmap_sizes, strides)):
        cells, boxes = anchors[start : start + size] / stride, gts / stride
        x, y = (cells[:, 0] + cells[:, 2]) * 0.5, (cells[:, 1] + cells[:, 3]) * 0.5
        inner = in_region(x, y, boxes, (1 - center_ratio) / 2, featmap_size)  # (n, M)
        ring = in_region(x, y, boxes, (1 - ignore_ratio) / 2, featmap_size)
        last = last_claim((inner | ring) & (target == level))
        positive = inner.gather(1, last.clamp(min=0)[:, None])[:, 0] & (last >= 0)
        gt_index = torch.where(positive, last, torch.where(last >= 0, IGNORED, NEGATIVE))
        beside = (ring & ((target - level).abs() == 1)).any(dim=1)
        decided.append(gt_index.masked_fill(beside, IGNORED))
        start += size
    return Assignment(torch.cat(decided))


def inside_image(anchors: Tensor, valid: Tensor, image_size: tuple[int, int], border: float) -> Tensor:
    """Which valid anchors lie inside the image, up to ``border`` pixels outside; any valid one if it is negative."""
    if border < 0:
        return valid
    height, width = image_size
    x1, y1, x2, y2 = anchors.unbind(1)
    return valid & (x1 >= -border) & (y1 >= -border) & (x2 < width + border) & (y2 < height + border)


@register
class RegionAssigner(BaseAssigner):
    """Assign one anchor per cell by the inner part of each ground truth: the first stage of Cascade RPN.

    Args:
        center_ratio: share of a box that is positive.
        ignore_ratio: share of a box that is not negative.

    Differs from mmdet: labels are -1 wherever nothing is matched (mmdet: 0); an empty set of ignore regions is
    accepted.
    """

    def __init__(self, center_ratio: float = 0.2, ignore_ratio: float = 0.5) -> None:
        self.center_ratio = center_ratio
        self.ignore_ratio = ignore_ratio

    @torch.no_grad()
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        img_meta: Mapping[str, Any],
        featmap_sizes: Sequence[tuple[int, int]],
        num_level_anchors: Sequence[int],
        anchor_scale: float,
        anchor_strides: Sequence[float],
        gt_instances_ignore: Any = None,
        allowed_border: float = 0,
    ) -> AssignResult:
        """Assign the anchors of one image.

        Args:
            pred_instances: with ``priors`` (N, 4) xyxy, one anchor per cell, and ``valid_flags`` (N,) bool; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            img_meta: with ``img_shape`` (height, width).
            featmap_sizes: (height, width) of each level in cells.
            num_level_anchors: anchors in each level, summing to N.
            anchor_scale: side of the anchors in strides.
            anchor_strides: of each level, pixels.
            gt_instances_ignore: must be None or empty: the method defines no ignore regions.
            allowed_border: pixels by which an anchor may reach out of the image; negative for any.

        Returns:
            AssignResult with ``max_overlaps`` None, or zeros where there is nothing to match.

        Raises:
            ValueError: a field is missing or has the wrong shape, the levels don't sum to N, or on CPU a value is not
                finite.
            NotImplementedError: there are ignore regions.
        """
        if gt_instances_ignore is not None and len(gt_instances_ignore):
            raise NotImplementedError("RegionAssigner: the method defines no ignore regions; pass None")
        anchors = self.read(pred_instances, "pred_instances", "priors", columns=4)
        valid = self.read(pred_instances, "pred_instances", "valid_flags").bool()
        gts, labels = self.read_ground_truths(gt_instances)
        self.check_lengths(priors=anchors, valid_flags=valid)
        if sum(num_level_anchors) != len(anchors):
            self.fail(f"sum(num_level_anchors) is {sum(num_level_anchors)} but there are {len(anchors)} priors")
        if len(gts) == 0 or len(anchors) == 0:
            unmatched = all_negative(len(anchors), anchors)
            return to_assign_result(Assignment(unmatched, anchors.new_zeros(len(anchors))), labels)
        assignment = region(
            anchors,
            gts,
            num_level_anchors,
            featmap_sizes,
            anchor_strides,
            anchor_scale,
            self.center_ratio,
            self.ignore_ratio,
        )
        height, width = img_meta["img_shape"][:2]
        inside = inside_image(anchors, valid, (height, width), allowed_border)
        return to_assign_result(Assignment(assignment.gt_index.masked_fill(~inside, IGNORED)), labels)
