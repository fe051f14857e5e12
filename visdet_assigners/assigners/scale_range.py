"""ScaleRange: a point learns from the smallest box around it whose size belongs to the point's level.

Tian et al., FCOS, ICCV 2019, arXiv:1904.01355, section 3.2; "spatial and scale constraint" in the ATSS paper, Zhang et
al., CVPR 2020, arXiv:1912.02424.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner, in_either_order
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import NEGATIVE, Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.boxes import border_distance, box_area, box_center
from visdet_assigners.functional.inputs import Policy
from visdet_assigners.functional.overlaps import near_blocks
from visdet_assigners.registry import register

RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, float("inf")))
"""FCOS's own, for strides 8 to 128."""


def scale_range(
    priors: Tensor,
    gts: Tensor,
    level_sizes: Sequence[int],
    ranges: Sequence[tuple[float, float]] = RANGES,
    radii: Sequence[float] | None = None,
) -> Assignment:
    """Match the priors whose centres lie in a ground truth that has the size of their level.

    A prior is positive for a ground truth when its centre lies inside the box and the farthest of the four borders is
    as far away as the range of its level says.  With ``radii``, it must also be near the centre of the box.  Of several
    boxes it takes the smallest.

    Args:
        priors: (N, 4) xyxy, pixels, levels one after another; N may be 0.  Their centres alone count.
        gts: (M, 4) xyxy, pixels; M may be 0.
        level_sizes: priors in each of L levels; sums to N.
        ranges: L times (least, greatest) distance to the farthest border, pixels; both ends belong to it.
        radii: of each level, the greatest distance from the centre of a box in x and in y, pixels, excluded itself;
            None for no limit.

    Returns:
        Assignment without ``quality``.

    Example:
        >>> priors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [0., 0., 16., 16.]])
        >>> scale_range(priors, torch.tensor([[0., 0., 15., 15.]]), [2, 1], [(-1, 12), (12, 99)]).gt_index
        tensor([ 0,  0, -1])
    """
    if len(priors) == 0 or len(gts) == 0:
        return Assignment(all_negative(len(priors), priors))

    def of_each(values: Sequence[float]) -> Tensor:
        return torch.cat([priors.new_full((size,), value) for size, value in zip(level_sizes, values)])

    least, greatest = (of_each(ends) for ends in zip(*ranges))  # (N,)
    radius = None if radii is None else of_each(radii)
    x, y = box_center(priors)
    smallest_first = box_area(gts).argsort(stable=True)  # (M,)
    boxes = gts[smallest_first]
    found = []
    for block in near_blocks(torch.stack([x, y, x, y], dim=1)[:, None], boxes, 6, reach=0.0):
        rows = block.rows
        number = torch.arange(len(boxes), device=boxes.device) if block.columns is None else block.columns  # (m,)
        own = boxes[number][:, None]  # (m, 1, 4)
        fits = border_distance(x[rows], y[rows], own) > 0  # (m, n)
        x1, y1, x2, y2 = own.unbind(-1)
        farthest = torch.maximum(x[rows] - x1, x2 - x[rows])
        farthest = torch.maximum(farthest, torch.maximum(y[rows] - y1, y2 - y[rows]))
        fits &= (farthest >= least[rows]) & (farthest <= greatest[rows])
        if radius is not None:
            for center, place in zip(box_center(boxes[number]), (x[rows], y[rows])):
                fits &= place > center[:, None] - radius[rows]
                fits &= place < center[:, None] + radius[rows]
        nobody = torch.full_like(x[None, rows], len(boxes), dtype=torch.long)
        found.append(torch.cat([torch.where(fits, number[:, None], len(boxes)), nobody]).amin(dim=0))
    rank = torch.cat(found)  # (N,), M where nothing fits
    return Assignment(torch.where(rank < len(gts), smallest_first[rank.clamp(max=len(gts) - 1)], NEGATIVE))


@register
class ScaleRangeAssigner(BaseAssigner):
    """Assign points, or anchors by their centres, as FCOS does: inside a box, on the level of its size.

    With it, FCOS's rule serves heads with anchors too, and other assigners serve FCOS (``AssignedFCOSHead``).

    Args:
        regress_ranges: (least, greatest) distance to the farthest border for each level, pixels.
        center_sampling: take only what lies within ``center_sample_radius`` strides of the centre of the box.
        center_sample_radius: in strides.
        strides: of each level, pixels; for ``center_sampling``.

    The same as the targets of mmdet's FCOSHead, to the last bit.

    Example:
        >>> from types import SimpleNamespace as Instances
        >>> assigner = ScaleRangeAssigner(regress_ranges=[(-1, 12), (12, 99)])
        >>> pred = Instances(priors=torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [0., 0., 16., 16.]]))
        >>> gt = Instances(bboxes=torch.tensor([[0., 0., 15., 15.]]), labels=torch.tensor([5]))
        >>> assigner.assign(pred, gt, num_level_priors=[2, 1]).gt_inds
        tensor([1, 1, 0])
    """

    def __init__(
        self,
        regress_ranges: Sequence[tuple[float, float]] = RANGES,
        center_sampling: bool = False,
        center_sample_radius: float = 1.5,
        strides: Sequence[float] = (8, 16, 32, 64, 128),
        *,
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        super().__init__(memory_budget, compile, deterministic, on_nonfinite)
        if center_sampling and len(strides) != len(regress_ranges):
            self.fail(
                f"there are {len(strides)} strides and {len(regress_ranges)} regress_ranges; give one of each a level"
            )
        self.regress_ranges = regress_ranges
        self.radii = [center_sample_radius * stride for stride in strides] if center_sampling else None

    @in_either_order
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
        """Assign the priors of one image.

        Args:
            pred_instances: with ``priors`` (N, 4) xyxy, further columns are not used; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: not used: the method defines no ignore regions.
            num_level_priors: priors in each level, summing to N; may also come second, or be left out where
                ``pred_instances`` has ``level_ids`` (N,), ascending from 0.
            img_meta: accepted so that assigners can be exchanged; not used.

        Returns:
            AssignResult with ``max_overlaps`` None.

        Raises:
            ValueError: the levels don't sum to N or aren't as many as the ranges, a field is missing or has the wrong
                shape, or on CPU is not finite.
        """
        (priors,) = self.read_predictions(pred_instances, priors="boxes")
        level_sizes = self.read_level_sizes(pred_instances, num_level_priors, len(priors))
        if len(level_sizes) != len(self.regress_ranges):
            self.fail(f"there are {len(level_sizes)} levels and {len(self.regress_ranges)} regress_ranges")
        gts, labels = self.read_ground_truths(gt_instances)
        self.without_regions(gt_instances_ignore)
        assignment = self.run(scale_range, priors, gts, level_sizes, self.regress_ranges, self.radii)
        return to_assign_result(assignment, labels)
