"""Who wins when several ground truths claim a prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.select import cheapest, dynamic_k, top

Conflict = Literal["all", "selected"]
"""Among whom a prior that several have taken goes to the cheapest."""


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
    # One number for (ground truth, row), so that the smallest is the first ground truth.
    order = torch.arange(rows * num_gts, device=candidates.device).view(num_gts, rows).T  # (K, M)
    nobody = rows * num_gts
    winner = best_claim(candidates.flatten(), claimed.flatten(), quality.flatten(), order.flatten(), num_priors, nobody)
    unmatched, rows = winner == nobody, max(rows, 1)
    return (winner // rows).masked_fill_(unmatched, -1), (winner % rows).masked_fill_(unmatched, 0)


def best_claim(priors: Tensor, claimed: Tensor, quality: Tensor, order: Tensor, num_priors: int, nobody: int) -> Tensor:
    """Which of many claims on priors wins: that of highest quality, the first of equals.

    Args:
        priors: (P,) int64, the prior that each pair is about.
        claimed: (P,) bool, the pairs that are claims.
        quality: (P,), finite where claimed.
        order: (P,) int64, by which the first of equals is known.
        num_priors: N.
        nobody: above every order.

    Returns:
        (N,) int64, the order of the winning claim, ``nobody`` where there is none.
    """
    offered = quality.masked_fill(~claimed, float("-inf"))  # below what is best where nobody claims
    lowest = torch.finfo(offered.dtype).min
    best = offered.new_full((num_priors,), lowest).scatter_reduce(0, priors, offered, "amax")
    order = order.masked_fill(offered != best[priors], nobody)
    return order.new_full((num_priors,), nobody).scatter_reduce(0, priors, order, "amin")


def last_claim(claims: Tensor) -> Tensor:
    """Index of the last ground truth that claims each prior: (..., N, M) bool -> (..., N) int64, -1 where none does."""
    number = torch.arange(1, claims.shape[-1] + 1, device=claims.device, dtype=torch.int32)
    return (claims * number).amax(dim=-1).long() - 1


def union_of_matchings(gt_index: Tensor) -> Tensor:
    """Union of several matchings of the same predictions: each keeps the object that it was matched with most often.

    Peng et al., D-FINE, ICLR 2025, arXiv:2410.13842, and DEIM: the boxes of all decoder layers learn from the union of
    the layers' pairs.  An object may so have several predictions.

    Args:
        gt_index: (L, ..., N) int64, what each of L matchings decided, -1 where a prediction is not matched.

    Returns:
        (..., N) int64, -1 where no matching has the prediction.  Of objects that it was matched with equally often, the
        one of the latest matching; the published code leaves that to the order of a sort.

    Example:
        >>> union_of_matchings(torch.tensor([[0, 2, -1, 1], [1, 2, -1, -1], [0, 1, -1, -1]]))
        tensor([ 0,  2, -1,  1])
    """
    number = len(gt_index)
    times = torch.stack([(gt_index == own).sum(dim=0) for own in gt_index])  # (L, ..., N)
    later = torch.arange(number, device=gt_index.device).view(-1, *[1] * (gt_index.ndim - 1))
    rank = (times * number + later).masked_fill_(gt_index < 0, -1)
    return gt_index.gather(0, rank.argmax(dim=0, keepdim=True))[0]


def last_taker(candidates: Tensor, claimed: Tensor, num_priors: int) -> Tensor:
    """Give each claimed prior to the last ground truth that claims it, as `last_claim` does, from (K, M) candidates.

    Args:
        candidates: (K, M) int64, priors.
        claimed: (K, M) bool, the candidates that are claimed.
        num_priors: N.

    Returns:
        (N,) int64, -1 where nobody claims the prior.
    """
    number = torch.arange(candidates.shape[1], device=candidates.device).expand_as(candidates)
    claims = number.masked_fill(~claimed, -1).flatten()
    return claims.new_full((num_priors,), -1).scatter_reduce(0, candidates.flatten(), claims, "amax")


def first_true(marks: Tensor) -> Tensor:
    """First row that is marked in each column: (..., M, N) bool -> (..., N) int64, the last row where none is."""
    number = torch.arange(marks.shape[-2], dtype=torch.int32, device=marks.device)[:, None]
    return torch.where(marks, number, marks.shape[-2] - 1).amin(dim=-2).long()


def match_dynamic_k(
    iou_of: Callable[[slice], Tensor],
    cost_of: Callable[[slice, Tensor], Tensor],
    candidates: Tensor,
    allowed: Tensor,
    topk: int,
    blockwise: bool = True,
    conflict: Conflict = "all",
) -> tuple[Tensor, Tensor]:
    """Give each ground truth its cheapest priors, as many as its largest IoUs sum to, at least one.

    A prior taken twice goes to the ground truth that it is cheapest for, which may be one that had not taken it
    (Ge et al., YOLOX, arXiv:2107.08430).  Works through the ground truths in blocks, twice: for the counts, then for
    the costs.

    Args:
        iou_of: the IoUs (m, N) of a block of ground truths; N at least 1.
        cost_of: the costs (m, N) of a block, from its IoUs.
        candidates: (N,) bool, the priors that may match.
        allowed: (M,) bool; the other ground truths get nothing.
        topk: IoUs that are summed.
        blockwise: whether blocks may be as small as is fastest; otherwise there is one, if the memory budget allows.
        conflict: among whom a prior taken twice is cheapest: "all", also those that had not taken it, or those that
            have "selected" it.

    Returns:
        (N,) int64, the ground truth of each prior, -1 where there is none, and (N,) the IoU with it, 0 likewise.
    """
    num_priors, num_gts, device = len(candidates), len(allowed), allowed.device
    topk = min(topk, num_priors)
    blocks = split(num_gts, 5 * 4 * num_priors, device, least=1 if blockwise else num_gts)
    largest = [iou_of(block).masked_fill(~candidates, 0).topk(topk, dim=1).values for block in blocks]
    deserved = dynamic_k(torch.cat(largest).T.contiguous()).clamp(min=1) * allowed
    counts = deserved if static_shapes(device) else deserved.tolist()
    times = torch.zeros(num_priors, dtype=torch.int32, device=device)
    only = cheapest_gt = torch.zeros_like(candidates, dtype=torch.long)
    only_iou = cheapest_iou = torch.zeros(num_priors, device=device)
    lowest = torch.full((num_priors,), float("inf"), device=device)
    for block in blocks:
        iou = iou_of(block)
        cost = cost_of(block, iou)
        if static_shapes(device) or conflict == "selected":  # one whose cost overflows is cheaper than what is none
            cost.clamp_(max=torch.finfo(cost.dtype).max)
        cost = cost.masked_fill_(~(allowed[block, None] & candidates), float("inf"))  # (m, N)
        taken = cheapest(cost.T, counts[block], topk).T & candidates

        times += taken.sum(dim=0)
        here, row = taken.any(dim=0), first_true(taken)
        only = torch.where(here, row + block.start, only)
        only_iou = torch.where(here, iou.gather(0, row[None])[0], only_iou)

        cost = cost if conflict == "all" else cost.masked_fill(~taken, float("inf"))
        low = cost.amin(dim=0)
        here, row = (low < lowest) | (block.start == 0), first_true(cost == low)
        cheapest_gt = torch.where(here, row + block.start, cheapest_gt)
        cheapest_iou = torch.where(here, iou.gather(0, row[None])[0], cheapest_iou)
        lowest = torch.minimum(lowest, low)
    gt_index = torch.where(times == 0, -1, torch.where(times == 1, only, cheapest_gt))
    iou = torch.where(times == 1, only_iou, cheapest_iou)
    return gt_index, torch.where(times == 0, 0, iou)


def keep_best_aligned(gt_index: Tensor, candidates: Tensor, alignment: Tensor, topk: int) -> Tensor:
    """Of the matches (N,), those best aligned with their ground truth: ``topk`` of each, the others become -1.

    The candidates of each ground truth are (K, M) int64, and so is their alignment.
    """
    number = torch.arange(candidates.shape[1], device=candidates.device)
    own = gt_index[candidates] == number  # (K, M)
    best = top(alignment.masked_fill(~own, -1), min(topk, len(candidates)), dim=0, largest=True)[1]
    chosen = torch.zeros_like(own).scatter(0, best, True) & own
    kept = gt_index.new_zeros(len(gt_index)).scatter_reduce(0, candidates.flatten(), chosen.flatten().long(), "amax")
    return gt_index.masked_fill(kept == 0, -1)
