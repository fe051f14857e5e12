"""Random shifts of boxes that stand more than once (V3Det, Wang et al., ICCV 2023, arXiv:2304.03752)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def spread_repeated_boxes(
    boxes: Tensor, calculator: Callable[[Tensor, Tensor], Tensor], iou_thr: float = 0.97, perm_range: float = 0.01
) -> Tensor:
    """Move boxes that stand more than once a little apart, so that each can be some prior's best.

    Every coordinate is multiplied by a number drawn from 1 - ``perm_range`` to 1 + ``perm_range``; a draw that inverts
    a box or falls below ``iou_thr`` is drawn again, five times at most, from a narrower range.

    Args:
        boxes: (M, 4) xyxy.
        calculator: pairwise overlaps.
        iou_thr: least IoU with the original box of the first draw; 0.97 in later draws, as in mmdet.
        perm_range: half width of the factors.

    Returns:
        (M, 4), a copy.

    The draws come from torch's global generator in mmdet's order, so that the same seed gives the same boxes.  This is
    the one place that loops over boxes: how many are drawn depends on each outcome.
    """
    boxes = boxes.clone()
    for box in boxes.unique(dim=0):
        same = (boxes == box).all(dim=1)
        if int(same.sum()) != 1:
            boxes[same] = _draw_around(boxes[same], calculator, iou_thr, perm_range)
    return boxes


def _draw_around(
    boxes: Tensor, calculator: Callable[[Tensor, Tensor], Tensor], iou_thr: float, perm_range: float
) -> Tensor:
    original = boxes.unique(dim=0)
    drawn = boxes
    for attempt in range(6):
        drawn = boxes * torch.empty_like(boxes).uniform_(1 - perm_range, 1 + perm_range)
        upright = (drawn[:, 2:] > drawn[:, :2]).all()
        if upright and not (calculator(original, drawn) < iou_thr).any():
            break
        iou_thr, perm_range = 0.97, max(perm_range - attempt * 0.001, 1e-3)
    return drawn
