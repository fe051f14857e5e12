"""Who wins when several ground truths claim a prior."""

from __future__ import annotations

import torch
from torch import Tensor

from visdet_assigners.functional.select import cheapest, dynamic_k


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
    """Index of the last ground truth that claims each prior: (..., N, M) bool -> (..., N) int64, -1 where none does."""
    number = torch.arange(1, claims.shape[-1] + 1, device=claims.device, dtype=torch.int32)
    return (claims * number).amax(dim=-1).long() - 1


def best_priors(iou: Tensor, allowed: Tensor, share: bool) -> Tensor:
    """Let each allowed ground truth take the prior that overlaps it most; of several takers the last wins.

    Args:
        iou: (..., N, M), N and M at least 1.
        allowed: (..., M) bool, the ground truths that may take.
        share: a ground truth takes all the priors that have its best IoU; otherwise the first of them.

    Returns:
        (..., N) int64, the taker of each prior, -1 where there is none.
    """
    best_iou, best_prior = iou.max(dim=-2)  # (..., M)
    if share:
        return last_claim((iou == best_iou[..., None, :]) & allowed[..., None, :])
    number = torch.arange(iou.shape[-1], device=iou.device).expand_as(best_prior).masked_fill(~allowed, -1)
    nobody = number.new_full(iou.shape[:-1], -1)
    return nobody.scatter_reduce(-1, best_prior, number, "amax")


def match_dynamic_k(cost: Tensor, iou: Tensor, allowed: Tensor, topk: int) -> Tensor:
    """Give each ground truth its cheapest priors, as many as its largest IoUs sum to, at least one.

    A prior taken twice goes to the ground truth that it is cheapest for, which may be one that had not taken it
    (Ge et al., YOLOX, arXiv:2107.08430).

    Args:
        cost: (N, M), N at least 1.
        iou: (N, M).
        allowed: (M,) bool; the other ground truths get nothing.
        topk: IoUs that are summed.

    Returns:
        (N,) int64, the ground truth of each prior, -1 where there is none.
    """
    counts = dynamic_k(iou, topk).clamp(min=1) * allowed
    taken = cheapest(cost, counts)  # (N, M)
    times = taken.sum(dim=1)
    only = taken.int().argmax(dim=1)
    cheapest_gt = cost.masked_fill(~allowed, float("inf")).min(dim=1).indices
    return torch.where(times == 0, -1, torch.where(times == 1, only, cheapest_gt))
