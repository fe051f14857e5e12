"""ApproxMaxIoU: a location overlaps an object as well as the best of its approximating boxes.

Wang et al., Guided Anchoring, CVPR 2019, arXiv:1901.03278, section 3.5; Wang et al., SABL, ECCV 2020, arXiv:1912.04260.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners.max_iou import MaxIoUAssigner
from visdet_assigners.assignment import AssignResult
from visdet_assigners.registry import register


@register
class ApproxMaxIoUAssigner(MaxIoUAssigner):
    """Assign locations by the best IoU of their approximating boxes: SABL-RetinaNet, Guided Anchoring.

    The constructor is that of ``MaxIoUAssigner``.  Ignore regions are compared with the squares, not with the
    approximating boxes.

    Example:
        >>> from types import SimpleNamespace as Instances
        >>> squares = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.]])
        >>> wide = squares + torch.tensor([-4., 2., 4., -2.])
        >>> pred = Instances(priors=squares, approxs=torch.stack([squares, wide], dim=1))
        >>> gt = Instances(bboxes=torch.tensor([[4., 2., 20., 6.]]), labels=torch.tensor([1]))
        >>> ApproxMaxIoUAssigner(0.5, 0.4).assign(pred, gt).max_overlaps
        tensor([0.3333, 1.0000])
    """

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
        """Assign the locations of one image.

        Args:
            pred_instances: with ``priors`` (N, 4) xyxy, the squares, and ``approxs`` (N, A, 4) xyxy; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: with ``bboxes`` (R, 4), or None.
            num_level_priors: accepted so that assigners can be exchanged; not used.
            img_meta: accepted for the same reason; not used.

        Returns:
            AssignResult whose ``max_overlaps`` (N,) is the best IoU of each location, -1 where ignored.

        Raises:
            ValueError: a field is missing or has the wrong shape, or on CPU is not finite.
        """
        squares = self.read(pred_instances, "pred_instances", "priors", columns=4)
        approxs = self.read(pred_instances, "pred_instances", "approxs")
        if approxs.ndim != 3 or approxs.shape[0] != len(squares) or approxs.shape[2] != 4:
            self.fail(f"pred_instances.approxs must have shape ({len(squares)}, A, 4), got {tuple(approxs.shape)}")
        return self.assign_candidates(squares, approxs, gt_instances, gt_instances_ignore)

    def candidate_overlaps(self, candidates: Tensor, gts: Tensor) -> Tensor:
        """Best overlaps (N, M) among the A boxes of each location: (N, A, 4), (M, 4) xyxy -> (N, M)."""
        if candidates.numel() == 0:
            return gts.new_zeros(len(candidates), len(gts))
        each = self.overlaps(candidates.flatten(0, 1), gts)  # (N * A, M)
        return each.unflatten(0, candidates.shape[:2]).amax(dim=1)
