"""Options for small and crowded objects: TaskAligned's, SimOTA's and DynamicSoftLabel's, beside plain loops."""

import pytest
import torch

import visdet_assigners as va
from assigners.cases import scene
from visdet_assigners.functional.boxes import INSIDE, box_iou, with_least_sides
from visdet_assigners.functional.costs import one_hot_cost
from visdet_assigners.functional.resolve import match_dynamic_k
from visdet_assigners.testing.feeds import ground_truths, pointwise, probable

both_ways = pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
SCENES = [scene(12, seed=1), scene(40, "small", seed=2), scene(60, "mixed", seed=3)]


def plain_task_aligned(pred, gts, labels, topk, topk2=None, side_floor=None, inside_first=False):
    """TOOD's rule and YOLO26's changes to it."""
    iou = box_iou(gts, pred.bboxes)
    alignment = pred.scores.T[labels] * iou**6
    x, y = ((pred.priors[:, i] + pred.priors[:, i + 2]) / 2 for i in (0, 1))
    taker = {}
    for gt, (x1, y1, x2, y2) in enumerate(gts.tolist()):
        if side_floor is not None:
            least, counted = side_floor
            middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
            if x2 - x1 < least:
                x1, x2 = middle_x - counted / 2, middle_x + counted / 2
            if y2 - y1 < least:
                y1, y2 = middle_y - counted / 2, middle_y + counted / 2
        inside = (x - x1 > INSIDE) & (x2 - x > INSIDE) & (y - y1 > INSIDE) & (y2 - y > INSIDE)
        own = alignment[gt] * inside if inside_first else alignment[gt]
        for prior in own.topk(topk).indices.tolist():
            better = prior not in taker or iou[gt, prior] > iou[taker[prior], prior]
            if inside[prior] and own[prior] > 0 and better:
                taker[prior] = gt
    if topk2 is not None:
        for gt in range(len(gts)):
            own = sorted((prior for prior in taker if taker[prior] == gt), key=lambda n: -alignment[gt, n].item())
            for prior in own[topk2:]:
                del taker[prior]
    return [taker.get(n, -1) + 1 for n in range(len(pred.priors))]


@both_ways
@pytest.mark.parametrize("topk2", [None, 1, 3, 20])
@pytest.mark.parametrize("side_floor", [None, (8, 16), (30, 30)])
@pytest.mark.parametrize("order", ["topk_then_inside", "inside_then_topk"])
def test_task_aligned(way, topk2, side_floor, order, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    assigner = va.TaskAlignedAssigner(13, candidate_order=order, topk2=topk2, side_floor=side_floor)
    differs = False
    for objects in SCENES:
        pred = probable(objects)
        found = assigner.assign(pred, ground_truths(objects))
        inside_first = order == "inside_then_topk"
        plain = plain_task_aligned(pred, objects.boxes, objects.labels, 13, topk2, side_floor, inside_first)
        assert found.gt_inds.tolist() == plain
        stock = va.TaskAlignedAssigner(13, candidate_order=order).assign(pred, ground_truths(objects))
        differs |= not torch.equal(stock.gt_inds, found.gt_inds)
        positive = found.gt_inds > 0
        if topk2 is not None:
            assert torch.bincount(found.gt_inds[positive]).max() <= topk2
        if topk2 == 1:  # the best of each gets its IoU as target
            torch.testing.assert_close(
                found.norm_metrics[positive], found.max_overlaps[positive] * (found.assign_metrics[positive] / (
                    found.assign_metrics[positive] + 1e-7))
            )  # fmt: skip
    assert differs == (topk2 in (1, 3) or side_floor is not None)


def test_sides_count_apart():
    boxes = torch.tensor([[10.0, 10.0, 14.0, 40.0], [0.1, 0.2, 30.3, 30.7]])
    assert with_least_sides(boxes, 8, 16).tolist() == [[4.0, 10.0, 20.0, 40.0], boxes[1].tolist()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(topk2=0), "topk2 is 0"), (dict(side_floor=8), "side_floor is 8; .least, counted. is expected"),
        (dict(side_floor=(16, 8)), "side_floor is 8"),
    ],
)  # fmt: skip
def test_wrong_options_of_task_aligned(options, message):
    with pytest.raises(ValueError, match=message):
        va.TaskAlignedAssigner(13, **options)


def plain_sim_ota(pred, gts, labels, topk, radius, region, conflict):
    """YOLOX's rule in loops over objects."""
    x, y, stride, _ = pred.priors.T
    iou = box_iou(gts, pred.bboxes)
    cost = one_hot_cost(pred.scores, labels).T + 3 * -torch.log(iou + 1e-7)
    inside, near = (torch.zeros_like(iou, dtype=torch.bool) for _ in range(2))
    for gt, (x1, y1, x2, y2) in enumerate(gts.tolist()):
        inside[gt] = (x > x1) & (x < x2) & (y > y1) & (y < y2)
        near[gt] = ((x - (x1 + x2) / 2).abs() < radius * stride) & ((y - (y1 + y2) / 2).abs() < radius * stride)
    candidates = (near if region == "center" else inside | near).any(0)
    cost = cost + (~near * 1e6 if region == "center" else ~(inside & near) * 1e5)
    rows = candidates.nonzero()[:, 0].tolist()
    takers = {}
    for gt in range(len(gts)):
        values = sorted((iou[gt, n].item() for n in rows), reverse=True)[:topk]
        count = max(1, int(torch.tensor(values).sum()))
        for n in sorted(rows, key=lambda n: (cost[gt, n].item(), n))[:count]:
            takers.setdefault(n, []).append(gt)
    found = []
    for n in range(len(x)):
        own = takers.get(n, [])
        if len(own) > 1:
            among = range(len(gts)) if conflict == "all" else own
            own = [min(among, key=lambda gt: cost[gt, n].item())]
        found.append(own[0] + 1 if own else 0)
    return found


@both_ways
@pytest.mark.parametrize("region", ["box_and_center", "center"])
@pytest.mark.parametrize("conflict", ["all", "selected"])
def test_sim_ota(way, region, conflict, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    assigner = va.SimOTAAssigner(1.5, candidate_region=region, conflict=conflict, deterministic=True)
    differs = False
    for objects in SCENES:
        pred, gt = pointwise(objects), ground_truths(objects)
        found = assigner.assign(pred, gt)
        plain = plain_sim_ota(pred, objects.boxes, objects.labels, 10, 1.5, region, conflict)
        assert found.gt_inds.tolist() == plain
        differs |= plain != va.SimOTAAssigner(1.5, deterministic=True).assign(pred, gt).gt_inds.tolist()
    assert differs == (region == "center")  # drawn objects seldom lose all their points to others


@both_ways
def test_a_contested_prior_stays_with_those_that_took_it(way, monkeypatch):
    """Prior 0 is taken by objects 0 and 1, and cheapest for object 2, which takes prior 1 alone."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    cost = torch.tensor([[2.0, 9.0], [3.0, 9.0], [1.0, 0.5]])
    iou = torch.full((3, 2), 0.4)
    some = (lambda block: iou[block], lambda block, _: cost[block].clone(), torch.ones(2).bool(), torch.ones(3).bool())
    assert match_dynamic_k(*some, topk=1)[0].tolist() == [2, 2]
    assert match_dynamic_k(*some, topk=1, conflict="selected")[0].tolist() == [0, 2]


def test_dynamic_soft_label_leaves_fewer_objects_without():
    counts = {}
    for conflict in ("all", "selected"):
        assigner = va.DynamicSoftLabelAssigner(conflict=conflict)
        found = [assigner.assign(pointwise(each), ground_truths(each)).gt_inds for each in SCENES]
        counts[conflict] = sum(len(inds[inds > 0].unique()) for inds in found)
    assert counts["selected"] > counts["all"]


@pytest.mark.parametrize("cls", [va.SimOTAAssigner, va.DynamicSoftLabelAssigner])
def test_unknown_words_are_refused(cls):
    with pytest.raises(ValueError, match="conflict is 'some'; choose one of all, selected"):
        cls(conflict="some")
