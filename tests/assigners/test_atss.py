"""What ATSS promises of its own."""

import statistics

import pytest
import torch
from mmengine.structures import InstanceData

from scenes import anchors, drawn_objects
from visdet_assigners import ATSSAssigner
from visdet_assigners.assigners.atss import atss

OBJECTS = [objects for objects in drawn_objects() if len(objects.boxes)]


def plain(priors, gts, level_sizes, topk):
    """Algorithm 1 of the paper as loops; None where the nearest priors are not decided (ties)."""

    def iou(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        inter = max(width, 0) * max(height, 0)
        return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)

    priors, gts = priors.double().tolist(), gts.double().tolist()
    center = [((p[0] + p[2]) / 2, (p[1] + p[3]) / 2) for p in priors]
    best = [(0.0, -1)] * len(priors)
    for number, gt in enumerate(gts):
        middle = ((gt[0] + gt[2]) / 2, (gt[1] + gt[3]) / 2)
        candidates, start = [], 0
        for size in level_sizes:
            level = range(start, start + size)
            distance = {i: (center[i][0] - middle[0]) ** 2 + (center[i][1] - middle[1]) ** 2 for i in level}
            ranked = sorted(level, key=distance.__getitem__)
            if len(ranked) > topk and distance[ranked[topk]] - distance[ranked[topk - 1]] < 1e-3:
                return None
            candidates += ranked[:topk]
            start += size
        overlap = {i: iou(priors[i], gt) for i in candidates}
        threshold = statistics.mean(overlap.values()) + statistics.stdev(overlap.values())
        for i in candidates:
            x, y = center[i]
            inside = min(x - gt[0], y - gt[1], gt[2] - x, gt[3] - y) > 0.01
            if inside and overlap[i] >= threshold and overlap[i] > best[i][0]:
                best[i] = (overlap[i], number)
    return [number for _, number in best]


def test_the_published_algorithm_as_plain_loops():
    compared = 0
    for objects in OBJECTS:
        if not objects.name.startswith(("mixed", "small")):
            continue
        priors, sizes = anchors(objects)
        expected = plain(priors, objects.boxes, sizes, topk=9)
        if expected is not None:
            compared += 1
            assert atss(priors, objects.boxes, sizes, topk=9).gt_index.tolist() == expected
    assert compared >= 8


def test_threshold_by_hand():
    """Three candidates of IoU 1, .25, .25: mean .5 + std .433 = .933, so the first alone is positive."""
    priors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [2.0, 2.0, 6.0, 6.0], [1.5, 2.0, 5.5, 6.0]])
    decided = atss(priors, torch.tensor([[0.0, 0.0, 8.0, 8.0]]), [3])
    assert decided.gt_index.tolist() == [0, -1, -1]
    assert decided.quality.tolist() == [1.0, 0.0, 0.0]


def test_a_prior_claimed_twice_goes_to_the_higher_iou():
    priors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [90.0, 90.0, 92.0, 92.0], [80.0, 80.0, 82.0, 82.0]])
    gts = torch.tensor([[0.0, 0.0, 8.0, 9.0], [0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]])
    assert atss(priors, gts, [3]).gt_index.tolist() == [1, -1, -1]  # and to the first of equals


def test_levels_that_dont_sum_up_are_named():
    objects = OBJECTS[0]
    priors, sizes = anchors(objects)
    with pytest.raises(ValueError, match=r"ATSSAssigner: sum\(num_level_priors\) is \d+ but there are \d+ priors"):
        ATSSAssigner(9).assign(InstanceData(priors=priors[1:]), sizes, objects.instances)


def test_a_head_that_passes_no_levels_is_told():
    objects = OBJECTS[0]
    with pytest.raises(ValueError, match="num_level_priors is a InstanceData, not a list"):
        ATSSAssigner(9).assign(InstanceData(priors=anchors(objects)[0]), objects.instances, None)


def test_alpha_needs_predictions():
    objects = OBJECTS[0]
    priors, sizes = anchors(objects)
    with pytest.raises(ValueError, match=r"alpha is 0\.8, which needs scores and bboxes"):
        ATSSAssigner(9, alpha=0.8).assign(InstanceData(priors=priors), sizes, objects.instances)


def test_predictions_without_alpha_are_noticed():
    objects = OBJECTS[0]
    priors, sizes = anchors(objects)
    pred = InstanceData(priors=priors, bboxes=priors, scores=torch.zeros(len(priors), 8))
    with pytest.warns(UserWarning, match="not used without alpha"):
        ATSSAssigner(9).assign(pred, sizes, objects.instances)


def test_topk_of_zero_is_refused():
    with pytest.raises(ValueError, match="ATSSAssigner: topk is 0"):
        ATSSAssigner(0)
