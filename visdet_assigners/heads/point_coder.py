"""Boxes as distances from the centre of an anchor to the four borders, which can't be negative."""

from __future__ import annotations

from typing import Any

from mmdet.models.task_modules.coders import TBLRBBoxCoder
from torch import Tensor

from visdet_assigners.registry import TASK_UTILS

SMALLEST = 1e-6
"""The smallest distance that is encoded, in units of the coder."""


@TASK_UTILS.register_module()
class PointBBoxCoder(TBLRBBoxCoder):
    """mmdet's ``TBLRBBoxCoder`` with the exponential of FCOS (https://arxiv.org/abs/1904.01355, equation 1 and below).

    A head that predicts distances as they are, as ATSSHead does, may predict negative ones.  Opposite borders of such a
    box change places; where all do, it has an area, but none that the enclosing box would contain, and the loss of GIoU
    has no lower bound any more: some trainings run away to minus infinity.  Exponentials are distances, whatever the
    head predicts.

    A config that names it needs ``custom_imports = dict(imports=["visdet_assigners.heads"])``.

    Args:
        normalizer: distance for a prediction of 0, in sides of the anchor; 0.5 gives the anchor itself.
        clip_border: whether boxes are clipped at the border of the image, where ``max_shape`` is given.

    Example:
        >>> import torch
        >>> anchors = torch.tensor([[0.0, 0.0, 32.0, 32.0]])
        >>> coder = PointBBoxCoder(normalizer=0.5)
        >>> coder.decode(anchors, torch.zeros(1, 4))
        tensor([[ 0.,  0., 32., 32.]])
    """

    def __init__(self, normalizer: float = 0.5, clip_border: bool = True) -> None:
        super().__init__(normalizer=normalizer, clip_border=clip_border)

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Logarithms of the distances of borders from centres.

        Args:
            bboxes: (n, 4) xyxy, the anchors.
            gt_bboxes: (n, 4) xyxy; a border on the wrong side of the centre counts as being at it.

        Returns:
            (n, 4), of the top, bottom, left and right border.
        """
        distances: Tensor = super().encode(bboxes, gt_bboxes)
        return distances.clamp(min=SMALLEST).log()

    def decode(self, bboxes: Tensor, pred_bboxes: Tensor, max_shape: Any = None) -> Tensor:
        """Boxes of predictions.

        Args:
            bboxes: (n, 4) xyxy or (B, n, 4), the anchors.
            pred_bboxes: the same shape, what `encode` gives.
            max_shape: height and width of the image, or of each.

        Returns:
            The same shape, xyxy, x1 <= x2 and y1 <= y2.
        """
        boxes: Tensor = super().decode(bboxes, pred_bboxes.exp(), max_shape)
        return boxes
