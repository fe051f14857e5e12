"""Overlaps of priors and ground truths, block by block: who overlaps whom most, and nothing of size (N, M) is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from visdet_assigners.functional.blocks import Reach, bounding_boxes, split, static_shapes, touching
from visdet_assigners.functional.boxes import box_iou, box_overlaps
from visdet_assigners.functional.resolve import first_true
from visdet_assigners.functional.select import largest_of_each, top
from visdet_assigners.functional.tensors import cat_or_only


class Measure(NamedTuple):
    """How ground truths and boxes are compared.

    Attributes:
        overlaps: of (..., M, 4) ground truths and (..., N, 4) boxes, xyxy: (..., M, N).
        reach: pixels from which on boxes apart overlap by exactly 0, so that far pairs are left out, or a `Reach`,
            which counts sizes of the ground truth, too; None where that isn't known.
        blockwise: whether an overlap doesn't depend on what else is in the call; otherwise there is one call of all, as
            long as the memory budget allows.
    """

    overlaps: Callable[[Tensor, Tensor], Tensor]
    reach: float | Reach | None = None
    blockwise: bool = False


IOU = Measure(box_iou, reach=0.0, blockwise=True)
"""Plain IoU."""
LEAST = 128
"""Priors of a block on a CPU: enough to be worth the calls, few enough to lie side by side."""
APART = 4
"""How many times fewer ground truths than there are a block on a CPU is expected to meet."""


@dataclass(frozen=True)
class Block:
    """Some priors, and the ground truths that may overlap one of them.

    Attributes:
        rows: of the priors.
        columns: (m,) int64, ascending; None stands for all ground truths.
    """

    rows: slice
    columns: Tensor | None = None


@dataclass(frozen=True)
class OverlapTable:
    """Overlaps of M ground truths with N priors, computed when asked for.

    Attributes:
        num_gts: M.
        blocks: all pairs but those that don't overlap at all.
        at: the overlaps (..., m, n) of a block; of any block, not only of those above.
        sparse: whether shapes may depend on the data, as on a CPU.
        ignored: (..., N) bool, priors whose overlaps are all -1, or None.
        repeatable: whether a block that is asked for again, or in part, has the same overlaps to the last bit.
    """

    num_gts: int
    blocks: list[Block]
    at: Callable[[Block], Tensor]
    sparse: bool
    ignored: Tensor | None = None
    repeatable: bool = True


def near_blocks(
    candidates: Tensor, gts: Tensor, matrices: int, reach: float | Reach | None, small: bool = True
) -> list[Block]:
    """Cut priors into blocks, on a CPU each with the ground truths that come near one of its boxes.

    Args:
        candidates: (..., N, A, 4) xyxy, A boxes of each prior; the first dimensions are images.
        gts: (..., M, 4) xyxy; M at least 1.
        matrices: of a block's size that are there at once, each with an entry for a box and a ground truth.
        reach: up to which a pair counts as near; None leaves nothing out.
        small: whether blocks on a CPU should fit its cache; otherwise the memory budget alone bounds them.
    """
    num_priors, per_prior = candidates.shape[-3:-1]
    culls = not static_shapes(gts.device) and gts.ndim == 2 and reach is not None
    bytes_each = matrices * gts.element_size() * per_prior * gts[..., 0].numel()
    least = LEAST if small else num_priors
    rows = split(num_priors, bytes_each // APART if culls else bytes_each, gts.device, least)
    if not culls or len(rows) == 1:
        return [Block(each) for each in rows]
    near = touching(bounding_boxes(candidates, rows), gts, 0.0 if reach is None else reach)
    return [Block(each, columns.nonzero()[:, 0]) for each, columns in zip(rows, near)]


def overlap_table(
    candidates: Tensor,
    gts: Tensor,
    measure: Measure = IOU,
    ignored: Tensor | None = None,
) -> OverlapTable:
    """Lay out the overlaps of priors, each the best of its A candidate boxes, with ground truths.

    Args:
        candidates: (..., N, A, 4) xyxy, or D numbers that the measure understands; the first dimensions are images; N
            and A at least 1.
        gts: (..., M, 4) xyxy, or D numbers; M at least 1.
        measure: how they are compared.
        ignored: (..., N) bool, priors whose overlaps are all -1.
    """
    per_prior = candidates.shape[-2]
    blocks = near_blocks(candidates, gts, 4, measure.reach if measure.blockwise else None, measure.blockwise)

    def at(block: Block) -> Tensor:
        boxes = candidates[..., block.rows, :, :].transpose(-3, -2).flatten(-3, -2)  # (..., A * n, 4)
        table = measure.overlaps(gts if block.columns is None else gts[block.columns], boxes)  # (..., m, A * n)
        if per_prior > 1:
            table = table.unflatten(-1, (per_prior, -1)).amax(dim=-2)
        return table if ignored is None else table.masked_fill(ignored[..., None, block.rows], -1)

    sparse = not static_shapes(gts.device) and gts.ndim == 2
    if measure.blockwise:
        return OverlapTable(gts.shape[-2], blocks, at, sparse, ignored)
    if len(blocks) == 1:
        table = table_of(at(blocks[0]))
        return replace(table, ignored=ignored)
    return OverlapTable(gts.shape[-2], blocks, of_whole_rows(at), sparse, ignored, repeatable=False)


def of_whole_rows(at: Callable[[Block], Tensor]) -> Callable[[Block], Tensor]:
    """Work out some columns of a block always with all others."""

    def some(block: Block) -> Tensor:
        rows = at(Block(block.rows))
        return rows if block.columns is None else rows[..., block.columns, :]

    return some


def table_of(overlaps: Tensor) -> OverlapTable:
    """The table of overlaps that are there already, (..., M, N)."""

    def at(block: Block) -> Tensor:
        rows = overlaps[..., block.rows]
        return rows if block.columns is None else rows[block.columns]

    sparse = not static_shapes(overlaps.device) and overlaps.ndim == 2
    return OverlapTable(overlaps.shape[-2], [Block(slice(0, overlaps.shape[-1]))], at, sparse)


def best_ground_truths(table: OverlapTable, least: float = float("inf")) -> tuple[Tensor, Tensor, Tensor]:
    """The ground truth that each prior overlaps most, the first of equals.

    Args:
        table: of M ground truths and N priors.
        least: overlap from which on the ground truth is wanted; on a CPU it is not looked for below that.

    Returns:
        Of each prior the best overlap (..., N) and its ground truth (..., N) int64; and of each block the best overlap
        of each ground truth, (..., B, M).
    """
    qualities, firsts, bests = [], [], []
    for block in table.blocks:
        overlaps = table.at(block)  # (..., m, n)
        shape = (*overlaps.shape[:-2], table.num_gts)
        if overlaps.shape[-2] == 0:  # nothing near: the first of equals at overlap 0
            qualities.append(overlaps.new_zeros(overlaps.shape[-1]))
            firsts.append(torch.zeros_like(qualities[-1], dtype=torch.long))
            bests.append(overlaps.new_zeros(shape))
            continue
        quality = overlaps.amax(dim=-2)
        best = overlaps.amax(dim=-1)
        if table.sparse:
            wanted = (quality >= least).nonzero()[:, 0]
            first = torch.zeros_like(quality, dtype=torch.long)
            first[wanted] = first_true(overlaps[:, wanted] == quality[wanted])
        else:
            first = first_true(overlaps == quality[..., None, :])
        if block.columns is not None:  # those left out overlap by 0
            first = torch.where(quality > 0, block.columns[first], 0)
            best = overlaps.new_zeros(shape).index_copy(-1, block.columns, best)
        qualities.append(quality)
        firsts.append(first)
        bests.append(best)
    quality = cat_or_only(qualities, dim=-1)
    if table.ignored is not None:  # also where nothing is near
        quality = quality.masked_fill(table.ignored, -1)
    return quality, cat_or_only(firsts, dim=-1), torch.stack(bests, dim=-2)


def best_priors(table: OverlapTable, block_best: Tensor, allowed: Tensor, share: bool) -> Tensor:
    """Let each allowed ground truth take the prior that overlaps it most; of several takers the last wins.

    Args:
        table: of M ground truths and N priors.
        block_best: (..., B, M), the best overlap of each ground truth in each block of the table.
        allowed: (..., M) bool, the ground truths that may take.
        share: a ground truth takes all the priors that have its best overlap; otherwise the first of them.

    Returns:
        (..., N) int64, the taker of each prior, -1 where there is none.
    """
    best = block_best.amax(dim=-2).masked_fill_(~allowed, float("inf"))  # (..., M); inf is no prior's overlap
    holds = block_best == best[..., None, :]  # (..., B, M)
    last_row, device = table.blocks[-1].rows.stop, best.device
    takers, firsts = [], None if share else torch.full_like(best, last_row, dtype=torch.long)
    number = torch.arange(1, table.num_gts + 1, dtype=torch.int32, device=device)
    for index, block in enumerate(table.blocks):
        columns = holds[index].nonzero()[:, 0] if table.sparse else None
        if columns is not None and not len(columns):
            size = block.rows.stop - block.rows.start
            takers.append(number.new_zeros(size))
            continue
        overlaps = table.at(Block(block.rows, columns))  # (..., m, n)
        mine = slice(None) if columns is None else columns
        # Values that can't be repeated are compared with those of this very call.
        takes = overlaps == (best[..., mine, None] if table.repeatable else overlaps.amax(dim=-1, keepdim=True))
        if columns is None and not table.repeatable:
            takes &= holds[..., index, :, None]
        if firsts is None:
            takers.append((takes * number[mine, None]).amax(dim=-2))
        else:
            rows = torch.arange(block.rows.start, block.rows.stop, device=device)
            first = torch.where(takes, rows, last_row).amin(dim=-1)
            firsts[..., mine] = torch.minimum(firsts[..., mine], first)
    if firsts is None:
        return cat_or_only(takers, dim=-1).long().sub_(1)
    # The place behind the last row is for those that take nothing.
    nobody = firsts.new_full((1,), -1).expand(*firsts.shape[:-1], last_row + 1)
    return nobody.scatter_reduce(-1, firsts, (number.long() - 1).expand_as(firsts), "amax")[..., :-1]


def top_priors(table: OverlapTable, count: int) -> tuple[Tensor, Tensor]:
    """The priors that each ground truth overlaps most, of equal ones the first.

    Args:
        table: of M ground truths and N priors of one image.
        count: how many of each, at most N.

    Returns:
        (K, M) int64 rows of the priors, best first, and (K, M) overlaps; where one is 0 or less, the row means nothing.
    """
    if table.sparse:
        gt, prior, value = overlapping_pairs(table)  # (P,) each
        pair = largest_of_each(value, gt, table.num_gts, count, by_index=True).T  # (K, M), P where there are no more
        return torch.cat([prior, prior.new_zeros(1)])[pair], torch.cat([value, value.new_zeros(1)])[pair]
    rows, values = [], []
    for block in table.blocks:
        overlaps = table.at(block)  # (M, n)
        best, column = top(overlaps, min(count, overlaps.shape[-1]), dim=-1, largest=True, by_index=True)
        rows.append(column + block.rows.start)
        values.append(best)
    best, place = top(torch.cat(values, dim=-1), count, dim=-1, largest=True, by_index=True)
    return torch.cat(rows, dim=-1).gather(-1, place).T, best.T


def overlapping_pairs(table: OverlapTable) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs that overlap, on a CPU alone: how many there are depends on the data.

    Returns:
        Ground truth, prior, and overlap of each pair, (P,) each; the priors of a ground truth are ascending.
    """
    gts, priors, values = [], [], []
    for block in table.blocks:
        overlaps = table.at(block)  # (m, n)
        row, column = (overlaps > 0).nonzero().unbind(1)
        gts.append(row if block.columns is None else block.columns[row])
        priors.append(column + block.rows.start)
        values.append(overlaps[row, column])
    return torch.cat(gts), torch.cat(priors), torch.cat(values)


def overlaps_of_pairs(boxes: Tensor, gts: Tensor, candidates: Tensor) -> Tensor:
    """IoU of ground truths with some boxes each: (N, 4), (M, 4), (M, K) rows of the boxes -> (M, K)."""
    pairs = boxes[candidates]  # (M, K, 4)
    return box_overlaps(pairs, gts[:, None].expand_as(pairs), aligned=True)
