"""What TopkHungarian promises of its own."""

import itertools

import torch

from assigners.cases import CASES, DINO
from scenes import drawn_objects
from visdet_assigners import (
    TopkHungarianAssigner,
)
from visdet_assigners.assigners.topk_hungarian import topk_hungarian


def test_no_other_topk_matching_is_cheaper():
    cost = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    rows, columns = topk_hungarian(cost, topk=2)
    assert columns.bincount().tolist() == [2, 2]
    choices = itertools.permutations(range(5), 4)
    best = min(sum(cost[row, number // 2] for number, row in enumerate(chosen)) for chosen in choices)
    torch.testing.assert_close(cost[rows, columns].sum(), best)


def test_every_prediction_is_matched_where_there_are_more_objects():
    """mmdet matches none, and returns None as labels, which its sampler can't read."""
    objects = drawn_objects()[3]
    case = CASES["TopkHungarianAssigner"]
    pred = case.pred(objects)[:2]
    result = case.assign(objects, pred)
    assert len(set(result.gt_inds.tolist()) - {0}) == 2
    assert torch.equal(result.labels, objects.labels[result.gt_inds - 1])
    assert result.assign_metrics.shape == result.max_overlaps.shape == (2,)


def test_costs_of_topk_can_be_chosen():
    made = TopkHungarianAssigner(4, cls_cost=DINO[0], reg_cost=DINO[1], iou_cost=DINO[2])
    assert made.reg_cost.box_format == "xywh"
    assert TopkHungarianAssigner(4).reg_cost.box_format == "xyxy"
