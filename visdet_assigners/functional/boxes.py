"""Geometry of axis-aligned boxes: areas, centres, pairwise overlaps, points inside boxes.

Every pairwise result is (A, B): first argument x second argument.  Columns are worked on apart, so that no (A, B, 2)
tensor is made; each entry takes the arithmetic steps of ``mmdet.structures.bbox.bbox_overlaps`` in the same order
and is equal to it to the last bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.tensors import cat_or_only

EPS = 1e-6
FAR = 2.0**20
"""Pixels from 0 from which on float32 tells no more than eighths of a pixel."""
INSIDE = 0.01
"""Pixels by which a centre must lie inside a box, in ATSS and what is compared with it."""


def box_area(boxes: Tensor) -> Tensor:
    """Area of each box: (..., 4) xyxy -> (...), in square units of the input."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_center(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (x, y) of boxes: (..., 4) xyxy -> two tensors (...)."""
    return (boxes[..., 0] + boxes[..., 2]) / 2.0, (boxes[..., 1] + boxes[..., 3]) / 2.0


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size: (..., 4) xyxy -> (..., 4) cxcywh."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcywh_to_xyxy(boxes: Tensor, size: tuple[float, float] = (1, 1)) -> Tensor:
    """Centre and size to corners: (..., 4) cxcywh -> (..., 4) xyxy, times the height and width of an image."""
    middle, half = boxes[..., :2], 0.5 * boxes[..., 2:]
    x1, y1, x2, y2 = torch.cat([middle - half, middle + half], dim=-1).unbind(-1)
    height, width = size
    return torch.stack([x1 * width, y1 * height, x2 * width, y2 * height], dim=-1)


def common_origin(boxes: Tensor) -> Tensor:
    """What to take off coordinates so that centres keep their digits where all boxes are far from 0, as in maps.

    Args:
        boxes: (M, 4) xyxy, M at least 1.

    Returns:
        (4,), 0 along an axis on which a box lies within `FAR` pixels.
    """
    corner = boxes[0, :2]
    return corner.where(boxes.abs().amin(dim=0)[:2] >= FAR, 0.0).repeat(2)


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
    # Each coordinate in one piece, so that the arithmetic runs along it; in place, so that few matrices are made.
    columns1, columns2 = boxes1.mT.contiguous(), boxes2.mT.contiguous()  # (..., 4, A), (..., 4, B)
    area1, area2 = (_area_of_columns(columns) for columns in (columns1, columns2))  # (..., A), (..., B)
    if not aligned:
        columns1, columns2 = columns1[..., None], columns2[..., None, :]
        area1, area2 = area1[..., None], area2[..., None, :]
    first, second = (columns.unbind(-2 if aligned else -3) for columns in (columns1, columns2))  # x1, y1, x2, y2

    def extent(axis: int, outer: bool) -> Tensor:
        low, high = (torch.min, torch.max) if outer else (torch.max, torch.min)
        return high(first[axis + 2], second[axis + 2]).sub_(low(first[axis], second[axis])).clamp_(min=0)

    overlap = extent(0, outer=False).mul_(extent(1, outer=False))
    union = area1 if mode == "iof" else (area1 + area2).sub_(overlap)
    iou = overlap.div_(union.clamp_(min=eps))
    if mode != "giou":
        return iou
    enclosing = extent(0, outer=True).mul_(extent(1, outer=True)).clamp_(min=eps)
    return iou.sub_((enclosing - union).div_(enclosing))


def _area_of_columns(columns: Tensor) -> Tensor:
    """Areas of boxes given as columns: (..., 4, N) -> (..., N)."""
    width, height = (columns[..., 2:, :] - columns[..., :2, :]).unbind(-2)
    return width * height


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Pairwise intersection over union: (A, 4), (B, 4) xyxy -> (A, B)."""
    return box_overlaps(boxes1, boxes2)


def center_distance(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Euclidean distance of centres: (..., A, 4), (..., B, 4) xyxy -> (..., A, B), in the unit of the boxes.

    Written as a subtraction: above 25 rows ``torch.cdist`` is a matrix product, whose rounding changes which priors
    are nearest.
    """
    (x1, y1), (x2, y2) = box_center(boxes1), box_center(boxes2)
    return length(x1[..., None] - x2[..., None, :], y1[..., None] - y2[..., None, :])


def length(across: Tensor, down: Tensor) -> Tensor:
    """Euclidean length of differences, (...) each, which are overwritten."""
    return across.pow_(2).add_(down.pow_(2)).sqrt_()


def l1_distance(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Sum of the absolute differences of coordinates: (..., A, 4), (..., B, 4) of any form -> (..., A, B).

    On a CPU by ``torch.cdist``, which is faster there; on a device, where its kernel keeps most of a block of threads
    idle, by subtraction, in blocks of the first boxes that fit the memory budget.  On a CPU both ways are equal to the
    last bit.

    Example:
        >>> l1_distance(torch.tensor([[0., 0., 4., 4.], [1., 0., 4., 8.]]), torch.tensor([[0., 1., 4., 4.]]))
        tensor([[1.],
                [6.]])
    """
    if not static_shapes(boxes1.device):
        return torch.cdist(boxes1, boxes2, p=1)
    pairs_of_row = math.prod(boxes1.shape[:-2]) * boxes2.shape[-2]
    # Four differences of a pair, and their sum.
    blocks = split(boxes1.shape[-2], 5 * boxes1.element_size() * pairs_of_row, boxes1.device)
    parts = [(boxes1[..., block, None, :] - boxes2[..., None, :, :]).abs_().sum(dim=-1) for block in blocks]
    return cat_or_only(parts, dim=-2) if parts else boxes1.new_zeros(*boxes1.shape[:-1], boxes2.shape[-2])


def border_distance(x: Tensor, y: Tensor, boxes: Tensor) -> Tensor:
    """Signed distance of points to the nearest border of boxes, positive inside.

    Args:
        x: (...), horizontal coordinates, such that they and the boxes broadcast; ``y`` alike.
        y: vertical coordinates.
        boxes: (..., 4) xyxy: (M, 4) for x of (N, 1), or (M, 1, 4) for x of (N,).

    Returns:
        (...): the smallest of the distances to the left, top, right and bottom border.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.min(torch.min(x - x1, x2 - x), torch.min(y - y1, y2 - y))


def with_least_sides(boxes: Tensor, least: float, counted: float) -> Tensor:
    """Boxes in which a side below ``least`` pixels is ``counted`` long, about the same centre: (M, 4) -> (M, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    half = torch.where(sides < least, counted, sides) / 2
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    small = (sides < least).repeat(1, 2)
    return torch.where(small, torch.cat([center - half, center + half], dim=1), boxes)
