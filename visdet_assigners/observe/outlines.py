"""Boxes that aren't upright, as records keep them: the corners, and the upright boxes around these."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visdet_assigners.functional.geometry import form_of, is_upright

ROTATED, QUADRILATERAL = 5, 8
"""Columns of (centre x, y, width, height, angle) and of four corners."""


def corners_of(boxes: Any, columns: int | None = None) -> Tensor | None:
    """Corners of rotated or quadrilateral boxes, in order around each: (N, 4, 2); None of upright boxes and points.

    Args:
        boxes: (N, D), a tensor or mmdet's ``BaseBoxes``; or None.
        columns: those of the ground truths, None if these are the boxes.  Rows of a tensor with a fifth column are
            rotated boxes where the ground truths are, too, and boxes with a score otherwise.
    """
    form, rows = form_of(boxes), getattr(boxes, "tensor", boxes)
    if rows is None or rows.ndim != 2 or (form is not None and is_upright(form)):
        return None
    count = rows.shape[1]
    if form is None and columns is not None and count != columns:
        return None
    rows = rows.detach().float()
    if count == QUADRILATERAL:
        return rows.view(-1, 4, 2)
    return rotated_corners(rows) if count == ROTATED else None


def rotated_corners(boxes: Tensor) -> Tensor:
    """Corners of boxes (N, 5): centre x and y, width, height, and the angle of the width in radians, clockwise.

    Returns:
        (N, 4, 2).

    Example:
        >>> rotated_corners(torch.tensor([[4.0, 3.0, 4.0, 2.0, 0.0]]))[0].tolist()
        [[2.0, 2.0], [6.0, 2.0], [6.0, 4.0], [2.0, 4.0]]
    """
    x, y, width, height, angle = boxes.unbind(1)
    along = torch.stack([angle.cos(), angle.sin()], dim=1) * width[:, None] / 2  # (N, 2)
    across = torch.stack([-angle.sin(), angle.cos()], dim=1) * height[:, None] / 2
    center = torch.stack([x, y], dim=1)
    return torch.stack(
        [center - along - across, center + along - across, center + along + across, center - along + across], dim=1
    )


def around(corners: Tensor) -> Tensor:
    """The upright boxes around corners: (N, 4, 2) -> (N, 4) xyxy."""
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)


def are_inside(points: Tensor, corners: Tensor) -> Tensor:
    """Which points lie inside convex outlines, not on them: (P, 2), (M, 4, 2) -> (P, M) bool."""
    start, end = corners[None], corners.roll(-1, dims=1)[None]  # (1, M, 4, 2)
    side, offset = end - start, points[:, None, None] - start
    turn = side[..., 0] * offset[..., 1] - side[..., 1] * offset[..., 0]  # (P, M, 4), of one sign inside
    return (turn > 0).all(dim=-1) | (turn < 0).all(dim=-1)


def sides(corners: Tensor) -> Tensor:
    """Lengths of the first two sides: (N, 4, 2) -> (N, 2)."""
    return (corners[:, 1:3] - corners[:, :2]).norm(dim=-1)
