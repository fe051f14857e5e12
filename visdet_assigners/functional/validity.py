"""Which values may be assigned: quick tests without a look at single values, close looks that name the first bad one,
and taking bad rows out so that they are never matched.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal[
    "boxes", "groups", "predicted", "points", "strided", "scores", "probabilities", "masks", "flags", "numbers",
    "number_groups", "shapes",
]  # fmt: skip
"""What a field holds: upright boxes; groups of them, (N, A, 4); predicted boxes, which may be inverted; points with
their stride, or with one in x and one in y; scores; probabilities; masks, (N, ...); flags, (N,); any numbers, (N, D),
or groups of them, (N, A, D), as boxes that another package judges; shapes, (N, D), boxes that their own class knows."""

COLUMNS: dict[Kind, tuple[int, str]] = {
    "boxes": (4, "x1, y1, x2, y2"),
    "groups": (4, "x1, y1, x2, y2"),
    "predicted": (4, "x1, y1, x2, y2"),
    "points": (3, "x, y, stride"),
    "strided": (4, "x, y, stride in x, stride in y"),
    "scores": (1, "a class each"),
    "probabilities": (1, "a class each"),
    "numbers": (0, "a row each"),
    "number_groups": (0, "rows of each"),
    "shapes": (0, "a row each"),
}
"""The least number of columns, and what they hold; of boxes, what is behind them is left out."""
GROUPS = ("groups", "number_groups")
JUDGED: dict[Kind, Kind] = {"boxes": "numbers", "predicted": "numbers", "groups": "number_groups"}
"""What boxes are to an assigner whose calculator says nothing of them."""
UPRIGHT = ("boxes", "groups")
POINTS = ("points", "strided")
PLACES = (*UPRIGHT, "predicted", *POINTS)
LARGEST = 1e7
"""Pixels beyond which no coordinate of a box may lie: float32 can't tell neighbouring pixels there."""
NOWHERE = 1e30
"""Where boxes go that are to match nothing: they have no area, and no distance to them is finite once squared."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a field.

    Attributes:
        text: what and where, in words.
        field: its name, as ``gt_instances.bboxes``.
        index: of the first bad entry or row.
        value: that entry or row.
    """

    text: str
    field: str
    index: tuple[int, ...] = ()
    value: Any = None


# -------------------------------------------------------------------------------------------- quick and close tests


def may_be_wrong(value: Tensor, kind: Kind) -> Tensor:
    """Whether something may be wrong with a field that isn't empty: () bool on its device, without synchronising."""
    if kind not in PLACES:
        doubt = ~value.sum().isfinite()  # a sum of finite entries may overflow, hence the close look
        if kind == "probabilities":
            low, high = value.aminmax()
            doubt = doubt | (low < 0) | (high > 1)
        return doubt
    low, high = value.aminmax()
    doubt = ~((low >= -LARGEST) & (high <= LARGEST))
    if kind in UPRIGHT:
        return doubt | ((value[..., 2:4] - value[..., :2]).amin() < 0)
    return doubt | (value[..., 2:].amin() <= 0) if kind in POINTS else doubt


def fault_in(value: Tensor, kind: Kind, name: str) -> Fault | None:
    """What is wrong with a field, None where nothing is; synchronises with a device."""
    bad = ~value.isfinite()
    if bad.any():
        rows = bad.flatten(1).any(dim=1) if bad.ndim > 1 else bad
        diverged = "gt" not in name and len(rows) > 1 and bool(rows.all())
        ending = "; all rows: training has diverged" if diverged else ""
        first = value.isnan() if value.isnan().any() else bad
        return _entry(value, first, name, f"; not finite: {int(bad.sum())} of {value.numel()} entries{ending}")
    if kind in PLACES and (value.abs() > LARGEST).any():
        return _entry(value, value.abs() > LARGEST, name, f", beyond {LARGEST:.0e} pixels")
    if kind in UPRIGHT and (value[..., 2:4] < value[..., :2]).any():
        ending = ", not x1 <= x2, y1 <= y2, as two corners have"
        return _row(value, (value[..., 2:4] < value[..., :2]).any(dim=-1), name, ending)
    if kind in POINTS and (value[:, 2:] <= 0).any():
        return _row(value, (value[:, 2:] <= 0).any(dim=1), name, "; the stride, behind x and y, must be positive")
    if kind == "probabilities" and ((value < 0) | (value > 1)).any():
        return _entry(value, (value < 0) | (value > 1), name, "; probabilities are expected, not logits")
    return None


def _entry(value: Tensor, bad: Tensor, name: str, ending: str) -> Fault:
    index = tuple(bad.nonzero()[0].tolist())
    entry = value[index].item()
    return Fault(f"{name}{list(index)} is {entry:.6g}{ending}", name, index, entry)


def _row(value: Tensor, bad: Tensor, name: str, ending: str) -> Fault:
    index = tuple(bad.nonzero()[0].tolist())
    row = [round(entry, 4) for entry in value[index].tolist()]
    count = f"; {int(bad.sum())} of {bad.numel()}" if bad.sum() > 1 else ""
    return Fault(f"{name}{list(index)} is {row}{ending}{count}", name, index, row)


def labels_may_be_wrong(labels: Tensor, num_classes: int | None) -> Tensor:
    """Whether one of the labels, of which there is at least one, is no class: () bool; no upper end for None."""
    low, high = labels.aminmax()
    doubt = low < 0 if num_classes is None else (low < 0) | (high >= num_classes)
    return doubt | (labels != labels.floor()).any() if labels.is_floating_point() else doubt


def label_fault(labels: Tensor, num_classes: int | None, name: str) -> Fault | None:
    """Which label is no class from 0 to ``num_classes`` - 1; synchronises with a device."""
    reasons = [(labels < 0, "; classes are counted from 0"), (labels != labels.floor(), "; a whole number is expected")]
    if num_classes is not None:
        reasons.append((labels >= num_classes, f" but scores have {num_classes} classes; check num_classes"))
    return next((_entry(labels, bad, name, reason) for bad, reason in reasons if bad.any()), None)


# --------------------------------------------------------------------------------------------------------- replacing


def good_boxes(boxes: Tensor) -> Tensor:
    """Which ground truths nothing is wrong with: (M, 4) xyxy -> (M,) bool."""
    return (boxes.abs().amax(dim=1) <= LARGEST).logical_and_((boxes[:, 2:] - boxes[:, :2]).amin(dim=1) >= 0)


def good_rows(fields: Sequence[Tensor], kinds: Sequence[Kind]) -> Tensor:
    """Which rows are finite in all fields, and of points have a stride: (N, ...) each -> (N,) bool; flags are left out.

    Of numbers alone: boxes need not be upright to be compared with others.
    """
    sums = [value.flatten(1).sum(dim=1) for value, kind in zip(fields, kinds) if kind != "flags"]
    total = functools.reduce(torch.add, sums)
    good = (total - total) == 0
    if kinds[0] in POINTS:
        good &= fields[0][:, 2:].amin(dim=1) > 0
    return good


def drop_rows(value: Tensor, kind: Kind, good: Tensor, to: float) -> Tensor:
    """Drop the other rows in place of their shape: boxes and points move to ``to``, other numbers become 0, flags stay.

    Shapes become 0 but for their first two columns, which move to ``to``: they have no area, and their centre is there.

    Args:
        value: (N, ...), N at least 1.
        kind: of field.
        good: (N,) bool.
        to: `NOWHERE`, or less than 0 as much, so that predictions and ground truths don't meet there.
    """
    if kind == "flags":
        return value
    if kind == "shapes":
        moved = torch.cat([torch.full_like(value[:, :2], to), torch.zeros_like(value[:, 2:])], dim=1)
        return value.where(good[:, None], moved)
    if kind not in POINTS:
        return value.where(good.view(-1, *[1] * (value.ndim - 1)), to if kind in PLACES else 0.0)
    # A stride tells the level of a point: one that is no stride becomes the least that is one.
    stride = value[:, 2:]
    usable = (stride > 0) & (stride <= LARGEST)
    stride = stride.where(usable, stride.where(usable, LARGEST).amin())
    return torch.cat([value[:, :2].where(good[:, None], to), stride], dim=1)


def is_dropped(boxes: Tensor) -> Tensor:
    """Which boxes `drop_rows` has moved away: (..., 4) -> (...) bool."""
    return boxes[..., 0].abs() >= NOWHERE
