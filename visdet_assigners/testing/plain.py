"""The rules of assigners that mmdet lacks, as plain loops over objects and priors: what ours are compared with.

Overlaps come from the calculator, whose formulas have tests of their own; all else is written as the papers say it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.functional.boxes import box_iou
from visdet_assigners.functional.tensors import evenly
from visdet_assigners.iou_calculators import KLDOverlaps
from visdet_assigners.registry import build
from visdet_assigners.testing.trial import Trial

Result = dict[str, Tensor]


def overlaps_of(calculator: Any, gts: Tensor, boxes: Tensor) -> Tensor:
    """(M, N) overlaps by a calculator, the IoU if None."""
    return box_iou(gts, boxes) if calculator is None else build(calculator)(gts, boxes)


def ranked(overlaps: Tensor, taken: Collection[int] = ()) -> list[int]:
    """The priors, of those not taken, that an object overlaps by more than 0, best first: (N,) overlaps."""
    values = overlaps.tolist()
    return sorted((n for n, value in enumerate(values) if value > 0 and n not in taken), key=lambda n: (-values[n], n))


def background(largest: float, neg_iou_thr: Any) -> int:
    """0 where a prior is negative, -1 where it is ignored."""
    low, high = neg_iou_thr if isinstance(neg_iou_thr, tuple) else (0.0, neg_iou_thr)
    low, high = (torch.tensor(end).item() for end in (low, high))  # as float32
    return 0 if low <= largest < high else -1


def in_form(trial: Trial, gt_inds: list[int], max_overlaps: Any) -> Result:
    """Fields of a result."""
    labels = trial.gt["labels"].tolist()
    return {
        "gt_inds": torch.tensor(gt_inds, dtype=torch.long),
        "labels": torch.tensor([labels[gt - 1] if gt > 0 else -1 for gt in gt_inds], dtype=torch.long),
        "max_overlaps": torch.as_tensor(max_overlaps, dtype=torch.float32),
    }


def plain_ranking(trial: Trial) -> Result:
    """Each object takes its best priors; the larger overlap wins, of equals the first object."""
    config, priors, gts = trial.config, trial.pred["priors"], trial.gt["bboxes"]
    if not len(gts) or not len(priors):
        return in_form(trial, [0] * len(priors), [0.0] * len(priors))
    overlaps = overlaps_of(config.get("iou_calculator"), gts, priors)
    largest = overlaps.amax(dim=0).tolist()
    taker: dict[int, int] = {}
    for gt in range(len(gts)):
        for prior in ranked(overlaps[gt])[: config.get("topk", 2)]:
            enough = overlaps[gt, prior] >= config.get("min_pos_iou", 0.0)
            if enough and (prior not in taker or overlaps[gt, prior] > overlaps[taker[prior], prior]):
                taker[prior] = gt
    gt_inds = [
        taker[n] + 1 if n in taker else background(largest[n], config.get("neg_iou_thr", 0.3))
        for n in range(len(priors))
    ]
    quality = [overlaps[taker[n], n].item() if n in taker else largest[n] for n in range(len(priors))]
    return in_form(trial, gt_inds, quality)


def plain_hierarchical(trial: Trial) -> Result:
    """Each object takes its best priors, then more of the shrunk ones that are free; the last taker wins."""
    config, priors, gts = trial.config, trial.pred["priors"], trial.gt["bboxes"]
    if not len(gts) or not len(priors):
        return in_form(trial, [0] * len(priors), [0.0] * len(priors))
    calculator = config.get("iou_calculator", KLDOverlaps(floor=1e-3))
    center, half = (
        (priors[:, 2:] + priors[:, :2]) * 0.5,
        (priors[:, 2:] - priors[:, :2]) * 0.5 * config.get("ratio", 0.9),
    )
    full = overlaps_of(calculator, gts, priors)
    taker: dict[int, int] = {}
    for boxes, count in (
        (priors, config.get("topk", 3)),
        (torch.cat([center - half, center + half], 1), config.get("more", 1)),
    ):
        overlaps, before = overlaps_of(calculator, gts, boxes), set(taker)
        for gt in range(len(gts)):
            for prior in ranked(overlaps[gt], before)[:count]:
                best_wins = config.get("conflict") == "best" and prior in taker
                if not best_wins or overlaps[gt, prior] > overlaps[taker[prior], prior]:
                    taker[prior] = gt
    largest = full.amax(dim=0)
    threshold = config.get("neg_iou_thr", 0.8)
    gt_inds = [taker[n] + 1 if n in taker else background(largest[n].item(), threshold) for n in range(len(priors))]
    return in_form(trial, gt_inds, largest)


def plain_poto(trial: Trial) -> Result:
    """Each object takes the point of its highest quality; the higher quality wins, of equals the first object."""
    config, points, gts = trial.config, trial.pred["priors"], trial.gt["bboxes"]
    count = len(points)
    if not len(gts) or not count:
        return in_form(trial, [0] * count, [0.0] * count) | {"assign_metrics": torch.zeros(count)}
    iou = overlaps_of(config.get("iou_calculator"), gts, trial.pred["bboxes"])
    score = trial.pred["scores"].T[trial.gt["labels"].long()]
    alpha, radius = config.get("alpha", 0.8), config.get("center_radius", 1.5)
    quality = evenly(lambda x: x ** (1 - alpha), score) * evenly(lambda x: x**alpha, iou)
    best: dict[int, tuple[float, int]] = {}
    for gt, (x1, y1, x2, y2) in enumerate(gts.tolist()):
        chosen, most = -1, 0.0
        for n, (x, y, stride, *_) in enumerate(points.tolist()):
            inside = x1 < x < x2 and y1 < y < y2
            near = abs(x - (x1 + x2) / 2) < radius * stride and abs(y - (y1 + y2) / 2) < radius * stride
            if inside and near and quality[gt, n].item() > most:
                chosen, most = n, quality[gt, n].item()
        if chosen >= 0 and (chosen not in best or most > best[chosen][0]):
            best[chosen] = most, gt
    gt_inds = [best[n][1] + 1 if n in best else 0 for n in range(count)]
    overlaps = [iou[best[n][1], n].item() if n in best else 0.0 for n in range(count)]
    metrics = torch.tensor([best[n][0] if n in best else 0.0 for n in range(count)])
    return in_form(trial, gt_inds, overlaps) | {"assign_metrics": metrics}


PLAIN: dict[str, Callable[[Trial], Result]] = {
    "RankingAssigner": plain_ranking,
    "HierarchicalAssigner": plain_hierarchical,
    "POTOAssigner": plain_poto,
}
"""The loop of each assigner by its name."""
