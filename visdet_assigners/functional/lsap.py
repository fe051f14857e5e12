"""The linear sum assignment problem, one or many at once, solved on the host by scipy."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from visdet_assigners.functional.blocks import static_shapes

THREADED = 2**20
"""Costs in all from which on several problems are solved side by side; scipy lets go of the interpreter's lock."""
THREADS = 8


class InvalidCostError(ValueError):
    """A cost is NaN or infinite.

    Attributes:
        problem: which of the problems it belongs to.
    """

    def __init__(self, problem: int, of: int) -> None:
        self.problem = problem
        which = f" of problem {problem} of {of}" if of > 1 else ""
        super().__init__(f"the costs{which} contain invalid numeric entries, NaN or infinite")


def linear_assignment(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Match rows to columns one to one at the lowest total cost.

    Crouse, IEEE Trans. Aerospace and Electronic Systems 52(4), 2016, doi:10.1109/TAES.2016.140952, as in
    ``scipy.optimize.linear_sum_assignment``.  The costs travel to the host once and the pairs back once.

    Args:
        cost: (N, M), finite; either may be 0.

    Returns:
        ``rows`` (P,) and ``columns`` (P,), int64 on the device of ``cost``; P = min(N, M), rows ascending.

    Raises:
        InvalidCostError: a cost is NaN or infinite.

    Example:
        >>> linear_assignment(torch.tensor([[4., 1.], [2., 0.], [3., 2.]]))
        (tensor([0, 1]), tensor([1, 0]))
    """
    return linear_assignments([cost])[0]


def linear_assignments(costs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Solve many problems with one copy to the host and one back, large ones side by side.

    Args:
        costs: B problems (N_i, M_i) on one device, finite, computed in float32 at least.

    Returns:
        For each what ``linear_assignment`` returns.

    Raises:
        InvalidCostError: a cost is NaN or infinite; that is found out on the device.
    """
    if not costs:
        return []
    device, dtype = costs[0].device, torch.promote_types(costs[0].dtype, torch.float32)
    wide = [cost.detach().to(dtype) for cost in costs]
    if static_shapes(device):
        problems, finite = on_host(wide)
    else:
        problems = [cost.numpy() for cost in wide]
        finite = [bool(np.isfinite(problem).all()) for problem in problems]
    if not all(finite):
        raise InvalidCostError(finite.index(False), len(costs))
    if len(problems) > 1 and sum(problem.size for problem in problems) >= THREADED:
        with ThreadPoolExecutor(THREADS) as pool:
            solved = list(pool.map(linear_sum_assignment, problems))
    else:
        solved = [linear_sum_assignment(problem) for problem in problems]
    pairs = [torch.stack([torch.from_numpy(rows), torch.from_numpy(columns)]) for rows, columns in solved]
    sizes = [pair.shape[1] for pair in pairs]
    return [(rows, columns) for rows, columns in torch.cat(pairs, dim=1).to(device).split(sizes, dim=1)]


def on_host(costs: Sequence[Tensor]) -> tuple[list[NDArray[Any]], list[bool]]:
    """Copy matrices to the host all at once, and whether each is finite, which is found out where they are."""
    finite = torch.stack([cost.isfinite().all() for cost in costs]).to(costs[0].dtype)
    everything = torch.cat([finite, *(cost.flatten() for cost in costs)]).to("cpu", copy=True)
    flags, *flat = [part.numpy() for part in everything.split([len(costs), *(cost.numel() for cost in costs)])]
    return [part.reshape(cost.shape) for part, cost in zip(flat, costs)], [bool(flag) for flag in flags]
