"""A head's author, with types."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import visdet_assigners
from visdet_assigners import (
    IGNORED,
    NEGATIVE,
    AssignerInputError,
    Assignment,
    AssignResult,
    ATSSAssigner,
    HungarianAssigner,
    MaxIoUAssigner,
    TaskAlignedAssigner,
    atss,
    hungarian,
    match_costs,
    max_iou,
    replaced_counts,
    sim_ota,
    task_aligned,
)


def targets(priors: Tensor, gts: Tensor, labels: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
    decided: Assignment = atss(priors, gts, [64, 16], topk=9)
    again: Assignment = task_aligned(priors, gts, labels, boxes, scores, topk=13, alpha=1.0)
    points = torch.cat([priors[:, :2], priors[:, 2:]], dim=1)
    third = sim_ota(points, gts, labels, boxes, scores)
    fourth = max_iou(priors, gts, pos_iou_thr=0.5, neg_iou_thr=0.4)
    one_to_one = hungarian(torch.rand(3, 2))
    for each in (decided, again, third, fourth, one_to_one):
        positive = each.gt_index > NEGATIVE
        counted = each.gt_index != IGNORED
        print(int(positive.sum()), int(counted.sum()))
    return decided.gt_index


def through_a_class(priors: Tensor, gts: Tensor, labels: Tensor) -> int:
    assigner = ATSSAssigner(topk=9)
    result: AssignResult = assigner.assign(
        SimpleNamespace(priors=priors), SimpleNamespace(bboxes=gts, labels=labels), num_level_priors=[64, 16]
    )
    results: list[AssignResult] = assigner.assign_batch(
        [SimpleNamespace(priors=priors)], [SimpleNamespace(bboxes=gts, labels=labels)], num_level_priors=[64, 16]
    )
    number: int = result.num_gts + len(results)
    return number


def settings(options: dict[str, Any]) -> dict[tuple[str, str], int]:
    visdet_assigners.set_memory_budget(2**28)
    visdet_assigners.set_deterministic(True)
    visdet_assigners.set_on_nonfinite("replace")
    try:
        MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4)
        TaskAlignedAssigner(**options)
        HungarianAssigner([match_costs.FocalLossCost(weight=2.0), dict(type="BBoxL1Cost", weight=5.0)])
    except AssignerInputError as error:
        print(error.field, error.index, error.value)
    return replaced_counts()
