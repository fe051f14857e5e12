"""Who may match: candidates nearest to an object in each level, dynamic numbers of them, the cheapest k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def nearest_per_level(distance: Tensor, level_sizes: Sequence[int], topk: int) -> Tensor:
    """Indices of the ``topk`` smallest distances in each level, for each ground truth.

    Args:
        distance: (N, M), levels one after another along the first dimension.
        level_sizes: priors in each level, L numbers that sum to N; a level may be empty.
        topk: candidates per level and ground truth; a level with fewer priors gives all it has.

    Returns:
        (K, M) int64, rows of ``distance``; K is the sum over the levels of min(topk, size).  Equal distances are
        ordered as ``torch.topk`` orders them, which depends on the level's size and on the device.
    """
    chosen, start = [], 0
    for size in level_sizes:
        level = distance[start : start + size]
        chosen.append(level.topk(min(topk, size), dim=0, largest=False).indices + start)
        start += size
    return torch.cat(chosen)


def dynamic_k(iou: Tensor, topk: int) -> Tensor:
    """How many priors each ground truth deserves: the sum of its ``topk`` largest IoUs, truncated.

    Ge et al., OTA, CVPR 2021, arXiv:2103.14259, section 3.3.

    Args:
        iou: (N, M), N at least 1.
        topk: IoUs to sum; fewer priors give all they have.

    Returns:
        (M,) int32, at least 0.
    """
    return iou.topk(min(topk, iou.shape[0]), dim=0).values.sum(0).int()


def cheapest(cost: Tensor, counts: Tensor) -> Tensor:
    """Mark for each ground truth the priors of lowest cost, as many as ``counts`` says.

    Ground truths of the same count are served by one ``topk``, so the number of calls is bounded by the largest count
    and does not grow with M; the counts are read on the host, one wait on a device.

    Args:
        cost: (N, M).
        counts: (M,) integers from 0 to N.

    Returns:
        (N, M) bool.  Equal costs are chosen among as ``torch.topk`` chooses for one column and that k.
    """
    chosen = torch.zeros_like(cost, dtype=torch.bool)
    columns_of: dict[int, list[int]] = {}
    for column, count in enumerate(counts.tolist()):
        columns_of.setdefault(count, []).append(column)
    for count, columns in columns_of.items():
        if count:
            index = torch.tensor(columns, device=cost.device)
            rows = cost[:, index].topk(count, dim=0, largest=False).indices  # (count, columns)
            chosen[rows, index] = True
    return chosen
