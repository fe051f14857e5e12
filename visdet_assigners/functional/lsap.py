"""The linear sum assignment problem, one or many at once: on the host by scipy, or on a device, see `lsap_device`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from visdet_assigners.functional.blocks import static_shapes
from visdet_assigners.functional.lsap_device import columns_on_device, solver_for

THREADED = 2**20
"""Costs in all from which on several problems are solved side by side; scipy lets go of the interpreter's lock."""
THREADS = 8
Tolerate = Callable[[NDArray[np.bool_]], None]
"""Is told which costs are finite, (P,) bool, where some aren't; having it means that they may be NaN or infinite."""


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
    return repeated_assignments([cost[None] for cost in costs], [[cost.shape[1]] for cost in costs], [1] * len(costs))


def repeated_assignments(
    costs: Sequence[Tensor],
    counts: Sequence[Sequence[int]],
    times: Sequence[int],
    tolerate: Tolerate | None = None,
    never: Sequence[Tensor | None] = (),
) -> list[tuple[Tensor, Tensor]]:
    """Solve batches of problems, each column being there several times, with one copy to the host and one back.

    Args:
        costs: as in `matched_columns`, and so are the counts.
        counts: see there.
        times: of each problem of all batches, how often a column may be matched; may be 0.
        tolerate: see there.
        never: see there.

    Returns:
        For each problem of each batch the matched rows (P,), ascending, and their columns (P,).

    Raises:
        InvalidCostError: a cost is NaN or infinite; that is found out on the device.
    """
    if not costs:
        return []
    problems = on_host(costs, counts, tolerate, never)
    repeated = [each if own == 1 else each.repeat(own, axis=1) for each, own in zip(problems, times)]
    pairs = [np.stack([rows, columns // max(1, own)]) for (rows, columns), own in zip(solve(repeated), times)]
    sizes = [pair.shape[1] for pair in pairs]
    found = torch.from_numpy(np.concatenate(pairs, axis=1)).to(costs[0].device)
    return [(rows, columns) for rows, columns in found.split(sizes, dim=1)]


def matched_columns(
    costs: Sequence[Tensor],
    counts: Sequence[Sequence[int]],
    tolerate: Tolerate | None = None,
    never: Sequence[Tensor | None] = (),
) -> list[Tensor]:
    """Solve batches of problems with one copy to the host and one back, large ones side by side.

    Many problems on a device are solved there, where torch-linear-assignment is installed: the same pairs, and nothing
    but whether all costs are finite travels to the host.

    Args:
        costs: at least one batch (B_i, N_i, M_i) of problems, all on one device, finite; any of the three may be 0.
        counts: of each problem of each batch, how many columns in front count; what is behind is padding, finite too.
        tolerate: where given, costs may be NaN or infinite: such pairs are never matched, and as many others as there
            can be.
        never: of each batch (B_i, N_i) bool, rows that are never matched, or None.

    Returns:
        For each batch (B_i, N_i) int64, the column of each row, -1 where it has none.

    Raises:
        InvalidCostError: a cost is NaN or infinite; that is found out on the device.

    Example:
        >>> matched_columns([torch.tensor([[[4., 1.], [2., 0.]], [[3., 0.], [2., 0.]]])], [[2, 1]])
        [tensor([[ 1,  0],
                [-1,  0]])]
    """
    solver = solver_for(costs, counts)
    if solver is not None:
        marks = [*never, *[None] * (len(costs) - len(never))]
        decided = columns_on_device(solver, costs, counts, marks)
        if decided is not None:
            check_on_device(costs, counts, tolerate, marks)
            return decided
    problems = on_host(costs, counts, tolerate, never)
    found, start = np.full(sum(map(len, problems)), -1), 0
    for problem, (rows, columns) in zip(problems, solve(problems)):
        found[start + rows] = columns
        start += len(problem)
    parts = torch.from_numpy(found).to(costs[0].device).split([cost.shape[0] * cost.shape[1] for cost in costs])
    return [part.view(cost.shape[:2]) for part, cost in zip(parts, costs)]


def solve(problems: Sequence[NDArray[Any]]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Matched rows and columns of each problem; problems that are large in all side by side."""
    if len(problems) > 1 and sum(problem.size for problem in problems) >= THREADED:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(solve_one, problems))
    return [solve_one(problem) for problem in problems]


def solve_one(problem: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Matched rows and columns, none of them at a cost that is not finite."""
    finite = np.isfinite(problem)
    if finite.all():
        return linear_sum_assignment(problem)
    costs = problem[finite].astype(np.float64)
    # Dearer than any other choice of finite pairs could be cheaper.
    dear = costs.max() + (np.ptp(costs) + 1) * min(problem.shape) if len(costs) else 1.0
    rows, columns = linear_sum_assignment(np.where(finite, problem, dear))
    kept = finite[rows, columns]
    return rows[kept], columns[kept]


def on_host(
    costs: Sequence[Tensor],
    counts: Sequence[Sequence[int]],
    tolerate: Tolerate | None = None,
    never: Sequence[Tensor | None] = (),
) -> list[NDArray[Any]]:
    """Copy batches of problems to the host all at once, and check there what is found out where they are: finiteness.

    The arguments are those of `matched_columns`; rows that are never matched come back infinite.

    Raises:
        InvalidCostError: a cost is NaN or infinite.
    """
    device, dtype = costs[0].device, torch.promote_types(costs[0].dtype, torch.float32)
    wide = [cost.detach().to(dtype) for cost in costs]
    finite = [cost.isfinite().flatten(1).all(dim=1) for cost in wide]
    for number, marks in enumerate(never):
        if marks is not None:
            wide[number] = wide[number].masked_fill(marks[..., None], torch.inf)
    if static_shapes(device):
        everything = torch.cat([each.to(dtype) for each in finite] + [cost.flatten() for cost in wide])
        first, *flat = everything.to("cpu", copy=True).split([sum(map(len, finite)), *(cost.numel() for cost in wide)])
        flags = first.numpy() > 0
        wide = [part.view(cost.shape) for part, cost in zip(flat, wide)]
    else:
        flags = torch.cat(finite).numpy()
    problems = [each[:, :own].numpy() for cost, own_counts in zip(wide, counts) for each, own in zip(cost, own_counts)]
    tell_of_bad_costs(flags, tolerate, lambda: [np.isfinite(problem) for problem in problems])
    return problems


def check_on_device(
    costs: Sequence[Tensor],
    counts: Sequence[Sequence[int]],
    tolerate: Tolerate | None,
    never: Sequence[Tensor | None],
) -> None:
    """Check what `on_host` checks, of costs that stay where they are; synchronises once.

    The arguments are those of `matched_columns`, with an entry of ``never`` for each batch.

    Raises:
        InvalidCostError: a cost is NaN or infinite.
    """

    def finite() -> list[NDArray[np.bool_]]:
        found = []
        for cost, own_counts, marks in zip(costs, counts, never):
            each = cost.isfinite() if marks is None else cost.isfinite() & ~marks[..., None]
            found += [problem[:, :own] for problem, own in zip(each.cpu().numpy(), own_counts)]
        return found

    flags = torch.cat([cost.isfinite().flatten(1).all(dim=1) for cost in costs])
    tell_of_bad_costs(flags.to("cpu", copy=True).numpy(), tolerate, finite)


def tell_of_bad_costs(
    flags: NDArray[np.bool_], tolerate: Tolerate | None, finite: Callable[[], list[NDArray[np.bool_]]]
) -> None:
    """Raise for the first problem whose flag says that not all of its costs are finite, or tell which are.

    Args:
        flags: (B,) of all problems.
        tolerate: as in `matched_columns`.
        finite: gives of each problem which costs are finite.

    Raises:
        InvalidCostError: there is one, and ``tolerate`` is None.
    """
    if flags.all():
        return
    if tolerate is None:
        raise InvalidCostError(int(np.flatnonzero(~flags)[0]), len(flags))
    tolerate(np.concatenate([each.ravel() for each in finite()]))
