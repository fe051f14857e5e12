"""Point: each object takes the points nearest to its centre, on the level of its size.

Yang et al., RepPoints, ICCV 2019, arXiv:1904.11490, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import NEGATIVE, Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import box_area, box_center
from visdet_assigners.functional.grids import Grid, crossings, grid_of
from visdet_assigners.functional.inputs import Policy
from visdet_assigners.functional.resolve import best_claim
from visdet_assigners.functional.select import largest_of_each, top
from visdet_assigners.registry import register

MANY = 1024
"""Points of a level from which on a shortlist of them pays."""
SLACK = 1e-5
"""By which part a square may exceed the least to be on it: many times what rounding does."""


def point(points: Tensor, gts: Tensor, level_sizes: Sequence[int], scale: float = 4, pos_num: int = 3) -> Assignment:
    """Match each ground truth with the points nearest to its centre.

    A box belongs to the level ``log2(side / scale)``, the side being the geometric mean of its width and height, cut to
    the levels that are there.  There it takes the ``pos_num`` points nearest to its centre, distances being divided by
    its width and height; a point taken twice goes to the nearer box, to the first of equals.

    Args:
        points: (N, 3) x, y and stride, pixels; levels one after another, N at least 1.
        gts: (M, 4) xyxy, pixels; M at least 1.
        level_sizes: points in each level, each of one stride; sums to N.  Without effect on a device, where the strides
            alone tell the levels.
        scale: side of a box in strides of its level.
        pos_num: points per box; a smaller level gives all it has.

    Returns:
        Assignment without ``quality``.

    Differs from mmdet: runs on any device, ``pos_num`` may exceed the points of a level, and a box of no area gets no
    point (mmdet forces some upon it).
    """
    center = torch.stack(box_center(gts), dim=1)  # (M, 2)
    side = (gts[:, 2:] - gts[:, :2]).clamp(min=1e-6)
    point_level = torch.log2(points[:, 2]).int()
    gt_level = ((torch.log2(side[:, 0] / scale) + torch.log2(side[:, 1] / scale)) / 2).int()
    gt_level = torch.minimum(torch.maximum(gt_level, point_level.min()), point_level.max())  # (M,)
    has_area = box_area(gts) > 0
    if static_shapes(gts.device):  # each box looks at all points, those of other levels being infinitely far
        far = point_level != gt_level[:, None]
        found = [nearest_points(points[:, :2], center, side, pos_num, far)]
    else:
        found, start = [], 0
        for size in level_sizes:
            if size:
                kept = (gt_level == point_level[start]).nonzero()[:, 0]
                prior, gt, distance = nearest_points(
                    points[start : start + size, :2], center[kept], side[kept], pos_num
                )
                found.append((prior + start, kept[gt], distance))
            start += size
    prior, gt, distance = (torch.cat(parts) for parts in zip(*found))  # (P,) each
    claimed = has_area[gt] & distance.isfinite()
    winner = best_claim(prior, claimed, -distance, gt, len(points), nobody=len(gts))
    return Assignment(torch.where(winner < len(gts), winner, NEGATIVE))


def nearest_points(
    points: Tensor, center: Tensor, side: Tensor, count: int, far: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The points nearest to each centre, distances being divided by the sides.

    Args:
        points: (n, 2) x and y; n at least 1.
        center: (m, 2); m may be 0.
        side: (m, 2) width and height.
        count: how many of each, cut to n.
        far: (m, n) bool, pairs at infinite distance.

    Returns:
        Rows of ``points``, rows of ``center``, and distances, of m * count pairs.
    """
    count, every = min(count, len(points)), torch.arange(len(center), device=points.device)
    prior, gt, distances = [every[:0]], [every[:0]], [points.new_zeros(0)]
    shortlist = far is None and count == 1 and len(points) >= MANY and len(center) > 0
    grid = grid_of(*points.unbind(1)) if shortlist else None
    width = len(points) if grid is None else len(grid.rows) + len(grid.columns)
    for block in split(len(center), 4 * points.element_size() * width, points.device):
        if shortlist and grid is not None:
            nearest, distance = nearest_on_grid(points, grid, center[block], side[block])
        elif shortlist:
            nearest, distance = shortlisted(points, center[block], side[block])
        else:
            distance = scaled_distance(points, center[block, None], side[block, None])  # (m, n)
            distance = distance if far is None else distance.masked_fill(far[block], float("inf"))
            distance, nearest = top(distance, count, dim=1, largest=False)
        prior.append(nearest.flatten())
        distances.append(distance.flatten())
        gt.append(every[block].repeat_interleave(count))
    return torch.cat(prior), torch.cat(gt), torch.cat(distances)


def scaled_distance(points: Tensor, center: Tensor, side: Tensor) -> Tensor:
    """Distance of points and centres, divided by the sides: three (..., 2) that broadcast -> (...)."""
    return ((points - center) / side).norm(dim=-1)


def shortlisted(points: Tensor, center: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest point as above, the first of equals, (m, 1), and its distance, on a CPU.

    A quick square that may be off by a few units in the last place tells which are near enough to be looked at.
    """
    x, y = points.T.contiguous()
    square = ((x - center[:, :1]) / side[:, :1]).pow_(2).add_(((y - center[:, 1:]) / side[:, 1:]).pow_(2))  # (m, n)
    gt, prior = (square <= square.amin(dim=1, keepdim=True) * (1 + SLACK)).nonzero().unbind(1)
    return nearest_of_pairs(points, center, side, gt, prior)


def nearest_on_grid(points: Tensor, grid: Grid, center: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """The same for points on a grid: who is near enough stands in a column and in a row that is."""
    across = ((grid.columns - center[:, :1]) / side[:, :1]).pow_(2)  # (m, w)
    down = ((grid.rows - center[:, 1:]) / side[:, 1:]).pow_(2)  # (m, h)
    least = across.amin(dim=1, keepdim=True), down.amin(dim=1, keepdim=True)
    slack = SLACK * (least[0] + least[1])
    gt, prior = crossings(grid, down <= least[1] + slack, across <= least[0] + slack)
    return nearest_of_pairs(points, center, side, gt, prior)


def nearest_of_pairs(points: Tensor, center: Tensor, side: Tensor, gt: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest point of each centre among pairs (P,), (P,), ascending: its row, (m, 1), and its distance."""
    distance = scaled_distance(points[prior], center[gt], side[gt])
    pair = largest_of_each(-distance, gt, len(center), 1)
    return prior[pair], distance[pair]


@register
class PointAssigner(BaseAssigner):
    """Assign each ground truth its nearest points on the level of its size: the first stage of RepPoints.

    Args:
        scale: side of a box in strides of its level.
        pos_num: points per ground truth.
    """

    def __init__(
        self,
        scale: float = 4,
        pos_num: int = 3,
        *,
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        super().__init__(memory_budget, compile, deterministic, on_nonfinite)
        if pos_num < 1:
            self.fail(f"pos_num is {pos_num}; at least 1 is needed")
        self.scale = scale
        self.pos_num = pos_num

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
        """Assign the points of one image.

        Args:
            pred_instances: with ``priors`` (N, 3) x, y and stride, or (N, 4) with the stride twice; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: not used: the method defines no ignore regions.
            num_level_priors: points in each level, summing to N; read off the strides where it is not given.
            img_meta: accepted so that assigners can be exchanged; not used.

        Returns:
            AssignResult with ``max_overlaps`` None.

        Raises:
            ValueError: a field is missing or has the wrong shape, the levels don't sum to N, or on CPU a value is not
                finite or the priors are boxes.
        """
        (points,) = self.read_predictions(pred_instances, priors="points")
        if not static_shapes(points.device) and points.shape[1] == 4 and not torch.equal(points[:, 2], points[:, 3]):
            self.fail(
                "pred_instances.priors are boxes, not points with their strides; RepPointsHead passes points only "
                "where the config says type='PointAssigner' without a prefix; import visdet_assigners.dropin for that"
            )
        points = points[:, :3]
        gts, labels = self.read_ground_truths(gt_instances)
        self.without_regions(gt_instances_ignore)
        if len(points) == 0 or len(gts) == 0:
            return to_assign_result(Assignment(all_negative(len(points), points)), labels)
        if self.compile or static_shapes(points.device):
            return to_assign_result(self.run(point, points, gts, [len(points)], self.scale, self.pos_num), labels)
        if num_level_priors is not None:
            if sum(num_level_priors) != len(points):
                self.fail(f"sum(num_level_priors) is {sum(num_level_priors)} but there are {len(points)} priors")
            return to_assign_result(point(points, gts, num_level_priors, self.scale, self.pos_num), labels)
        order = points[:, 2].argsort(stable=True)  # levels one after another, whatever the head does
        sizes = points[order, 2].unique_consecutive(return_counts=True)[1].tolist()
        sorted_index = point(points[order], gts, sizes, self.scale, self.pos_num).gt_index
        return to_assign_result(Assignment(torch.empty_like(sorted_index).index_copy(0, order, sorted_index)), labels)
