"""``min_positives=1``: what an object gets that an assignment leaves without, beside a plain loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import visdet_assigners as va
from assigners.cases import CASES, scene
from scenes import anchors
from visdet_assigners.assigners.covering import cover
from visdet_assigners.functional.boxes import INSIDE, box_iou, box_overlaps
from visdet_assigners.functional.overlaps import IOU
from visdet_assigners.testing.drawing import IMAGES, ground_truths, predicted, priors

COVERED = [name for name, case in CASES.items() if getattr(case.build(), "min_positives", 0)]
OFFLINE = {"GridAssigner-covered", "RegionAssigner-covered"}  # few of their priors may be positive


def plain_cover(gt_index, gts, boxes, points, free, inside):
    """In rounds: each object without a prior wants its best one, and the one that it is best for gets it."""
    iou = box_iou(gts, boxes)
    center = (gts[:, :2] + gts[:, 2:]) / 2
    spots = (points[:, :2] + points[:, 2:]) / 2
    square = (spots - center[:, None]).square()
    square = square[..., 0] + square[..., 1]
    lists = {}
    for gt, (x1, y1, x2, y2) in enumerate(gts.tolist()):
        if (gt_index == gt).any() or (x2 - x1) * (y2 - y1) <= 0:
            continue
        ranks = []
        for n, (x, y) in enumerate(spots.tolist()):
            lies_inside = min(x - x1, x2 - x, y - y1, y2 - y) > INSIDE
            if free[n] and (lies_inside or not inside):
                rank = iou[gt, n].item() if iou[gt, n] > 0 else -square[gt, n].item()
                ranks.append((-rank, n))
        lists[gt] = sorted(ranks)[:8]
    taken = {}
    for _ in range(8):
        wishes = {}
        for gt, ranks in lists.items():
            ranks[:] = [(rank, n) for rank, n in ranks if n not in taken]
            if gt not in taken.values() and ranks:
                rank, n = ranks[0]
                if n not in wishes or rank < wishes[n][0]:
                    wishes[n] = rank, gt
        taken |= {n: gt for n, (_, gt) in wishes.items()}
    return [taken.get(n, -1) for n in range(len(boxes))]


@st.composite
def left_over(draw):
    image = draw(IMAGES)
    gts, made = draw(ground_truths(image))["bboxes"], draw(priors(image, 1)).boxes
    boxes = draw(predicted(made, gts)) if len(made) else made
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    gt_index = torch.randint(-2, max(1, len(gts)), (len(made),), generator=generator)
    gt_index = torch.where(torch.rand(len(made), generator=generator) < 0.7, -1, gt_index)
    free = (gt_index < 0) & (torch.rand(len(made), generator=generator) < 0.8)
    return gt_index, gts, boxes, made, free


@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
@given(left_over(), st.booleans())
def test_as_the_plain_loop(way, drawn, inside):
    gt_index, gts, boxes, points, free = drawn
    if not len(gt_index) or not len(gts):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
        taker, overlap = cover(gt_index, gts, boxes, points, free, IOU, inside)
    assert taker.tolist() == plain_cover(gt_index, gts, boxes, points, free, inside)
    given_to = taker.clamp(min=0)
    own = box_iou(gts, boxes).gather(0, given_to[None])[0]
    assert torch.equal(overlap, torch.where(taker >= 0, own, 0))


@pytest.mark.parametrize("name", COVERED)
def test_whoever_had_something_keeps_it_and_the_others_get_one(name):
    case, without = CASES[name], 0
    for kind in ("mixed", "small"):
        objects = scene(90, kind, seed=3)
        assigner = case.build()
        after = case.call(assigner, case.pred(objects), case.gt(objects), None, objects)
        assigner.min_positives = 0
        before = case.call(assigner, case.pred(objects), case.gt(objects), None, objects)
        had = before.gt_inds > 0
        assert torch.equal(after.gt_inds[had], before.gt_inds[had])
        counts = [torch.bincount(each.gt_inds.clamp(min=0), minlength=91)[1:] for each in (before, after)]
        without += int((counts[0] == 0).sum())
        assert ((counts[1] == counts[0]) | ((counts[0] == 0) & (counts[1] == 1))).all()
        if name not in OFFLINE and not assigner.covers_inside:
            assert (counts[1] > 0).all()
        if after.max_overlaps is not None:
            assert torch.equal(after.max_overlaps[had], before.max_overlaps[had])
        assert torch.equal(after.labels > -1, after.gt_inds > 0)
    assert without


def covering(**options):
    return va.MaxIoUAssigner(0.5, 0.4, match_low_quality=False, min_positives=1, **options)


def assigned(assigner, boxes, ignore=None):
    from mmengine.structures import InstanceData

    gt = InstanceData(bboxes=torch.tensor(boxes), labels=torch.zeros(len(boxes), dtype=torch.long))
    regions = None if ignore is None else InstanceData(bboxes=torch.tensor(ignore))
    return assigner.assign(InstanceData(priors=anchors(scene())[0]), gt, regions)


def test_objects_of_no_area_get_none():
    found = assigned(covering(), [[50.0, 50.0, 50.0, 60.0], [50.0, 50.0, 53.0, 54.0]]).gt_inds
    assert (found == 2).sum() == 1
    assert not (found == 1).any()


def test_what_lies_in_an_ignore_region_is_not_given():
    small, region = [[50.0, 50.0, 53.0, 54.0]], [[0.0, 0.0, 200.0, 200.0]]
    (row,) = (assigned(covering(ignore_iof_thr=0.5), small).gt_inds > 0).nonzero()
    found = assigned(covering(ignore_iof_thr=0.5), small, region)
    assert found.gt_inds[row] == -1
    (other,) = (found.gt_inds > 0).nonzero()
    assert box_overlaps(anchors(scene())[0][other], torch.tensor(region), mode="iof") <= 0.5


def test_metrics_of_what_is_given_are_its_iou():
    """So that a head of TOOD's makes the IoU its target."""
    case, objects = CASES["TaskAlignedAssigner-one"], scene(30, "small", seed=3)
    assigner = case.build()
    after = case.call(assigner, case.pred(objects), case.gt(objects), None, objects)
    assigner.min_positives = 0
    before = case.call(assigner, case.pred(objects), case.gt(objects), None, objects)
    new = (after.gt_inds > 0) & (before.gt_inds == 0)
    assert new.any()
    for metric in (after.assign_metrics, after.norm_metrics):
        assert torch.equal(metric[new], after.max_overlaps[new])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: va.ATSSAssigner(9, min_positives=2), "min_positives is 2; 0 and 1 are known"),
        (lambda: va.MultiInstanceAssigner(pos_iou_thr=0.5, neg_iou_thr=0.5, min_positives=1), "has no meaning"),
        (
            lambda: va.AscendMaxIoUAssigner(0.5, 0.4, min_positives=1).assign(
                torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)
            ),
            "not for padded tensors",
        ),
    ],
)
def test_where_it_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
