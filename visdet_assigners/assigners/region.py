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
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import box_area
from visdet_assigners.functional.grids import Grid, crossings, grid_of
from visdet_assigners.functional.inputs import Policy
from visdet_assigners.functional.overlaps import joined, near_blocks
from visdet_assigners.registry import register

PAIR = 64
"""Bytes that a pair of a ground truth and an anchor takes where those inside are listed."""


def inner_parts(boxes: Tensor, ratio: float, sizes: Tensor) -> Tensor:
    """The inner part of boxes, its borders rounded to whole cells.

    Args:
        boxes: (L, M, 4) xyxy in cells of each level.
        ratio: share of the width and height that is kept.
        sizes: (L, 2), width and height of each feature map.

    Returns:
        (L, M, 4) xyxy in cells; the borders belong to it.
    """
    margin = (1 - ratio) / 2
    low = (1 - margin) * boxes[..., :2] + margin * boxes[..., 2:]
    high = margin * boxes[..., :2] + (1 - margin) * boxes[..., 2:]
    corners = torch.stack([low, high], dim=2).round()  # (L, M, 2, 2)
    return torch.minimum(corners.clamp(min=0), sizes[:, None, None]).flatten(2)


def inside_parts(x: Tensor, y: Tensor, parts: Tensor) -> Tensor:
    """Which points lie in parts or on their borders: (n,), (n,), (m, 4) xyxy -> (m, n) bool."""
    x1, y1, x2, y2 = parts[:, None].unbind(-1)  # (m, 1) each
    return ((x >= x1) & (x <= x2)).logical_and_(y >= y1).logical_and_(y <= y2)


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

    Differs from mmdet: a box of no area gets nothing (mmdet: the anchors whose centres it meets, on the first level).
    """
    area = box_area(gts)
    target = torch.log2(area.sqrt()) - torch.log2(torch.tensor(float(anchor_scale * strides[0]), dtype=gts.dtype))
    target = torch.floor(target + 0.5).clamp(min=0, max=len(level_sizes) - 1)  # (M,)
    target.masked_fill_(area <= 0, float("nan"))  # on no level, nor beside one
    boxes = torch.stack([gts / stride for stride in strides])  # (L, M, 4)
    sizes = torch.tensor([(width, height) for height, width in featmap_sizes], dtype=gts.dtype)
    sizes = sizes.to(gts.device, non_blocking=True)  # (L, 2)
    inner, ring = (inner_parts(boxes, ratio, sizes) for ratio in (center_ratio, ignore_ratio))  # (L, M, 4)
    levels = torch.arange(len(strides), device=gts.device)[:, None]
    on_level, beside = target == levels, (target - levels).abs() == 1  # (L, M)
    meaning = meanings(len(gts), gts)
    decided, start = [], 0
    for level, (size, stride) in enumerate(zip(level_sizes, strides)):
        cells = anchors[start : start + size] / stride
        decided.append(decide_level(cells, inner[level], ring[level], on_level[level], beside[level], meaning))
        start += size
    return Assignment(torch.cat(decided))


def meanings(num_gts: int, like: Tensor) -> Tensor:
    """What claims mean, (2 M + 2,) int64: 2 k + 1 is to the inner part of ground truth k - 1, 2 k to its ring."""
    inner = torch.arange(-1, num_gts, device=like.device)
    meaning = torch.stack([torch.full_like(inner, IGNORED), inner], dim=1).flatten()
    meaning[:1] = NEGATIVE  # no claim
    return meaning


def decide_level(
    cells: Tensor, inner: Tensor, ring: Tensor, on_level: Tensor, beside: Tensor, meaning: Tensor
) -> Tensor:
    """Match the anchors of one level.

    Args:
        cells: (n, 4) xyxy in cells; n may be 0.
        inner: (M, 4) xyxy in cells, the parts in which anchors are positive; M may be 0.
        ring: (M, 4), those in which they aren't negative.
        on_level: (M,) bool, the ground truths whose size belongs to this level.
        beside: (M,) bool, those that belong to a level next to it.
        meaning: (2 M + 2,) int64, see `meanings`.

    Returns:
        (n,) int64 indices of ground truths, ``NEGATIVE`` or ``IGNORED``.
    """
    sparse = not static_shapes(cells.device)
    ring_claim = 2 * torch.arange(1, len(inner) + 1, dtype=torch.int32, device=cells.device)  # (M,)
    if sparse:
        kept = (on_level | beside).nonzero()[:, 0]
        values = inner, ring, on_level, beside, ring_claim
        inner, ring, on_level, beside, ring_claim = (value[kept] for value in values)
    if len(inner) == 0 or len(cells) == 0:
        return all_negative(len(cells), cells)
    x, y = ((cells[:, :2] + cells[:, 2:4]) * 0.5).T.contiguous()  # (n,) each
    around = ring
    if sparse:
        grid = grid_of(x, y)
        if grid is not None:
            return decide_grid(grid, inner, ring, on_level, beside, ring_claim, meaning)
        around = torch.cat([torch.minimum(inner, ring)[:, :2], torch.maximum(inner, ring)[:, 2:]], dim=1)
    decided = []
    for block in near_blocks(torch.stack([x, y, x, y], dim=1)[:, None], around, 2, reach=0.0):
        own = slice(None) if block.columns is None else block.columns
        if block.columns is not None and len(block.columns) == 0:
            decided.append(all_negative(block.rows.stop - block.rows.start, cells))
            continue
        in_inner = inside_parts(x[block.rows], y[block.rows], inner[own])  # (m, n)
        in_ring = inside_parts(x[block.rows], y[block.rows], ring[own])
        # The last claim wins; odd where it is to the inner part.
        claim = (in_inner | in_ring) & on_level[own, None]
        last = (claim * (ring_claim[own, None] + in_inner)).amax(dim=0)
        gt_index = meaning.index_select(0, last)
        decided.append(gt_index.masked_fill_((in_ring & beside[own, None]).any(dim=0), IGNORED))
    return joined(decided)


def decide_grid(
    grid: Grid, inner: Tensor, ring: Tensor, on_level: Tensor, beside: Tensor, ring_claim: Tensor, meaning: Tensor
) -> Tensor:
    """Match the anchors of one level that stand on a grid, on a CPU: those inside are listed, the others not met.

    Args:
        grid: of n anchors.
        inner: (m, 4) of some ground truths, as in `decide_level`.
        ring: (m, 4), likewise.
        on_level: (m,) bool, likewise.
        beside: (m,) bool, likewise.
        ring_claim: (m,), the claim of each to an anchor in its ring; to the inner part 1 more.
        meaning: of claims, see `meanings`.
    """
    last = torch.zeros(len(grid.rows) * len(grid.columns), dtype=torch.int32)
    ignored = []
    for parts, claim in ((ring, ring_claim), (inner, ring_claim + 1)):
        x1, y1, x2, y2 = parts[:, None].unbind(-1)  # (m, 1) each
        rows, columns = (grid.rows >= y1) & (grid.rows <= y2), (grid.columns >= x1) & (grid.columns <= x2)
        most = int((rows.sum(dim=1) * columns.sum(dim=1)).max())
        for block in split(len(parts), PAIR * most, last.device, least=len(parts)):
            gt, cell = crossings(grid, rows[block], columns[block])
            mine = on_level[block][gt]
            last.scatter_reduce_(0, cell[mine], claim[block][gt[mine]], "amax")
            if parts is ring:
                ignored.append(cell[beside[block][gt]])
    return meaning.index_select(0, last).index_fill_(0, torch.cat(ignored), IGNORED)


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

    def __init__(
        self,
        center_ratio: float = 0.2,
        ignore_ratio: float = 0.5,
        *,
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        super().__init__(memory_budget, compile, deterministic, on_nonfinite)
        self.center_ratio = center_ratio
        self.ignore_ratio = ignore_ratio

    @within_memory
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
                finite; or there are ignore regions.
        """
        if gt_instances_ignore is not None and len(gt_instances_ignore):
            self.fail(f"gt_instances_ignore has {len(gt_instances_ignore)} boxes; the method defines no ignore regions")
        anchors, valid = self.read_predictions(pred_instances, priors="boxes", valid_flags="flags")
        gts, labels = self.read_ground_truths(gt_instances)
        size = self.image_size(img_meta)
        if sum(num_level_anchors) != len(anchors):
            self.fail(f"sum(num_level_anchors) is {sum(num_level_anchors)} but there are {len(anchors)} priors")
        if len(gts) == 0 or len(anchors) == 0:
            unmatched = all_negative(len(anchors), anchors)
            return to_assign_result(Assignment(unmatched, anchors.new_zeros(len(anchors))), labels)
        assignment = self.run(
            region,
            anchors,
            gts,
            num_level_anchors,
            featmap_sizes,
            anchor_strides,
            anchor_scale,
            self.center_ratio,
            self.ignore_ratio,
        )
        inside = inside_image(anchors, valid, size, allowed_border)
        return to_assign_result(Assignment(assignment.gt_index.masked_fill(~inside, IGNORED)), labels)
