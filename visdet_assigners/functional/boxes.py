"""Geometry of axis-aligned boxes: areas, centres, pairwise overlaps, points inside boxes.

Every pairwise result is (A, B): first argument x second argument.  Columns are worked on apart, so that no (A, B, 2)
tensor is made; each entry takes the arithmetic steps of ``mmdet.structures.bbox.bbox_overlaps`` in the same order
and is equal to it to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-6


def box_area(boxes: Tensor) -> Tensor:
    """Area of each box: (..., 4) xyxy -> (...), in square units of the input."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_center(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (x, y) of boxes: (N, 4) xyxy -> two tensors (N,)."""
    return (boxes[:, 0] + boxes[:, 2]) / 2.0, (boxes[:, 1] + boxes[:, 3]) / 2.0


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size: (N, 4) xyxy -> (N, 4) cxcywh."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=-1)


def box_overlaps(boxes1: Tensor, boxes2: Tensor, mode: str = "iou", aligned: bool = False, eps: float = EPS) -> Tensor:
    """Overlap of boxes, pairwise or pair by pair.

    Args:
        boxes1: (A, 4) xyxy, or (..., A, 4) for a batch of images; A may be 0.
        boxes2: (B, 4) xyxy in the same unit, with the same leading dimensions; B may be 0.
        mode: "iou", "iof" (intersection over the area of ``boxes1``) or "giou" (Rezatofighi et al., CVPR 2019,
            arXiv:1902.09630).
        aligned: compare row i with row i; A must equal B.
        eps: lower bound of the denominators, so that boxes of no area give 0 instead of 0 / 0.

    Returns:
        (..., A, B), or (..., A) when ``aligned``, in the dtype of the boxes.

    Raises:
        ValueError: unknown mode, or ``aligned`` with A != B.

    Example:
        >>> a = torch.tensor([[0., 0., 10., 10.]])
        >>> b = torch.tensor([[0., 0., 10., 5.], [20., 20., 30., 30.]])
        >>> box_overlaps(a, b)
        tensor([[0.5000, 0.0000]])
        >>> box_overlaps(b[:1], a, mode="iof")
        tensor([[1.]])
    """
    if mode not in ("iou", "iof", "giou"):
        raise ValueError(f"mode is {mode!r}; choose 'iou', 'iof' or 'giou'")
    if aligned and boxes1.shape[:-1] != boxes2.shape[:-1]:
        counts = f"{boxes1.shape[-2]} and {boxes2.shape[-2]}"
        raise ValueError(f"aligned overlaps need as many boxes on both sides, got {counts}")
    first, second = boxes1, boxes2
    if not aligned:
        first, second = boxes1[..., :, None, :], boxes2[..., None, :, :]

    def extent(start: int, outer: bool) -> Tensor:
        low, high = (torch.min, torch.max) if outer else (torch.max, torch.min)
        end = high(first[..., start + 2], second[..., start + 2])
        return (end - low(first[..., start], second[..., start])).clamp(min=0)

    overlap = extent(0, outer=False) * extent(1, outer=False)
    union = box_area(first) if mode == "iof" else box_area(first) + box_area(second) - overlap
    union = union.clamp(min=eps)
    iou = overlap / union
    if mode != "giou":
        return iou
    enclosing = (extent(0, outer=True) * extent(1, outer=True)).clamp(min=eps)
    return iou - (enclosing - union) / enclosing


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Pairwise intersection over union: (A, 4), (B, 4) xyxy -> (A, B)."""
    return box_overlaps(boxes1, boxes2)


def center_distance(priors: Tensor, gts: Tensor) -> Tensor:
    """Euclidean distance of centres: (N, 4), (M, 4) xyxy -> (N, M), in the unit of the boxes.

    Written as a subtraction: above 25 rows ``torch.cdist`` is a matrix product, whose rounding changes which priors
    are nearest.
    """
    prior_x, prior_y = box_center(priors)
    gt_x, gt_y = box_center(gts)
    return ((prior_x[:, None] - gt_x).pow(2) + (prior_y[:, None] - gt_y).pow(2)).sqrt()


def border_distance(x: Tensor, y: Tensor, boxes: Tensor) -> Tensor:
    """Signed distance of points to the nearest border of boxes, positive inside.

    Args:
        x: (..., M) or (..., 1), horizontal coordinates; ``y`` alike.
        y: vertical coordinates.
        boxes: (M, 4) xyxy.

    Returns:
        (..., M): the smallest of the distances to the left, top, right and bottom border.
    """
    horizontal = torch.min(x - boxes[:, 0], boxes[:, 2] - x)
    vertical = torch.min(y - boxes[:, 1], boxes[:, 3] - y)
    return torch.min(horizontal, vertical)
