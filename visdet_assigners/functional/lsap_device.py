"""The linear sum assignment problem on the device that the costs lie on, by torch-linear-assignment where installed.

That package (https://pypi.org/project/torch-linear-assignment, 0.1 or newer) runs scipy's algorithm in scipy's order, a
program for each problem, so that it finds scipy's pairs, ties included.  It pays for many problems at once.  What it is
given here is made so that the pairs are those of `lsap.solve_one`: numbers in float64, padding that changes nothing,
and pairs that may not be matched as dear as there.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visdet_assigners.functional.blocks import bucket, split, static_shapes

MANY = 50
"""Problems from which on a device solves them sooner than scipy on the host (A100: 208 of 300 x 100 in 1.3 ms against
71 ms); below, its one thread for each is slower."""
CAPABILITY = (8, 0)
"""Of a GPU from which on the package's own kernel works; on others it would copy to the host."""
MATRICES = 5
"""Matrices of float64 of the size of a problem that are there at once."""

Solver = Callable[[Tensor], Tensor]
"""Takes (B, N, M) finite costs and gives (B, N) int64 columns, -1 where a row has none."""


_failed = False


@functools.cache
def installed() -> Solver | None:
    """The package's function, None where it is not installed."""
    try:
        return importlib.import_module("torch_linear_assignment").batch_linear_assignment
    except ImportError:
        return None


def solves(device: torch.device) -> bool:
    """Whether the package has a kernel for a device; the CPU stands in for one where shapes may not depend on data."""
    if device.type != "cuda":
        return device.type == "cpu" and static_shapes(device)
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= CAPABILITY


def solver_for(costs: Sequence[Tensor], counts: Sequence[Sequence[int]]) -> Solver | None:
    """What solves these batches where they are; None where scipy on the host does it better or alone.

    Args:
        costs: batches (B_i, N_i, M_i), at least one.
        counts: of each problem of each batch, how many columns in front count.

    Padding changes nothing only while there are more rows than columns: then scipy serves column after column, and what
    comes last takes rows that nobody has.  Otherwise it serves rows, and padding would be among their choices.
    """
    if _failed or sum(map(len, counts)) < MANY or not solves(costs[0].device):
        return None
    if any(cost.shape[1] <= max(own, default=0) for cost, own in zip(costs, counts)):
        return None
    return installed()


def columns_on_device(
    solver: Solver, costs: Sequence[Tensor], counts: Sequence[Sequence[int]], never: Sequence[Tensor | None]
) -> list[Tensor] | None:
    """The column of each row, (B_i, N_i) int64 for each batch, -1 where it has none.

    Nothing here synchronises with the device; the package does, twice a block, to check what it is given and has found.

    Where the package fails, a warning says so once, it is not asked again in this process, and None is returned.

    Args:
        solver: of the package.
        costs: as in `lsap.matched_columns`, and so are the other two; may be NaN or infinite.
        counts: see there.
        never: see there, for every batch.
    """
    global _failed
    try:
        return [_of_batch(solver, *batch) for batch in zip(costs, counts, never)]
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # of a compiler, a driver, or the package: whatever it is, scipy is there
        _failed = True
        warnings.warn(f"torch_linear_assignment failed, scipy goes on instead: {error}", stacklevel=2)
        return None


def _of_batch(solver: Solver, cost: Tensor, counts: Sequence[int], never: Tensor | None) -> Tensor:
    """The columns of the rows of one batch, (B, N) int64, in blocks of problems that fit the memory budget."""
    num_problems, num_rows, _ = cost.shape
    most = max(counts, default=0)
    found = torch.full((num_problems, num_rows), -1, dtype=torch.long, device=cost.device)
    if most == 0:
        return found
    # A kernel is made for each shape, so that there are few; more rows than columns must be left.
    width = min(bucket(most), num_rows - 1)
    cost = F.pad(cost.detach()[..., :width].double(), (0, max(0, width - cost.shape[-1])))  # (B, N, width)
    own = torch.tensor(counts).to(cost.device, non_blocking=True)[:, None]  # (B, 1)
    for block in split(num_problems, MATRICES * 8 * num_rows * width, cost.device):
        marks = None if never is None else never[block]
        found[block] = _of_block(solver, cost[block], own[block], marks)
    return found


def _of_block(solver: Solver, cost: Tensor, counts: Tensor, never: Tensor | None) -> Tensor:
    """The columns of the rows of problems (B, N, M) in float64, of which (B, 1) columns count."""
    num_rows, width = cost.shape[1:]
    real = (torch.arange(width, device=cost.device) < counts)[:, None]  # (B, 1, M)
    allowed = cost.isfinite() & real
    if never is not None:
        allowed &= ~never[..., None]
    # As in `lsap.solve_one`: dearer than any other choice of finite pairs could be cheaper.
    high = cost.masked_fill(~allowed, -torch.inf).amax(dim=(1, 2))
    low = cost.masked_fill(~allowed, torch.inf).amin(dim=(1, 2))
    smaller = counts[:, 0].clamp(max=num_rows)
    dear = torch.where(high >= low, high + (high - low + 1) * smaller, 1.0)[:, None, None]
    # Padding costs the same everywhere, so it comes last and takes rows that nobody has.
    column = solver(torch.where(allowed, cost, dear).masked_fill(~real, 0.0))  # (B, N)
    chosen = column.clamp(min=0)[..., None]
    return column.where((column >= 0) & allowed.gather(-1, chosen)[..., 0], -1)
