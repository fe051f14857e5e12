"""Calculators of others: boxes that only they know, values that depend on the call, or on who comes first."""

from types import SimpleNamespace as Instances

import pytest
import torch
from mmdet.models.task_modules import assigners as theirs
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import visdet_assigners as ours
from assigners.cases import CASES, scene
from scenes import STRIDES, anchors, drawn_objects
from visdet_assigners.functional.boxes import box_overlaps
from visdet_assigners.settings import using

NAMES = ("gt_inds", "labels", "max_overlaps")


class Near:
    """Nearness of centres by a matrix product, whose rounding depends on the shapes of the call."""

    def __call__(self, bboxes1, bboxes2, mode="iou", is_aligned=False):
        (x1, y1, x2, y2), (u1, v1, u2, v2) = bboxes1.unbind(1), bboxes2.unbind(1)
        centers = torch.stack([x1 + x2, y1 + y2], dim=1) / 2, torch.stack([u1 + u2, v1 + v2], dim=1) / 2
        return torch.exp(-torch.cdist(*centers) / 8)


class Columns:
    """Overlap of what lies in the first four of any number of columns, less where the rest differs."""

    def __call__(self, bboxes1, bboxes2, mode="iou", is_aligned=False):
        first, second = (getattr(boxes, "tensor", boxes) for boxes in (bboxes1, bboxes2))
        turned = torch.cdist(first[:, 4:], second[:, 4:], p=1)
        return box_overlaps(first[:, :4], second[:, :4], mode) * torch.exp(-turned)


class Lopsided:
    """The IoU, larger where the first box is: which comes first matters."""

    def __call__(self, bboxes1, bboxes2, mode="iou", is_aligned=False):
        larger = (bboxes1[:, 2] - bboxes1[:, 0])[:, None] / (bboxes2[:, 2] - bboxes2[:, 0]).clamp(min=1)
        return box_overlaps(bboxes1, bboxes2, mode) * larger.clamp(max=1.0)


def both(name, calculator, **config):
    """Ours and mmdet's with that calculator."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        mine, reference = getattr(ours, name)(**config), getattr(theirs, name)(**config)
    mine.iou_calculator = reference.iou_calculator = calculator
    return mine, reference


def equal(mine, reference):
    for name in NAMES:
        one, other = getattr(mine, name), getattr(reference, name)
        if name == "max_overlaps":
            if other is None or one.shape != other.shape:
                continue
            one, other = one[reference.gt_inds > 0], other[reference.gt_inds > 0]
        assert torch.equal(one, other), name


@pytest.mark.parametrize("share", [True, False])
def test_values_that_depend_on_the_call(share):
    """No object loses its only, low-quality positive: it was looked for by the value that another call gave."""
    config = dict(pos_iou_thr=0.9, neg_iou_thr=0.3, min_pos_iou=0.05, gt_max_assign_all=share)
    mine, reference = both("MaxIoUAssigner", Near(), **config)
    generator, positives = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        priors = torch.rand(50, 4, generator=generator) * 40
        priors[:, 2:] += priors[:, :2] + 4
        gts = torch.rand(2, 2, generator=generator) * 40
        gts = torch.cat([gts, gts + 3], dim=1)
        gts[1] += 80
        instances = InstanceData(bboxes=gts, labels=torch.tensor([0, 1]))
        expected = reference.assign(InstanceData(priors=priors), instances)
        equal(mine.assign(InstanceData(priors=priors), instances), expected)
        positives += int((expected.gt_inds > 0).sum())
    assert positives >= 300


@pytest.mark.parametrize("way", ["0", "1"])
@pytest.mark.parametrize("share", [True, False])
def test_every_object_keeps_its_best_prior_in_blocks_too(way, share, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    objects = scene(30)
    priors = InstanceData(priors=anchors(objects)[0])
    assigner = ours.MaxIoUAssigner(0.95, 0.3, gt_max_assign_all=share, iou_calculator=Near())
    with using(memory_budget=30 * 16 * 50):
        taken = assigner.assign(priors, objects.instances).gt_inds
    whole = assigner.assign(priors, objects.instances).gt_inds
    assert set(taken.tolist()) == set(whole.tolist())
    assert (whole > 0).sum() >= 25


COLUMNS = pytest.mark.parametrize("columns", [5, 8, 4])


def with_columns(boxes, columns):
    """Further columns that say something, the boxes themselves turned about so that they aren't upright."""
    angle = (boxes.sum(dim=-1, keepdim=True) % 7) / 7
    return torch.cat([boxes, angle.expand(*boxes.shape[:-1], max(columns - 4, 0))], dim=-1)


@COLUMNS
@pytest.mark.parametrize("contained", [False, True], ids=["tensors", "containers"])
@pytest.mark.parametrize("setting", ["retinanet", "rpn", "first", "ignore"])
def test_max_iou_of_any_columns(columns, contained, setting):
    config = dict(
        retinanet=dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1),
        rpn=dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
        first=dict(pos_iou_thr=0.5, neg_iou_thr=(0.1, 0.4), min_pos_iou=0.1, gt_max_assign_all=False),
        ignore=dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1, ignore_iof_thr=0.5),
    )[setting]
    mine, reference = both("MaxIoUAssigner", Columns(), **config)
    positives = 0
    for objects in drawn_objects()[3:20:3]:
        # Columns of other boxes stand in any order: -x needn't be below x.
        priors, gts = (with_columns(boxes, columns) for boxes in (anchors(objects)[0], objects.boxes))
        regions = InstanceData(bboxes=with_columns(objects.ignore.bboxes, columns))
        held = [Instances(tensor=boxes) if contained else boxes for boxes in (priors, gts)]
        pred, gt = Instances(priors=held[0]), Instances(bboxes=held[1], labels=objects.labels)
        expected = reference.assign(
            InstanceData(priors=priors), InstanceData(bboxes=gts, labels=objects.labels), regions
        )
        equal(mine.assign(pred, gt, regions), expected)
        positives += int((expected.gt_inds > 0).sum())
    assert positives > 20


@COLUMNS
def test_other_assigners_of_any_columns(columns):
    objects = scene(20)
    priors = with_columns(anchors(objects)[0], columns)
    gt = InstanceData(bboxes=with_columns(objects.boxes, columns), labels=objects.labels)
    flags = torch.rand(len(priors), generator=torch.Generator().manual_seed(0)) < 0.5
    mine, reference = both("GridAssigner", Columns(), pos_iou_thr=0.5, neg_iou_thr=0.5)
    pred = InstanceData(priors=priors, responsible_flags=flags)
    equal(mine.assign(pred, gt), reference.assign(pred, gt))
    loose = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1)
    approx, plain = (both(name, Columns(), **loose)[0] for name in ("ApproxMaxIoUAssigner", "MaxIoUAssigner"))
    pred.approxs = priors[:, None].repeat(1, 3, 1)  # mmdet's takes four columns alone
    equal(approx.assign(pred, gt), plain.assign(pred, gt))
    mine, reference = both("MultiInstanceAssigner", Columns(), num_instance=2, pos_iou_thr=0.5, neg_iou_thr=0.5)
    ignore = InstanceData(bboxes=gt.bboxes[:2] + 3, labels=torch.tensor([-1, -1]))
    equal(mine.assign(pred, gt, ignore), reference.assign(pred, gt, ignore))


@pytest.mark.parametrize("wrong", ["nan", "inf"])
def test_what_holds_for_any_box_is_checked(wrong):
    assigner = ours.MaxIoUAssigner(0.5, 0.4, iou_calculator=Columns())
    priors, gts = torch.rand(9, 5), torch.rand(3, 5)
    gts[1, 4] = float(wrong)
    gt = Instances(bboxes=gts, labels=torch.zeros(3).long())
    with pytest.raises(ours.AssignerInputError, match=rf"MaxIoUAssigner: gt_instances.bboxes\[1, 4\] is {wrong}"):
        assigner.assign(Instances(priors=priors), gt)
    gt.bboxes = gts[0]
    with pytest.raises(ours.AssignerInputError, match=r"gt_instances.bboxes must have shape .*got \(5,\)"):
        assigner.assign(Instances(priors=priors), gt)


ASYMMETRIC = {
    "MaxIoUAssigner": dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1),
    "ApproxMaxIoUAssigner": dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1),
    "ATSSAssigner": dict(topk=9),
    "ATSSAssigner-ddod": dict(topk=9, alpha=0.8),
    "TaskAlignedAssigner": dict(topk=13),
    "SimOTAAssigner": {},
    "DynamicSoftLabelAssigner": {},
    "GridAssigner": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.1),
    "UniformAssigner": dict(pos_ignore_thr=0.15, neg_ignore_thr=0.7),
    "CenterRegionAssigner": dict(pos_scale=0.3, neg_scale=0.6),
    "MultiInstanceAssigner": dict(num_instance=2, pos_iou_thr=0.5, neg_iou_thr=0.5),
}


@pytest.mark.parametrize("calculator", [Lopsided(), Near()], ids=["lopsided", "near"])
@pytest.mark.parametrize("name", ASYMMETRIC)
def test_calculators_are_called_in_mmdets_order(name, calculator):
    """In one call, so that values that depend on the call or on who comes first are mmdet's."""
    if isinstance(calculator, Near) and "Center" in name:
        calculator = Lopsided()  # its boxes are scaled by other means, and nearness knows no share of a box
    case, positives = CASES[name], 0
    mine, reference = both(name.split("-")[0], calculator, **ASYMMETRIC[name])
    for count in (3, 12, 40):
        objects = scene(count)
        pred, gt = case.pred(objects), objects.instances
        # mmdet wants the sizes of the levels in the second place, and the rest by its own names.
        expected, found = (case.call(each, pred, gt, None, objects) for each in (reference, mine))
        equal(found, expected)
        positives += int((expected.gt_inds > 0).sum())
    assert positives > 30
    assert len(STRIDES) == 5
