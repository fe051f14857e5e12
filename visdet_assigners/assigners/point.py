"""Point: each object takes the points nearest to its centre, on the level of its size.

Yang et al., RepPoints, ICCV 2019, arXiv:1904.11490, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import DenseAssigner, DenseCommon
from visdet_assigners.assigners.forms import TRUTHS, Names
from visdet_assigners.assignment import NEGATIVE, Assignment, all_negative
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import box_area, box_center
from visdet_assigners.functional.grids import Grid, crossings, grid_of
from visdet_assigners.functional.resolve import best_claim
from visdet_assigners.functional.select import largest_of_each, top
from visdet_assigners.functional.validity import Fault, Kind
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import positive, whole_number
from visdet_assigners.registry import register

MANY = 1024
"""Points of a level from which on a shortlist of them pays."""
SLACK = 1e-5
"""By which part a square may exceed the least to be on it: many times what rounding does."""


@checked({"topk": whole_number, "scale": positive}, points="points", gts="truths", level_sizes="optional levels")
def point(
    points: Tensor, gts: Tensor, level_sizes: Sequence[int] | None = None, topk: int = 3, scale: float = 4
) -> Assignment:
    """Match each ground truth with the points nearest to its centre.

    A box belongs to the level ``log2(side / scale)``, the side being the geometric mean of its width and height, cut to
    the levels that are there.  There it takes the ``topk`` points nearest to its centre, distances being divided by
    its width and height; a point taken twice goes to the nearer box, to the first of equals.

    Args:
        points: (N, 3 or more) x, y and stride, pixels; N may be 0.
        gts: (M, 4) xyxy, pixels; M may be 0.
        level_sizes: points in each level, each of one stride and one level after another; sums to N.  None tells the
            levels by the strides, and so does a device.
        topk: points per box; a smaller level gives all it has.
        scale: side of a box in strides of its level.

    Returns:
        Assignment without ``quality``.

    Differs from mmdet: runs on any device, ``topk`` may exceed the points of a level, and a box of no area gets no
    point (mmdet forces some upon it).
    """
    if len(points) == 0 or len(gts) == 0:
        return Assignment(all_negative(len(points), points))
    points, static = points[:, :3], static_shapes(gts.device)
    order = None
    if level_sizes is None and not static:
        order = points[:, 2].argsort(stable=True)
        points = points[order]
        level_sizes = points[:, 2].unique_consecutive(return_counts=True)[1].tolist()
    center = torch.stack(box_center(gts), dim=1)  # (M, 2)
    side = (gts[:, 2:] - gts[:, :2]).clamp(min=1e-6)
    point_level = torch.log2(points[:, 2]).int()
    gt_level = ((torch.log2(side[:, 0] / scale) + torch.log2(side[:, 1] / scale)) / 2).int()
    gt_level = torch.minimum(torch.maximum(gt_level, point_level.min()), point_level.max())  # (M,)
    has_area = box_area(gts) > 0
    if static:  # each box looks at all points, those of other levels being infinitely far
        far = point_level != gt_level[:, None]
        found = [nearest_points(points[:, :2], center, side, topk, far)]
    else:
        found, start = [], 0
        for size in level_sizes or ():
            if size:
                kept = (gt_level == point_level[start]).nonzero()[:, 0]
                prior, gt, distance = nearest_points(points[start : start + size, :2], center[kept], side[kept], topk)
                found.append((prior + start, kept[gt], distance))
            start += size
    prior, gt, distance = (torch.cat(parts) for parts in zip(*found))  # (P,) each
    claimed = has_area[gt] & distance.isfinite()
    winner = best_claim(prior, claimed, -distance, gt, len(points), nobody=len(gts))
    gt_index = torch.where(winner < len(gts), winner, NEGATIVE)
    return Assignment(gt_index if order is None else torch.empty_like(gt_index).index_copy(0, order, gt_index))


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
class PointAssigner(DenseAssigner):
    """Assign each ground truth its nearest points on the level of its size: the first stage of RepPoints.

    Reads ``priors`` (N, 3) x, y and stride, or (N, 4) with the stride twice; level sizes are read off the strides where
    they are not given.  Result: ``max_overlaps`` None.

    Args:
        scale: side of a box in strides of its level.
        pos_num: points per ground truth.
        **common: see ``DenseAssigner``.
    """

    knobs: ClassVar[str] = "raise pos_num; of objects that share their nearest point, only one gets it"
    reads: ClassVar[Mapping[str, Kind]] = {"priors": "points"}
    mmdet2: ClassVar[Names] = ("points", *TRUTHS)
    levels: ClassVar[Literal["needed", "optional", "unused"]] = "optional"

    def __init__(self, scale: float = 4, pos_num: int = 3, **common: Unpack[DenseCommon]) -> None:
        super().__init__(**common)
        self.scale = self.number_of("scale", scale, above=0)
        self.pos_num = self.count_of("pos_num", pos_num)

    def read(self, *args: Any, **options: Any) -> Inputs:
        """As for every dense assigner; points are told from boxes."""
        image = super().read(*args, **options)
        points = image.fields["priors"]
        if points.shape[1] == 4:
            image.expect(points, lambda own: (own[:, 2] != own[:, 3]).any(), boxes_for_points)
        return image

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        points = image.fields["priors"]
        return self.run(point, points, image.gts, image.level_sizes, self.pos_num, self.scale)


def boxes_for_points(points: Tensor) -> Fault | None:
    """What is said of four columns that are no points, None where they are."""
    if torch.equal(points[:, 2], points[:, 3]):
        return None
    return Fault(
        "pred_instances.priors are boxes, not points with their strides; mmdet's dense heads have theirs turned into "
        "points while they train, other callers pass points",
        "pred_instances.priors",
    )
