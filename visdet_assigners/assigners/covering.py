"""Objects that an assignment leaves without a positive: each gets its best prior that nobody has."""

from __future__ import annotations

import torch
from torch import Tensor

from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import INSIDE, border_distance, box_area, box_center
from visdet_assigners.functional.overlaps import Measure
from visdet_assigners.functional.resolve import best_claim, first_true
from visdet_assigners.functional.select import top

CHOICES = 8
"""Priors that an object may fall back on where others want the same."""
NEVER = float("-inf")


def cover(
    gt_index: Tensor, gts: Tensor, boxes: Tensor, priors: Tensor, free: Tensor, measure: Measure, inside: bool = False
) -> tuple[Tensor, Tensor]:
    """Give each object that has no prior the best one that is free.

    Best is the largest overlap, and where nothing overlaps, the nearest centre; of equals the first.  Of several
    objects that want the same prior, the one that it is best for gets it, and the others take their next; each has
    `CHOICES` of them, so one is left without only where others without have taken them all, or where nothing is free.

    Args:
        gt_index: (N,) of an `Assignment`; N at least 1.
        gts: (M, 4) xyxy; M at least 1.  Boxes of no area get nothing.
        boxes: (N, 4) xyxy, compared with the ground truths: what is predicted, or the priors.
        priors: (N, 4) xyxy, whose centres count.
        free: (N,) bool, what may be taken; not what some object has.
        measure: of ground truths and boxes.
        inside: whether the centre of a prior must lie inside its object.

    Returns:
        (N,) int64, the objects that priors were given to, -1 where there is none, and (N,) the overlap, 0 likewise.
    """
    num_priors, num_gts, device = len(gt_index), len(gts), gts.device
    static = static_shapes(device)
    has_prior = torch.zeros(num_gts + 1, dtype=torch.bool, device=device)
    has_prior = has_prior.index_fill(0, gt_index.clamp(min=-1) % (num_gts + 1), True)[:num_gts]
    wanting = ~has_prior & (box_area(gts) > 0)
    rows = torch.arange(num_gts, device=device) if static else wanting.nonzero()[:, 0]
    nobody = torch.full_like(gt_index, -1)
    if not len(rows):
        return nobody, boxes.new_zeros(num_priors)
    x, y = box_center(priors)
    found = []
    for block in split(len(rows), 12 * 4 * num_priors, device, least=1 if measure.blockwise else len(rows)):
        own = gts[rows[block]]
        overlap = measure.overlaps(own, boxes)  # (m, N)
        center_x, center_y = box_center(own)
        square = (x - center_x[:, None]).square() + (y - center_y[:, None]).square()
        rank = torch.where(overlap > 0, overlap, -square).masked_fill(~free, NEVER)
        if inside:
            rank = rank.masked_fill(border_distance(x, y, own[:, None]) <= INSIDE, NEVER)
        found.append(top(rank, min(CHOICES, num_priors), dim=1, largest=True, by_index=True))
    ranks, choices = (torch.cat(each) for each in zip(*found))  # (U, K) each, best first
    number = torch.arange(len(rows), device=device)
    wanting, taker, overlap = wanting[rows], nobody, boxes.new_zeros(num_priors)
    for _ in range(ranks.shape[1]):
        left = ranks.masked_fill((taker >= 0)[choices], NEVER)
        best = left.amax(dim=1)
        choice = choices.gather(1, first_true((left == best[:, None]).T)[:, None])[:, 0]
        offers = wanting & (best > NEVER)
        winner = best_claim(choice, offers, best, number, num_priors, nobody=len(rows))  # (N,)
        won = offers & (winner[choice] == number)
        given = winner < len(rows)
        winner = winner.clamp(max=len(rows) - 1)
        taker = torch.where(given, rows[winner], taker)
        overlap = torch.where(given, best[winner].clamp(min=0), overlap)
        wanting = wanting & ~won
        if not static and not (wanting & (best > NEVER)).any():
            break
    return taker, overlap
