"""What MaxIoU promises of its own."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from scenes import anchors, drawn_objects, proposals
from visdet_assigners import MaxIoUAssigner, inputs
from visdet_assigners.assigners.max_iou import match_by_iou, max_iou
from visdet_assigners.functional import overlaps
from visdet_assigners.functional.boxes import box_iou
from visdet_assigners.functional.jitter import spread_repeated_boxes
from visdet_assigners.iou_calculators import BboxOverlaps2D
from visdet_assigners.settings import using

OBJECTS = [objects for objects in drawn_objects() if len(objects.boxes)]


def plain(iou, pos, neg, low_quality, assign_all):
    """The rule as plain loops, without thresholds for low-quality matches: index of the object, -1, or -2 ignored."""
    decided = []
    for row in iou.tolist():
        best = max(row)
        decided.append(row.index(best) if best >= pos else -1 if best < neg else -2)
    for gt in range(iou.shape[1]) if low_quality else ():
        column = iou[:, gt].tolist()
        best = max(column)
        takers = [prior for prior, value in enumerate(column) if value == best and best > 0]
        for prior in takers if assign_all else takers[:1]:
            decided[prior] = gt
    return decided


@pytest.mark.parametrize("assign_all", [True, False])
@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("objects", OBJECTS[:12], ids=lambda objects: objects.name)
def test_the_rule_as_plain_loops(objects, low_quality, assign_all):
    iou = box_iou(proposals(objects, 120, seed=1), objects.boxes)
    decided = match_by_iou(iou, 0.5, 0.4, gt_max_assign_all=assign_all, match_low_quality=low_quality)
    assert decided.gt_index.tolist() == plain(iou, 0.5, 0.4, low_quality, assign_all)
    assert torch.equal(decided.quality, iou.max(dim=1).values)


@pytest.mark.parametrize("assign_all", [True, False])
@pytest.mark.parametrize(
    "lost",
    [[50.0, 50.0, 50.0, 80.0], [2000.0, 2000.0, 2060.0, 2075.0], [10.0, 10.0, 10.0, 10.0]],
    ids=["no-width", "outside", "a-point"],
)
def test_an_object_that_overlaps_nothing_takes_nothing(lost, assign_all):
    """mmdet gives such an object every prior of IoU 0 when ``min_pos_iou`` is 0."""
    objects = OBJECTS[1]
    priors, _ = anchors(objects)
    with_lost = torch.cat([objects.boxes, torch.tensor([lost])])
    alone = max_iou(priors, objects.boxes, 0.5, 0.4, gt_max_assign_all=assign_all)
    assert torch.equal(max_iou(priors, with_lost, 0.5, 0.4, gt_max_assign_all=assign_all).gt_index, alone.gt_index)


@pytest.mark.parametrize("threshold", [0.4, np.float32(0.4), np.float64(0.4), [0, 0.4], (0.0, 0.4)])
def test_thresholds_of_any_type(threshold):
    """mmdet knows floats and tuples alone and leaves out the negatives for others without a word."""
    priors, _ = anchors(OBJECTS[2])
    pred = InstanceData(priors=priors)
    expected = MaxIoUAssigner(0.5, 0.4).assign(pred, OBJECTS[2].instances)
    result = MaxIoUAssigner(0.5, threshold).assign(pred, OBJECTS[2].instances)
    assert torch.equal(result.gt_inds, expected.gt_inds)
    assert (result.gt_inds == 0).any()


def test_whole_numbers_as_thresholds():
    iou = torch.tensor([[0.0], [0.9], [1.0]])
    assert match_by_iou(iou, 1, 1, match_low_quality=False).gt_index.tolist() == [-1, -1, 0]


def test_wrong_thresholds_are_named():
    with pytest.raises(ValueError, match="MaxIoUAssigner: neg_iou_thr"):
        MaxIoUAssigner(0.5, [0.1, 0.2, 0.3])


def test_thresholds_are_read_at_each_call():
    """Dynamic R-CNN changes them while it trains."""
    assigner = MaxIoUAssigner(0.5, 0.5, 0.5, match_low_quality=False)
    pred = InstanceData(priors=proposals(OBJECTS[2], 200, seed=1))
    before = (assigner.assign(pred, OBJECTS[2].instances).gt_inds > 0).sum()
    assigner.pos_iou_thr = assigner.neg_iou_thr = assigner.min_pos_iou = np.float64(0.7)
    after = assigner.assign(pred, OBJECTS[2].instances)
    assert 0 < (after.gt_inds > 0).sum() < before
    assert (after.gt_inds >= 0).all()


def test_given_overlaps():
    overlaps = torch.tensor([[0.9, 0.1, -1.0], [0.2, 0.3, -1.0]])  # (M, N), the last prior ignored
    result = MaxIoUAssigner(0.5, 0.4, 0.3).assign_wrt_overlaps(overlaps, torch.tensor([6, 7]))
    assert result.gt_inds.tolist() == [1, 2, -1]
    assert result.labels.tolist() == [6, 7, -1]


def test_many_objects_go_to_the_cpu_and_come_back():
    pred = InstanceData(priors=anchors(OBJECTS[3])[0])
    expected = MaxIoUAssigner(0.5, 0.4).assign(pred, OBJECTS[3].instances)
    result = MaxIoUAssigner(0.5, 0.4, gpu_assign_thr=2).assign(pred, OBJECTS[3].instances)
    assert torch.equal(result.gt_inds, expected.gt_inds)


def test_repeated_boxes_are_spread():
    boxes = torch.tensor([[10.0, 10.0, 60.0, 60.0]]).repeat(3, 1)
    single = torch.tensor([[100.0, 100.0, 160.0, 170.0]])
    torch.manual_seed(0)
    spread = spread_repeated_boxes(torch.cat([boxes, single]), BboxOverlaps2D(), iou_thr=0.7, perm_range=0.01)
    assert len(spread[:3].unique(dim=0)) == 3
    assert (box_iou(spread[:3], boxes[:1]) >= 0.7).all()
    assert torch.equal(spread[3:], single)


@pytest.mark.parametrize("batched", [False, True])
def test_positives_outside_their_object_can_be_ignored(batched):
    ignored = 0
    for objects in drawn_objects():
        priors, sizes = anchors(objects)
        pred, thresholds = InstanceData(priors=priors), dict(pos_iou_thr=0.5, neg_iou_thr=0.4)
        usual = MaxIoUAssigner(**thresholds).assign(pred, objects.instances)
        assigner = MaxIoUAssigner(**thresholds, ignore_outside_gt=True)
        result = assigner.assign(pred, sizes, objects.instances)  # the order of ATSSHead's call
        if batched:
            (result,) = assigner.assign_batch([pred], [objects.instances])
        expected = usual.gt_inds.tolist()
        for row, number in enumerate(expected):
            if number > 0:
                (x1, y1, x2, y2), (left, top, right, bottom) = priors[row], objects.boxes[number - 1]
                x, y = (x1 + x2) / 2, (y1 + y2) / 2
                if min(x - left, y - top, right - x, bottom - y) <= 0.01:
                    expected[row] = -1
        assert result.gt_inds.tolist() == expected
        assert torch.equal(result.max_overlaps, usual.max_overlaps)
        assert torch.equal(result.labels, torch.where(result.gt_inds > 0, usual.labels, -1))
        ignored += int((result.gt_inds != usual.gt_inds).sum())
    assert ignored > 100


@pytest.mark.parametrize("budget", [10**9, 100_000])
def test_ignore_regions_hold_where_no_object_is_near(budget):
    """The blocks of priors there have nothing to compare with."""
    corner = torch.arange(0.0, 8000.0, 4.0)
    priors = torch.stack([corner, torch.zeros(2000), corner + 8, torch.full((2000,), 8.0)], dim=1)
    assigner = MaxIoUAssigner(0.5, 0.4, ignore_iof_thr=0.5, memory_budget=budget)
    gt = InstanceData(bboxes=priors[:20] + 1, labels=torch.arange(20))
    result = assigner.assign(InstanceData(priors=priors), gt, InstanceData(bboxes=torch.tensor([[6000.0, 0, 8100, 9]])))
    assert (result.gt_inds[1500:] == -1).all()
    assert (result.max_overlaps[1500:] == -1).all()
    assert (result.gt_inds[100:1400] == 0).all()
    assert (result.gt_inds[:20] > 0).sum() == 20


@pytest.mark.parametrize("low_quality", [False, True])
def test_given_overlaps_with_ignored_priors(low_quality):
    """An ignored prior takes no part: nobody's best, and out of the loss."""
    iou = torch.tensor([[0.9, 0.1], [0.2, 0.45], [0.1, 0.3], [0.0, 0.0]])
    ignored = torch.tensor([False, True, False, False])
    found = match_by_iou(iou, 0.5, 0.4, match_low_quality=low_quality, ignored=ignored)
    assert found.gt_index.tolist() == [0, -2, 1 if low_quality else -1, -1]
    assert found.quality.tolist() == pytest.approx([0.9, -1, 0.3, 0])
    nobody = match_by_iou(iou[:, :0], 0.5, 0.4, ignored=ignored)
    assert nobody.gt_index.tolist() == [-1, -2, -1, -1]
    assert nobody.quality.tolist() == [0, -1, 0, 0]


def test_an_overlap_that_is_a_threshold():
    """It reaches ``pos_iou_thr`` and the lower end of a band, and is not below ``neg_iou_thr``."""
    iou = torch.tensor([[0.5, 0.25], [0.0, 0.5], [0.25, 0.125], [0.125, 0.0]])
    for negatives, expected in ((0.25, [0, 1, -2, -1]), ((0.125, 0.25), [0, 1, -2, -1]), ((0.25, 0.5), [0, 1, -1, -2])):
        assert match_by_iou(iou, 0.5, negatives, match_low_quality=False).gt_index.tolist() == expected
    low = torch.tensor([[0.25, 0.125]])
    assert match_by_iou(low, 0.5, 0.5, min_pos_iou=0.125).gt_index.tolist() == [1]
    assert match_by_iou(low, 0.5, 0.5, min_pos_iou=0.25).gt_index.tolist() == [0]
    assert match_by_iou(low, 0.5, 0.5, min_pos_iou=0.26).gt_index.tolist() == [-1]


@pytest.mark.parametrize("pos_iou_thr", [0.0, 0.5])
def test_an_overlap_that_is_a_threshold_in_blocks(pos_iou_thr, monkeypatch):
    """Where nothing overlaps, the first object is as good as any, and no other, in whatever blocks."""
    monkeypatch.setattr(overlaps, "LEAST", 8)
    corner = torch.arange(0.0, 2000.0, 10.0)
    priors = torch.stack([corner, 0 * corner, corner + 10, 0 * corner + 10], dim=1)
    gts = torch.tensor([[500.0, 0, 510, 5], [1000, 0, 1010, 5], [0, 0, 10, 5]])
    with using(memory_budget=100):
        found = max_iou(priors, gts, pos_iou_thr, 0.3, match_low_quality=False)
    rest = 0 if pos_iou_thr == 0 else -1
    expected = torch.full((200,), rest)
    expected[[50, 100, 0]] = torch.tensor([0, 1, 2])
    assert torch.equal(found.gt_index, expected)


def test_thresholds_that_cross_are_told_once(recwarn):
    inputs.warned.clear()
    for _ in range(2):
        MaxIoUAssigner(0.5, 0.5)
        MaxIoUAssigner(0.5, (0.1, 0.5))
    assert not recwarn
    for _ in range(2):
        MaxIoUAssigner(0.3, 0.4)
        MaxIoUAssigner(0.3, [0.1, 0.4])
    (warning,) = recwarn
    assert "MaxIoUAssigner: neg_iou_thr 0.4 is above pos_iou_thr 0.3" in str(warning.message)


@pytest.mark.parametrize("on_device", ["0", "1"])
def test_lists_of_images(on_device, monkeypatch):
    """An image without objects, one without priors, one with regions among others without."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", on_device)
    objects = OBJECTS[3]
    priors = anchors(objects)[0]
    pred, nothing = InstanceData(priors=priors), InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    few, none = InstanceData(priors=priors[::7]), InstanceData(priors=priors[:0])
    regions = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 120.0, 120.0]]))
    twice = InstanceData(bboxes=objects.boxes.repeat(2, 1), labels=objects.labels.repeat(2))
    preds, gts = [pred, few, none, pred], [twice, twice, objects.instances, nothing]
    ignores = [None, regions, regions, regions]
    for options in (dict(ignore_iof_thr=0.5), dict(ignore_iof_thr=0.5, perm_repeat_gt_cfg=dict(iou_thr=0.7))):
        assigner = MaxIoUAssigner(0.5, 0.4, **options)
        torch.manual_seed(0)
        together = assigner.assign_batch(preds, gts, ignores)
        torch.manual_seed(0)
        for each, *fields in zip(together, preds, gts, ignores, strict=True):
            alone = assigner.assign(*fields)
            for name in ("gt_inds", "labels", "max_overlaps"):
                assert torch.equal(getattr(each, name), getattr(alone, name))
        assert (together[3].gt_inds == -1).any()
    assert assigner.assign_batch([], []) == []
    (alone,) = MaxIoUAssigner(0.5, 0.4).assign_batch([pred], [twice])
    assert torch.equal(alone.gt_inds, MaxIoUAssigner(0.5, 0.4).assign(pred, twice).gt_inds)


def test_the_image_of_a_list_that_is_wrong_is_named(monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    objects = OBJECTS[3]
    preds = [InstanceData(priors=anchors(objects)[0]) for _ in range(3)]
    preds[1].priors = preds[1].priors.clone()
    preds[1].priors[5, 2] = float("nan")
    metas = [dict(img_path=f"{number}.jpg") for number in range(3)]
    assigner = MaxIoUAssigner(0.5, 0.4, on_nonfinite="raise")
    with pytest.raises(ValueError, match=r"priors\[5, 2\] is nan.*\(image 1.jpg\)"):
        assigner.assign_batch(preds, [objects.instances] * 3, None, metas)


def test_repeated_boxes_are_drawn_again_where_they_would_be_too_far_or_inverted():
    """Five times at most; every draw comes from torch's generator."""
    box = torch.tensor([[10.0, 10.0, 60.0, 60.0]]).repeat(2, 1)
    draws = []

    def calculator(original, drawn):
        draws.append(drawn)
        return torch.full((len(original), len(drawn)), 0.96 if len(draws) < 4 else 0.98)

    found = spread_repeated_boxes(box, calculator, iou_thr=0.97)
    assert len(draws) == 4
    assert torch.equal(found, draws[-1])
    draws.clear()
    spread_repeated_boxes(box, lambda *boxes: draws.append(boxes) or torch.zeros(1, 2), iou_thr=0.97)
    assert len(draws) == 6
    draws.clear()
    spread_repeated_boxes(box, lambda *boxes: draws.append(boxes) or torch.full((1, 2), 0.9), iou_thr=0.9)
    assert len(draws) == 1  # the first may be as far as the caller says
    calls = []
    thin = torch.tensor([[1000.0, 10.0, 1004.0, 60.0]]).repeat(2, 1)
    for seed in range(20):
        torch.manual_seed(seed)
        spread_repeated_boxes(thin, lambda *boxes: calls.append(boxes) or torch.ones(1, 2), iou_thr=0.0)
    assert len(calls) > 10
    assert all((drawn[:, 2:] > drawn[:, :2]).all() for _, drawn in calls)
    flat, calls = torch.tensor([[10.0, 10.0, 10.0, 60.0]]).repeat(2, 1), []
    spread_repeated_boxes(flat, lambda *boxes: calls.append(boxes) or torch.ones(1, 2), iou_thr=0.0, perm_range=0.0)
    assert all((drawn[:, 2:] > drawn[:, :2]).all() for _, drawn in calls)  # a side of 0 doesn't count as upright
