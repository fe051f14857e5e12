"""Points that stand on a grid, as those of a feature map do: looked at by columns and rows instead of one by one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """Points row by row: the one of row r and column c is number r * w + c.

    Attributes:
        columns: (w,) x of each column.
        rows: (h,) y of each row.
    """

    columns: Tensor
    rows: Tensor


def grid_of(x: Tensor, y: Tensor) -> Grid | None:
    """The grid that points (n,), (n,) stand on, None if they stand on none; n at least 1, on a CPU alone.

    Example:
        >>> grid_of(torch.tensor([1., 3., 5., 1., 3., 5.]), torch.tensor([1., 1., 1., 3., 3., 3.])).columns
        tensor([1., 3., 5.])
    """
    width = int((y == y[0]).sum())
    if len(y) % width:
        return None
    columns, rows = x[:width].contiguous(), y[::width].contiguous()
    on_grid = (x.view(-1, width) == columns).all() and (y.view(-1, width) == rows[:, None]).all()
    return Grid(columns, rows) if on_grid else None


def crossings(grid: Grid, in_row: Tensor, in_column: Tensor) -> tuple[Tensor, Tensor]:
    """All points that stand in a marked row and a marked column, on a CPU alone: their number depends on the data.

    Args:
        grid: of h rows and w columns.
        in_row: (M, h) bool, marks of each of M.
        in_column: (M, w) bool.

    Returns:
        Of P pairs which of the M, (P,) int64, and the number of the point, (P,) int64; both ascending.

    Example:
        >>> grid = Grid(torch.tensor([1., 3., 5.]), torch.tensor([1., 3.]))
        >>> crossings(grid, torch.tensor([[False, True]]), torch.tensor([[True, True, False]]))
        (tensor([0, 0]), tensor([3, 4]))
    """
    owner, row = in_row.nonzero().unbind(1)  # (R,) each
    _, column = in_column.nonzero().unbind(1)
    widths = in_column.sum(dim=1)  # (M,)
    starts = widths.cumsum(0) - widths
    repeats = widths[owner]  # (R,)
    which = torch.arange(len(owner)).repeat_interleave(repeats)  # (P,)
    place = torch.arange(len(which)) - (repeats.cumsum(0) - repeats)[which]
    owner = owner[which]
    return owner, row[which] * len(grid.columns) + column[starts[owner] + place]
