"""What a rule asks of ground truths and priors besides their overlaps: centres, areas, and which points lie inside.

Of upright boxes it is computed here.  Of others, as rotated ones, their own class is asked, mmdet's ``BaseBoxes`` or
any like it; tensors of their rows are all that is handed about.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visdet_assigners.functional.boxes import border_distance, box_area, box_center

PAIR = 64
"""Bytes that a pair of a point and a box may take while the class of the box is asked about it."""


class Geometry(NamedTuple):
    """What is known of boxes.

    Attributes:
        centers: (..., D) boxes -> x and y, (...) each.
        areas: (..., D) boxes -> (...).
        inside: x and y of points, (N,) each, boxes (M, D), a margin -> (M, N) bool, which points lie inside which
            boxes, by more than the margin in pixels.  Boxes of others have a margin of their own.
        inside_own: x and y of points, (..., M) each, boxes (M, D), a margin -> (..., M) bool, which points lie inside
            the box of their column.
    """

    centers: Callable[[Tensor], tuple[Tensor, Tensor]]
    areas: Callable[[Tensor], Tensor]
    inside: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    inside_own: Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _inside(x: Tensor, y: Tensor, boxes: Tensor, margin: float) -> Tensor:
    return border_distance(x, y, boxes[:, None]) > margin


def _inside_own(x: Tensor, y: Tensor, boxes: Tensor, margin: float) -> Tensor:
    return border_distance(x, y, boxes) > margin


UPRIGHT = Geometry(box_center, box_area, _inside, _inside_own)
"""Upright boxes, (..., 4) xyxy."""


def form_of(boxes: Any) -> Any:
    """The class that boxes came in, where it can be made of rows again, as mmdet's ``BaseBoxes``; None for others."""
    return type(boxes) if hasattr(boxes, "tensor") and hasattr(type(boxes), "box_dim") else None


def is_upright(form: Any) -> bool:
    """Whether boxes of this form have xyxy columns: tensors (None), and mmdet's ``HorizontalBoxes``."""
    return form is None or any(base.__name__ == "HorizontalBoxes" for base in form.__mro__)


def in_form(form: Any, rows: Tensor) -> Any:
    """Rows as the boxes that they came as; tensors (None) as they are."""
    return rows if form is None else form(rows, clone=False)


@functools.cache
def geometry_of(form: Any) -> Geometry:
    """What boxes of a class say of themselves.

    Args:
        form: a class that is made of (M, D) rows and has ``centers`` (M, 2), ``areas`` (M,) and ``find_inside_points``,
            as mmdet's ``BaseBoxes`` have them.
    """

    def centers(boxes: Tensor) -> tuple[Tensor, Tensor]:
        x, y = in_form(form, boxes).centers.unbind(-1)
        return x, y

    def areas(boxes: Tensor) -> Tensor:
        return in_form(form, boxes).areas

    def inside(x: Tensor, y: Tensor, boxes: Tensor, margin: float) -> Tensor:
        return in_form(form, boxes).find_inside_points(torch.stack([x, y], dim=-1)).T

    def inside_own(x: Tensor, y: Tensor, boxes: Tensor, margin: float) -> Tensor:
        points = torch.stack([x, y], dim=-1)  # (..., M, 2)
        own = boxes.expand(*points.shape[:-1], boxes.shape[-1]).reshape(-1, boxes.shape[-1])
        found = in_form(form, own).find_inside_points(points.reshape(-1, 2), is_aligned=True)
        return found.view(points.shape[:-1])

    return Geometry(centers, areas, inside, inside_own)
