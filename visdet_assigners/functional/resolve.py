"""Who wins when several ground truths claim a prior."""

from __future__ import annotations

import torch
from torch import Tensor


def keep_best(candidates: Tensor, claimed: Tensor, quality: Tensor, num_priors: int) -> tuple[Tensor, Tensor]:
    """Give each claimed prior to the ground truth of highest quality, to the first of equals.

    Works on the (K, M) candidates alone; nothing of size (N, M) is made.

    Args:
        candidates: (K, M) int64, the priors that each ground truth considers.
        claimed: (K, M) bool, the candidates that it claims.
        quality: (K, M), finite where claimed.
        num_priors: N.

    Returns:
        ``gt_index`` (N,) int64, -1 where nobody claims the prior, and ``row`` (N,) int64, the row of ``candidates`` in
        which the winner claims it (0 where nobody does).
    """
    rows, num_gts = candidates.shape
    flat = candidates.flatten()
    offered = quality.masked_fill(~claimed, float("-inf")).flatten()
    best = offered.new_full((num_priors,), float("-inf")).scatter_reduce(0, flat, offered, "amax")
    wins = claimed & (quality == best[candidates])
    # One number for (ground truth, row), so that the smallest is the first ground truth.
    order = torch.arange(num_gts, device=flat.device) * rows + torch.arange(rows, device=flat.device)[:, None]
    nobody = rows * num_gts
    order = order.masked_fill(~wins, nobody).flatten()
    winner = order.new_full((num_priors,), nobody).scatter_reduce(0, flat, order, "amin")
    matched = winner < nobody
    gt_index = torch.where(matched, winner // max(rows, 1), -1)
    return gt_index, torch.where(matched, winner % max(rows, 1), 0)


def last_claim(claims: Tensor) -> Tensor:
    """Index of the last ground truth that claims each prior: (N, M) bool -> (N,) int64, -1 where none does."""
    number = torch.arange(1, claims.shape[1] + 1, device=claims.device, dtype=torch.int32)
    return (claims * number).amax(dim=1).long() - 1
