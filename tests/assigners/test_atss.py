"""What ATSS promises of its own."""

import statistics

import pytest
import torch
from mmengine.structures import InstanceData

from scenes import anchors, drawn_objects
from visdet_assigners import ATSSAssigner, inputs
from visdet_assigners.assigners.atss import atss
from visdet_assigners.functional.boxes import box_iou

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


def test_a_call_without_levels_is_told():
    objects = OBJECTS[0]
    pred = InstanceData(priors=anchors(objects)[0])
    with pytest.raises(ValueError, match=r"neither num_level_priors nor .*level_ids .*feed it: .*RPN, RetinaNet"):
        ATSSAssigner(9).assign(pred, objects.instances, None)
    pred.level_ids = torch.arange(len(pred)).flip(0)
    with pytest.raises(ValueError, match="level_ids must ascend"):
        ATSSAssigner(9).assign(pred, objects.instances, None)


def test_levels_come_second_by_name_or_as_numbers_of_each_prior():
    objects = OBJECTS[2]
    priors, sizes = anchors(objects)
    pred, gt = InstanceData(priors=priors), objects.instances
    ignore = InstanceData(bboxes=torch.tensor([[100.0, 60.0, 300.0, 220.0]]))
    assigner = ATSSAssigner(9, ignore_iof_thr=0.5)
    second = assigner.assign(pred, sizes, gt, ignore)
    assert (second.gt_inds > 0).any()
    assert (second.gt_inds < 0).any()
    level_ids = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    for other in (
        assigner.assign(pred, gt, ignore, num_level_priors=sizes),
        assigner.assign(pred_instances=pred, num_level_priors=sizes, gt_instances=gt, gt_instances_ignore=ignore),
        assigner.assign(InstanceData(priors=priors, level_ids=level_ids), gt, ignore),
    ):
        assert torch.equal(other.gt_inds, second.gt_inds)


def test_topk_per_location_takes_all_anchors_of_the_nearest_places():
    """Each place's anchors are positive or negative for themselves, but candidates together."""
    objects = next(scene for scene in OBJECTS if scene.name == "mixed-12-403")
    ratios = (0.5, 1.0, 2.0)
    priors, sizes = anchors(objects, ratios)
    per_location = ATSSAssigner(5, topk_per_location=True, num_anchors_per_location=3)
    result = per_location.assign(InstanceData(priors=priors), sizes, objects.instances)
    compared = 0
    for number, box in enumerate(objects.boxes):
        alone = atss(priors, box[None], sizes, topk=15)
        expected = plain_of_locations(priors, box, sizes, places=5, per_place=3)
        if expected is not None:
            compared += 1
            assert (alone.gt_index >= 0).tolist() == expected
        taken = (result.gt_inds == number + 1).tolist()
        assert all(not mine or own for mine, own in zip(taken, (alone.gt_index >= 0).tolist()))
    assert compared >= 5
    assert torch.equal(
        result.gt_inds, ATSSAssigner(15).assign(InstanceData(priors=priors), sizes, objects.instances).gt_inds
    )
    assert not torch.equal(
        result.gt_inds, ATSSAssigner(5).assign(InstanceData(priors=priors), sizes, objects.instances).gt_inds
    )


def plain_of_locations(priors, box, level_sizes, places, per_place):
    """One box, the candidates being all anchors of the nearest places; None where ties leave these open."""
    boxes, x, y = priors.double(), (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    candidates, start = [], 0
    for size in level_sizes:
        first = boxes[start : start + size : per_place]
        distance = torch.hypot((first[:, 0] + first[:, 2]) / 2 - x, (first[:, 1] + first[:, 3]) / 2 - y)
        order = distance.argsort()
        if len(order) > places and distance[order[places]] - distance[order[places - 1]] < 1e-3:
            return None
        candidates += [start + place * per_place + a for place in order[:places].tolist() for a in range(per_place)]
        start += size
    own = boxes[candidates]
    overlap = box_iou(own, box[None].double())[:, 0]
    center_x, center_y = (own[:, 0] + own[:, 2]) / 2, (own[:, 1] + own[:, 3]) / 2
    to_borders = torch.stack([center_x - box[0], center_y - box[1], box[2] - center_x, box[3] - center_y]).amin(dim=0)
    positive = (overlap >= overlap.mean() + overlap.std()) & (to_borders > 0.01)
    chosen = {candidate for candidate, is_positive in zip(candidates, positive.tolist()) if is_positive}
    return [row in chosen for row in range(len(priors))]


def test_alpha_needs_predictions():
    objects = OBJECTS[0]
    priors, sizes = anchors(objects)
    with pytest.raises(ValueError, match=r"alpha is 0\.8, which needs scores and bboxes"):
        ATSSAssigner(9, alpha=0.8).assign(InstanceData(priors=priors), sizes, objects.instances)


def test_numbers_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="ATSSAssigner: topk is 0"):
        ATSSAssigner(0)
    with pytest.raises(ValueError, match="num_anchors_per_location is 0"):
        ATSSAssigner(9, topk_per_location=True, num_anchors_per_location=0)
    with pytest.raises(ValueError, match="no effect without topk_per_location"):
        ATSSAssigner(9, num_anchors_per_location=2)


def test_a_centre_lies_inside_by_more_than_a_hundredth_of_a_pixel():
    """Of four priors around the border of an object, of the same IoU: their centres are 0, .01, .015 and 1 inside."""
    gt = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    for inside, positive in ((0.0, False), (0.01, False), (0.015, True)):
        prior = torch.tensor([[0.0, 6.0, 2 * inside, 14.0]])  # its centre is exact
        assert (atss(prior, gt, [1], topk=1).gt_index == 0).item() == positive
    for inside, positive in ((0.0, False), (0.0099, False), (0.015, True), (1.0, True)):
        prior = torch.tensor([[inside - 4, 6.0, inside + 4, 14.0]])
        assert (atss(prior, gt, [1], topk=1).gt_index == 0).item() == positive
        mirrored = torch.tensor([[6.0, 20 - inside - 4, 14.0, 20 - inside + 4]])
        assert (atss(mirrored, gt, [1], topk=1).gt_index == 0).item() == positive


def test_candidates_of_one_iou_reach_their_threshold():
    """They deviate from nothing; four squares in the corners of an object."""
    corners = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16]])
    found = atss(corners, torch.tensor([[0.0, 0.0, 16.0, 16.0]]), [4], topk=4)
    assert found.gt_index.tolist() == [0, 0, 0, 0]
    assert found.quality.tolist() == [0.25] * 4


def test_two_candidates_never_reach_their_threshold():
    """Mean and standard deviation of two are above the larger, unless they are equal."""
    priors = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 6]])
    assert atss(priors, torch.tensor([[0.0, 0.0, 8.0, 8.0]]), [2]).gt_index.tolist() == [-1, -1]
    assert atss(priors[[0, 0]], torch.tensor([[0.0, 0.0, 8.0, 8.0]]), [2]).gt_index.tolist() == [0, 0]


def test_nine_candidates_where_nothing_is_said():
    """The paper's k: of twelve priors side by side the nine nearest are candidates, and lift the threshold alike."""
    left = torch.arange(12.0) * 8
    priors = torch.stack([left, 0 * left, left + 8, 0 * left + 8], dim=1)
    gt = torch.tensor([[0.0, 0.0, 30.0, 8.0]])
    results = {k: atss(priors, gt, [12], topk=k) for k in (4, 9, 12)}
    assert torch.equal(atss(priors, gt, [12]).gt_index, results[9].gt_index)
    assert not torch.equal(results[4].gt_index, results[9].gt_index)


def test_predictions_without_alpha_are_told_once(recwarn):
    inputs.warned.clear()
    gt = InstanceData(bboxes=torch.ones(0, 4), labels=torch.zeros(0).long())
    boxes, scores = torch.zeros(1, 4), torch.zeros(1, 2)
    for fields in (dict(), dict(scores=scores), dict(bboxes=boxes)):
        ATSSAssigner(9).assign(InstanceData(priors=boxes, **fields), [1], gt)
    assert not recwarn
    for _ in range(2):
        ATSSAssigner(9).assign(InstanceData(priors=boxes, scores=scores, bboxes=boxes), [1], gt)
    (warning,) = recwarn
    assert str(warning.message).startswith("ATSSAssigner: pred_instances has scores and bboxes, not used without alpha")
