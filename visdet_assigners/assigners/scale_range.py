"""ScaleRange: a point learns from the smallest box around it whose size belongs to the point's level.

Tian et al., FCOS, ICCV 2019, arXiv:1904.01355, section 3.2; "spatial and scale constraint" in the ATSS paper, Zhang et
al., CVPR 2020, arXiv:1912.02424.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.dense import DenseAssigner, DenseCommon
from visdet_assigners.assigners.forms import TRUTHS, Names
from visdet_assigners.assignment import NEGATIVE, Assignment, all_negative
from visdet_assigners.functional.boxes import border_distance, box_area, box_center
from visdet_assigners.functional.overlaps import near_blocks
from visdet_assigners.inputs import Inputs
from visdet_assigners.registry import register

RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, float("inf")))
"""FCOS's own, for strides 8 to 128."""


@checked(priors="boxes", gts="truths", level_sizes="levels")
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
    if len(ranges) != len(level_sizes) or len(level_sizes if radii is None else radii) != len(level_sizes):
        raise ValueError(f"scale_range: there are {len(level_sizes)} levels and {len(ranges)} ranges; give one each")
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
class ScaleRangeAssigner(DenseAssigner):
    """Assign points, or anchors by their centres, as FCOS does: inside a box, on the level of its size.

    With it, FCOS's rule serves heads with anchors too, and other assigners serve FCOS (``AssignedFCOSHead``).

    Reads ``priors`` (N, 4) xyxy, of which further columns are not used, and the level sizes, or ``level_ids`` (N,) of
    the predictions, ascending from 0.  Result: ``max_overlaps`` None.

    Args:
        regress_ranges: (least, greatest) distance to the farthest border for each level, pixels.
        center_sampling: take only what lies within ``center_sample_radius`` strides of the centre of the box.
        center_sample_radius: in strides.
        strides: of each level, pixels; for ``center_sampling``.
        **common: see ``DenseAssigner``.

    The same as the targets of mmdet's FCOSHead, to the last bit.

    Example:
        >>> from types import SimpleNamespace as Instances
        >>> assigner = ScaleRangeAssigner(regress_ranges=[(-1, 12), (12, 99)])
        >>> pred = Instances(priors=torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [0., 0., 16., 16.]]))
        >>> gt = Instances(bboxes=torch.tensor([[0., 0., 15., 15.]]), labels=torch.tensor([5]))
        >>> assigner.assign(pred, gt, num_level_priors=[2, 1]).gt_inds
        tensor([1, 1, 0])
    """

    levels: ClassVar[Literal["needed", "optional", "unused"]] = "needed"
    mmdet2: ClassVar[Names] = ("bboxes", "num_level_bboxes", *TRUTHS)
    covers_inside: ClassVar[bool] = True

    def __init__(
        self,
        regress_ranges: Sequence[tuple[float, float]] = RANGES,
        center_sampling: bool = False,
        center_sample_radius: float = 1.5,
        strides: Sequence[float] = (8, 16, 32, 64, 128),
        **common: Unpack[DenseCommon],
    ) -> None:
        super().__init__(**common)
        if center_sampling and len(strides) != len(regress_ranges):
            self.fail(
                f"there are {len(strides)} strides and {len(regress_ranges)} regress_ranges; give one of each a level"
            )
        for least, greatest in regress_ranges:
            self.number_of("regress_ranges", least, finite=False)
            self.number_of("regress_ranges", greatest, finite=False)
        self.regress_ranges = regress_ranges
        self.radii = None
        if center_sampling:
            radius = self.number_of("center_sample_radius", center_sample_radius, least=0)
            self.radii = [radius * stride for stride in strides]

    def read(self, *args: Any, **options: Any) -> Inputs:
        """As for every dense assigner; there are as many levels as ranges."""
        image = super().read(*args, **options)
        levels = len(image.level_sizes or ())
        if levels != len(self.regress_ranges):
            image.fail(f"there are {levels} levels and {len(self.regress_ranges)} regress_ranges")
        return image

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image."""
        priors = image.fields["priors"]
        return self.run(scale_range, priors, image.gts, image.level_sizes, self.regress_ranges, self.radii)
