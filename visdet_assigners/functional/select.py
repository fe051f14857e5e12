"""Who may match: candidates nearest to an object in each level, dynamic numbers of them, the cheapest k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def nearest_per_level(distance: Tensor, level_sizes: Sequence[int], topk: int) -> Tensor:
    """Indices of the ``topk`` smallest distances in each level, for each ground truth.

    Args:
        distance: (M, N), levels one after another along the second dimension.
        level_sizes: priors in each level, L numbers that sum to N; a level may be empty.
        topk: candidates per level and ground truth; a level with fewer priors gives all it has.

    Returns:
        (M, K) int64, columns of ``distance``; K is the sum over the levels of min(topk, size).  Equal distances are
        ordered as ``torch.topk`` orders them, which depends on the level's size and on the device.
    """
    chosen, start = [], 0
    for size in level_sizes:
        level = distance[:, start : start + size]
        chosen.append(level.topk(min(topk, size), dim=1, largest=False).indices + start)
        start += size
    return torch.cat(chosen, dim=1)


def largest_of_each(values: Tensor, owners: Tensor, num_owners: int, count: int) -> Tensor:
    """The largest values of each owner, on a CPU alone: how many an owner has depends on the data.

    Args:
        values: (P,), finite.
        owners: (P,) int64, 0 to ``num_owners`` - 1.
        num_owners: M.
        count: how many of each.

    Returns:
        (M, count) int64, rows of ``values``, largest first; P where an owner has no more.  Of equal values the
        first is chosen where one is asked for, else as ``torch.topk`` chooses.
    """
    order = owners.argsort(stable=True)
    sizes = owners.bincount(minlength=num_owners)
    starts = sizes.cumsum(0) - sizes
    width = max(int(sizes.max()), 64 * count)  # from there on torch.topk of one keeps the first of equals
    place = torch.arange(len(owners)) - starts[owners[order]]
    rows = values.new_full((num_owners, width), float("-inf")).index_put((owners[order], place), values[order])
    column = rows.topk(count, dim=1).indices  # (M, count)
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
        (N, M) bool.  Equal costs are chosen among as ``torch.topk`` chooses: for one column and its own count, where
        the counts are a list; else for ``limit`` of them.
    """
    chosen = torch.zeros_like(cost, dtype=torch.bool)
    if isinstance(counts, Tensor):
        rows = cost.topk(min(limit, len(cost)), dim=0, largest=False).indices  # (limit, M)
        return chosen.scatter_(0, rows, torch.arange(len(rows), device=cost.device)[:, None] < counts)
    # Ground truths of the same count are served by one topk.
    columns_of: dict[int, list[int]] = {}
    for column, count in enumerate(counts):
        columns_of.setdefault(count, []).append(column)
    for count, columns in columns_of.items():
        if count:
            index = torch.tensor(columns, device=cost.device)
            rows = cost[:, index].topk(count, dim=0, largest=False).indices  # (count, columns)
            chosen[rows, index] = True
    return chosen
