"""FCOS's head with an assigner: its points stand for boxes, and any rule on boxes says what they learn.

Tian et al., FCOS, ICCV 2019, arXiv:1904.01355; with ATSS it is the "full" version of Zhang et al., CVPR 2020,
arXiv:1912.02424, section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from visdet_assigners.functional.boxes import border_distance
from visdet_assigners.registry import MODELS

OWN_RULE = ("regress_ranges", "center_sampling", "center_sample_radius")
"""Options of ``FCOSHead`` by which it assigns for itself."""


@MODELS.register_module()
class AssignedFCOSHead(FCOSHead):
    """``FCOSHead`` whose points learn from the objects that ``train_cfg.assigner`` gives to squares around them.

    Weights, losses and predictions are those of ``FCOSHead``.  With ``ScaleRangeAssigner`` it is FCOS as published,
    with its ``center_sampling`` the "lite" version, with ``ATSSAssigner`` the "full" one.

    Args:
        *args: as in ``FCOSHead``.
        square_scale: side of the squares in strides.
        **kwargs: as in ``FCOSHead``, without the options of its own rule.

    FCOS's loss has no weights and a point no way to regress to an object outside of which it lies: points that the
    assigner ignores, or makes positive for such an object, count as background.

    Raises:
        ValueError: there is an option of FCOS's own rule, or a ``train_cfg`` without assigner.
    """

    def __init__(self, *args: Any, square_scale: float = 8, **kwargs: Any) -> None:
        unused = [name for name in OWN_RULE if name in kwargs]
        if unused:
            raise ValueError(f"AssignedFCOSHead: the assigner decides, so {', '.join(unused)} would have no effect; "
                             "give them to visdet_assigners.ScaleRangeAssigner")  # fmt: skip
        super().__init__(*args, **kwargs)
        self.regress_ranges = ((-1, float("inf")),) * len(self.strides)  # mmdet wants one for each level
        self.square_scale = square_scale
        if self.train_cfg:
            if "assigner" not in self.train_cfg:
                raise ValueError("AssignedFCOSHead: train_cfg has no assigner; use FCOSHead for FCOS's own rule")
            self.assigner = TASK_UTILS.build(self.train_cfg["assigner"])

    def _get_targets_single(
        self, gt_instances: Any, points: Tensor, regress_ranges: Tensor, num_points_per_lvl: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Targets of an image: (N,) labels, ``num_classes`` for background, and (N, 4) distances to the borders."""
        gts = get_box_tensor(gt_instances.bboxes)
        if len(gts) == 0:
            return gt_instances.labels.new_full((len(points),), self.num_classes), gts.new_zeros(len(points), 4)
        squares = squares_around(points, num_points_per_lvl, self.strides, self.square_scale)
        result = self.assigner.assign(
            pred_instances=InstanceData(priors=squares),
            gt_instances=gt_instances,
            num_level_priors=list(num_points_per_lvl),
        )
        own = gts[(result.gt_inds - 1).clamp(min=0)]  # (N, 4)
        positive = (result.gt_inds > 0) & (border_distance(points[:, 0], points[:, 1], own) > 0)
        labels = torch.where(positive, result.labels, self.num_classes)
        return labels, torch.cat([points - own[:, :2], own[:, 2:] - points], dim=1)


def squares_around(points: Tensor, level_sizes: Sequence[int], strides: Sequence[float], scale: float) -> Tensor:
    """Squares around points, their sides in strides: (N, 2), levels one after another -> (N, 4) xyxy.

    Example:
        >>> squares_around(torch.tensor([[4., 4.]]), [1], [8], scale=2)
        tensor([[-4., -4., 12., 12.]])
    """
    halves = [points.new_full((size, 1), scale / 2 * stride) for size, stride in zip(level_sizes, strides)]
    half = torch.cat(halves)
    return torch.cat([points - half, points + half], dim=1)
