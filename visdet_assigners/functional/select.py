"""Who may match: candidates nearest to an object in each level, dynamic numbers of them, the cheapest k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visdet_assigners import settings


def ties_by_index() -> bool:
    """Whether ties are ordered by index now, also in a graph that is being traced."""
    return settings.ties_of_trace() if torch.compiler.is_compiling() else settings.ties_by_index()


def top(values: Tensor, count: int, dim: int, largest: bool, by_index: bool | None = None) -> tuple[Tensor, Tensor]:
    """The smallest or largest entries along a dimension, best first.

    Args:
        values: not NaN.
        count: how many, at most the size of the dimension.
        dim: the dimension.
        largest: whether the largest are wanted, else the smallest.
        by_index: whether equal entries are ordered by index; `ties_by_index` if None.

    Returns:
        The entries, and their int64 indices along ``dim``.  Of equal entries as ``torch.topk`` chooses, which depends
        on sizes and device; where `ties_by_index`, the first, and those in order.

    The latter takes two such choices: the first tells the worst value that is taken, the second the first entries of
    that value.

    Example:
        >>> from visdet_assigners.settings import using
        >>> with using(deterministic=True):
        ...     top(torch.tensor([3., 1., 3., 1., 3.]), 4, dim=0, largest=False)[1]
        tensor([1, 3, 0, 2])
    """
    found = values.topk(count, dim=dim, largest=largest)
    if count == 0 or not (ties_by_index() if by_index is None else by_index):
        return found.values, found.indices
    size, last = values.shape[dim], found.values.narrow(dim, count - 1, 1)
    worse = values < last if largest else values > last
    place = torch.arange(size, dtype=torch.int32, device=values.device)
    place = place.view([size if axis == dim % values.ndim else 1 for axis in range(values.ndim)])
    # Every entry gets a rank of its own: better than the last of the k values, equal to it, worse; ties by index.
    number = place + size * ((values == last) + 2 * worse.int())
    index = number.topk(count, dim=dim, largest=False).indices
    chosen, order = values.gather(dim, index).sort(dim=dim, descending=largest, stable=True)
    return chosen, index.gather(dim, order)


def nearest_per_level(distance: Tensor, level_sizes: Sequence[int], topk: int) -> Tensor:
    """Indices of the ``topk`` smallest distances in each level, for each ground truth.

    Args:
        distance: (..., M, N), levels one after another along the last dimension.
        level_sizes: priors in each level, L numbers that sum to N; a level may be empty.
        topk: candidates per level and ground truth; a level with fewer priors gives all it has.

    Returns:
        (..., M, K) int64, columns of ``distance``; K is the sum over the levels of min(topk, size).  Equal distances as
        `top` orders them.
    """
    chosen, start = [], 0
    for size in level_sizes:
        level = distance[..., start : start + size]
        chosen.append(top(level, min(topk, size), dim=-1, largest=False)[1].add_(start))
        start += size
    return torch.cat(chosen, dim=-1)


def largest_of_each(
    values: Tensor, owners: Tensor, num_owners: int, count: int, by_index: bool | None = None
) -> Tensor:
    """The largest values of each owner, on a CPU alone: how many an owner has depends on the data.

    Args:
        values: (P,), finite.
        owners: (P,) int64, 0 to ``num_owners`` - 1.
        num_owners: M.
        count: how many of each.
        by_index: as in `top`.

    Returns:
        (M, count) int64, rows of ``values``, largest first; P where an owner has no more.  Of equal values the
        first is chosen where one is asked for, else as `top` chooses.
    """
    order = owners.argsort(stable=True)
    sizes = owners.bincount(minlength=num_owners)
    starts = sizes.cumsum(0) - sizes
    width = max(int(sizes.max()), 64 * count)  # from there on torch.topk of one keeps the first of equals
    place = torch.arange(len(owners)) - starts[owners[order]]
    rows = values.new_full((num_owners, width), float("-inf")).index_put((owners[order], place), values[order])
    column = top(rows, count, dim=1, largest=True, by_index=by_index)[1]  # (M, count)
    found = torch.where(column < sizes[:, None], starts[:, None] + column, len(values))
    return torch.cat([order, order.new_tensor([len(values)])])[found]


def dynamic_k(largest: Tensor) -> Tensor:
    """How many priors each ground truth deserves: the sum of its largest IoUs, truncated.

    Ge et al., OTA, CVPR 2021, arXiv:2103.14259, section 3.3.

    Args:
        largest: (k, M), the largest IoUs of each ground truth.

    Returns:
        (M,) int32, at least 0.
    """
    return largest.sum(0).int()


def cheapest(cost: Tensor, counts: Tensor | Sequence[int], limit: int) -> Tensor:
    """Mark for each ground truth the priors of lowest cost, as many as ``counts`` says.

    Args:
        cost: (N, M).
        counts: (M,) integers from 0 to N: a list where shapes may depend on them, else a tensor.
        limit: the largest that a count may be.

    Returns:
        (N, M) bool.  Equal costs are chosen among as `top` chooses: for one column and its own count, where the counts
        are a list; else for ``limit`` of them.
    """
    chosen = torch.zeros_like(cost, dtype=torch.bool)
    if isinstance(counts, Tensor):
        rows = top(cost, min(limit, len(cost)), dim=0, largest=False)[1]  # (limit, M)
        return chosen.scatter_(0, rows, torch.arange(len(rows), device=cost.device)[:, None] < counts)
    # Ground truths of the same count are served by one topk.
    columns_of: dict[int, list[int]] = {}
    for column, count in enumerate(counts):
        columns_of.setdefault(count, []).append(column)
    for count, columns in columns_of.items():
        if count:
            index = torch.tensor(columns, device=cost.device)
            rows = top(cost[:, index], count, dim=0, largest=False)[1]  # (count, columns)
            chosen[rows, index] = True
    return chosen
