"""POTO by matching: the largest sum of qualities, beside scipy on the whole matrix; by argmax see the fuzzing."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from assigners.cases import scene
from visdet_assigners import poto
from visdet_assigners.functional.boxes import box_iou
from visdet_assigners.testing.feeds import pointwise


@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
@pytest.mark.parametrize("kind", ["mixed", "small"])
def test_the_largest_sum_of_qualities(way, kind, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    objects = scene(40, kind, seed=4)
    pred, gts, labels = pointwise(objects), objects.boxes, objects.labels
    iou = box_iou(gts, pred.bboxes)
    quality = pred.scores.T[labels] ** 0.2 * iou**0.8  # (M, N)
    x, y, stride, _ = pred.priors.T
    for gt, (x1, y1, x2, y2) in enumerate(gts.tolist()):
        allowed = (x > x1) & (x < x2) & (y > y1) & (y < y2)
        allowed &= (x - (x1 + x2) / 2).abs() < 1.5 * stride
        allowed &= (y - (y1 + y2) / 2).abs() < 1.5 * stride
        quality[gt] *= allowed
    rows, columns = linear_sum_assignment(quality.numpy(), maximize=True)
    most = quality[rows, columns].sum()
    sums = {}
    for matching in ("hungarian", "argmax"):
        found = poto(pred.priors, gts, labels, pred.bboxes, pred.scores, matching=matching)
        positive = (found.gt_index >= 0).nonzero()[:, 0]
        assert len(found.gt_index[positive].unique()) == len(positive) > 10
        own = quality[found.gt_index[positive], positive]
        assert (own > 0).all()
        torch.testing.assert_close(found.extras["assign_metrics"][positive], own)
        assert torch.equal(found.quality[positive], iou[found.gt_index[positive], positive])
        sums[matching] = own.sum()
    torch.testing.assert_close(sums["hungarian"], most)
    assert sums["argmax"] <= sums["hungarian"] + 1e-5
