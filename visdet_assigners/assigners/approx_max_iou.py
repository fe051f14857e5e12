"""ApproxMaxIoU: a location overlaps an object as well as the best of its approximating boxes.

Wang et al., Guided Anchoring, CVPR 2019, arXiv:1901.03278, section 3.5; Wang et al., SABL, ECCV 2020, arXiv:1912.04260.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from visdet_assigners.assigners.max_iou import MaxIoUAssigner
from visdet_assigners.registry import register


@register
class ApproxMaxIoUAssigner(MaxIoUAssigner):
    """Assign locations by the best IoU of their approximating boxes: SABL-RetinaNet, Guided Anchoring.

    The constructor is that of ``MaxIoUAssigner``.  Ignore regions are compared with the squares, not with the
    approximating boxes.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace as Instances
        >>> squares = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.]])
        >>> wide = squares + torch.tensor([-4., 2., 4., -2.])
        >>> pred = Instances(priors=squares, approxs=torch.stack([squares, wide], dim=1))
        >>> gt = Instances(bboxes=torch.tensor([[4., 2., 20., 6.]]), labels=torch.tensor([1]))
        >>> ApproxMaxIoUAssigner(0.5, 0.4).assign(pred, gt).max_overlaps
        tensor([0.3333, 1.0000])
    """

    def read_candidates(self, pred_instances: Any) -> tuple[Tensor, Tensor]:
        """The squares ``priors`` (N, 4) xyxy, and the ``approxs`` (N, A, 4) that each stands for; N may be 0."""
        squares, approxs = self.read_predictions(pred_instances, priors="boxes", approxs="groups")
        return squares, approxs
