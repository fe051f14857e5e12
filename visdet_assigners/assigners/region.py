"""Region: the inner part of an object is positive on one level, a ring around it and its neighbour levels are ignored.

Wang et al., Guided Anchoring, CVPR 2019, arXiv:1901.03278, section 3.2; Vu et al., Cascade RPN, NeurIPS 2019,
arXiv:1909.06720, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.calling import assigner_method
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import DenseAssigner, DenseCommon
from visdet_assigners.assigners.forms import Names, in_any_form
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, all_negative
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import box_area
from visdet_assigners.functional.grids import Grid, crossings, grid_of
from visdet_assigners.functional.overlaps import near_blocks
from visdet_assigners.functional.tensors import as_tensor, cat_or_only
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs, count_instances
from visdet_assigners.options import not_negative, number
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


@checked(
    {"anchor_scale": number, "center_ratio": not_negative, "ignore_ratio": not_negative},
    priors="boxes", gts="truths", level_sizes="levels",
)  # fmt: skip
def region(
    priors: Tensor,
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
        priors: (N, 4) xyxy, pixels, one anchor for each cell; levels one after another; N may be 0.
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
    if len(priors) == 0 or len(gts) == 0:
        return Assignment(all_negative(len(priors), priors))
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
        cells = priors[start : start + size] / stride
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
        # Claims of ground truth k - 1 are 2k (ring) and 2k + 1 (inner part); the largest, i.e. the last, wins.
        claim = (in_inner | in_ring) & on_level[own, None]
        last = (claim * (ring_claim[own, None] + in_inner)).amax(dim=0)
        gt_index = meaning.index_select(0, last)
        decided.append(gt_index.masked_fill_((in_ring & beside[own, None]).any(dim=0), IGNORED))
    return cat_or_only(decided)


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
class RegionAssigner(DenseAssigner):
    """Assign one anchor per cell by the inner part of each ground truth: the first stage of Cascade RPN.

    Reads ``priors`` (N, 4) xyxy, one anchor per cell, and ``valid_flags`` (N,) bool.  Result: ``max_overlaps`` None, or
    zeros where there is nothing to match.

    Args:
        center_ratio: share of a box that is positive.
        ignore_ratio: share of a box that is not negative.
        **common: see ``DenseAssigner``.

    Differs from mmdet: labels are -1 wherever nothing is matched (mmdet: 0); an empty set of ignore regions is
    accepted, and others where ``ignore_iof_thr`` says what becomes of them.
    """

    knobs: ClassVar[str] = "raise center_ratio, the part of the box that is positive"
    heads: ClassVar[str] = f"Cascade RPN, {DenseAssigner.heads}"
    reads: ClassVar[Mapping[str, Kind]] = {"priors": "boxes", "valid_flags": "flags"}
    mmdet2: ClassVar[Names] = (
        "mlvl_anchors", "mlvl_valid_flags", "gt_bboxes", "img_meta", "featmap_sizes", "anchor_scale", "anchor_strides",
        "gt_bboxes_ignore", "gt_labels", "allowed_border",
    )  # fmt: skip

    def __init__(self, center_ratio: float = 0.2, ignore_ratio: float = 0.5, **common: Unpack[DenseCommon]) -> None:
        super().__init__(**common)
        self.center_ratio = self.number_of("center_ratio", center_ratio, least=0)
        self.ignore_ratio = self.number_of("ignore_ratio", ignore_ratio, least=0)

    def from_mmdet2(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Lay levels, which mmdet 2 passes as a list, one after another."""
        for place in ("pred_instances.priors", "pred_instances.valid_flags"):
            levels = fields[place]
            if isinstance(levels, (list, tuple)) and levels:
                fields[place] = torch.cat([as_tensor(level) for level in levels])
                fields["num_level_anchors"] = [len(level) for level in levels]
        if "num_level_anchors" not in fields:
            self.fail("mlvl_anchors and mlvl_valid_flags must be lists of tensors, one for each level")
        return fields

    @in_any_form
    @assigner_method
    def assign(  # type: ignore[override]
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
            pred_instances: with ``priors`` and ``valid_flags``; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            img_meta: with ``img_shape`` (height, width).
            featmap_sizes: (height, width) of each level in cells.
            num_level_anchors: anchors in each level, summing to N.
            anchor_scale: side of the anchors in strides.
            anchor_strides: of each level, pixels.
            gt_instances_ignore: with ``bboxes`` (R, 4) xyxy; must be None or empty where ``ignore_iof_thr`` is off: the
                method defines no ignore regions.
            allowed_border: pixels by which an anchor may reach out of the image; negative for any.

        Raises:
            AssignerInputError: a field is missing or has the wrong shape, the levels don't sum to N, or, where values
                are checked, one is wrong; or there are ignore regions.
        """
        image = self.read(
            pred_instances,
            gt_instances,
            gt_instances_ignore,
            num_level_anchors,
            img_meta,
            featmap_sizes=featmap_sizes,
            anchor_scale=anchor_scale,
            anchor_strides=anchor_strides,
            allowed_border=allowed_border,
        )
        image.settle()
        return self.decided([image])[0]

    def read(  # type: ignore[override]
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any,
        num_level_priors: Sequence[int] | None,
        img_meta: Mapping[str, Any],
        num_level_anchors: Sequence[int] | None = None,
        **options: Any,
    ) -> Inputs:
        """As for every dense assigner, with the levels and the size of the image."""
        count = count_instances(gt_instances_ignore)
        if count and not self.uses_regions():
            text = "the method defines no ignore regions; set ignore_iof_thr to leave what lies in them out of the loss"
            self.fail(f"gt_instances_ignore has {count} boxes; {text}", img_meta)
        image = super().read(pred_instances, gt_instances, gt_instances_ignore, None, img_meta, **options)
        sizes = num_level_priors if num_level_anchors is None else num_level_anchors
        image.read_levels(sizes, len(image.fields["priors"]), name="num_level_anchors")
        image.options = {**options, "size": image.image_size(img_meta)}
        return image

    def free_priors(self, assignment: Assignment, image: Inputs) -> Tensor:
        """Valid anchors inside the image alone."""
        anchors, valid = image.fields.values()
        border = image.options.get("allowed_border", 0)
        return super().free_priors(assignment, image) & inside_image(anchors, valid, image.options["size"], border)

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        anchors, valid = image.fields.values()
        if len(image.gts) == 0 or len(anchors) == 0:
            return Assignment(all_negative(len(anchors), anchors), anchors.new_zeros(len(anchors)))
        options = image.options
        found = self.run(
            region,
            anchors,
            image.gts,
            image.level_sizes,
            options["featmap_sizes"],
            options["anchor_strides"],
            options["anchor_scale"],
            self.center_ratio,
            self.ignore_ratio,
        )
        inside = inside_image(anchors, valid, options["size"], options.get("allowed_border", 0))
        return Assignment(found.gt_index.masked_fill(~inside, IGNORED))
