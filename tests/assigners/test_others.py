"""What Approx, Grid, Uniform, Region, CenterRegion, DynamicSoftLabel and TopkHungarian promise of their own."""

import itertools

import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from assigners.cases import CASES, DINO
from scenes import drawn_objects
from visdet_assigners import (
    ApproxMaxIoUAssigner,
    CenterRegionAssigner,
    DynamicSoftLabelAssigner,
    GridAssigner,
    RegionAssigner,
    TopkHungarianAssigner,
    UniformAssigner,
)
from visdet_assigners.assigners.topk_hungarian import topk_hungarian
from visdet_assigners.functional import blocks
from visdet_assigners.functional.masks import center_of_mass

OBJECTS = drawn_objects()[2]
META = dict(img_shape=OBJECTS.image)


def test_approxs_of_the_wrong_shape_are_named():
    pred = CASES["ApproxMaxIoUAssigner"].pred(OBJECTS)
    pred.approxs = pred.approxs.flatten(1)
    with pytest.raises(ValueError, match=r"approxs must have shape \(\d+, A, 4\)"):
        ApproxMaxIoUAssigner(0.5, 0.4).assign(pred, OBJECTS.instances)


@pytest.mark.parametrize("threshold", [1, 1.0])
def test_grid_takes_whole_numbers_as_thresholds(threshold):
    pred = CASES["GridAssigner"].pred(OBJECTS)
    result = GridAssigner(0.5, threshold).assign(pred, OBJECTS.instances)
    assert (result.gt_inds >= 0).all()


def test_predictions_of_uniform_keep_their_gradient():
    """YOLOF's box loss reads the predicted boxes from the result."""
    pred = CASES["UniformAssigner"].pred(OBJECTS)
    pred.decoder_priors.requires_grad_()
    result = UniformAssigner(0.15, 0.7).assign(pred, OBJECTS.instances)
    result.get_extra_property("pos_predicted_boxes").sum().backward()
    assert pred.decoder_priors.grad.abs().sum() > 0
    assert not result.max_overlaps.requires_grad


def test_uniform_takes_more_times_than_there_are_anchors():
    pred = CASES["UniformAssigner"].pred(OBJECTS)[:3]
    result = UniformAssigner(0.0, 0.7, match_times=9).assign(pred, OBJECTS.instances)
    assert (result.gt_inds > 0).all()
    assert len(result.get_extra_property("pos_idx")) == 2 * 3 * len(OBJECTS.boxes)


def test_region_takes_no_ignore_regions():
    pred = CASES["RegionAssigner"].pred(OBJECTS)
    arguments = (pred, OBJECTS.instances, META, [(1, 1)], [len(pred)], 8, [8])
    with pytest.raises(NotImplementedError, match="defines no ignore regions"):
        RegionAssigner().assign(*arguments, OBJECTS.ignore)
    RegionAssigner().assign(*arguments, OBJECTS.ignore[:0])


def test_the_smallest_core_wins_and_the_loser_is_shadowed():
    priors = torch.tensor([[4.0, 4.0, 6.0, 6.0], [90.0, 90.0, 92.0, 92.0]])
    gt = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 10.0, 10.0], [2.0, 2.0, 8.0, 8.0]]), labels=torch.tensor([6, 7]))
    result = CenterRegionAssigner(0.5, 0.5).assign(InstanceData(priors=priors), gt)
    assert result.gt_inds.tolist() == [2, 0]
    assert result.get_extra_property("shadowed_labels").tolist() == [[0, 6]]
    gt.labels = torch.tensor([7, 7])  # of one class: not sure enough to be positive
    assert CenterRegionAssigner(0.5, 0.5).assign(InstanceData(priors=priors), gt).gt_inds.tolist() == [0, 0]
    kept = CenterRegionAssigner(0.5, 0.5, foreground_dominate=True).assign(InstanceData(priors=priors), gt)
    assert kept.gt_inds.tolist() == [2, 0]


def test_mass_centres_of_bitmap_masks():
    """mmdet fails on masks that are still in its own container."""
    pred = CASES["DynamicSoftLabelAssigner"].pred(OBJECTS)
    masks = torch.zeros(len(OBJECTS.boxes), *OBJECTS.image, dtype=torch.uint8)
    masks[:, 10:20, 30:40] = 1
    gt = OBJECTS.instances
    gt.masks = masks
    expected = DynamicSoftLabelAssigner().assign(pred, gt)
    gt.masks = BitmapMasks(masks.numpy(), *OBJECTS.image)
    assert torch.equal(DynamicSoftLabelAssigner().assign(pred, gt).gt_inds, expected.gt_inds)
    assert center_of_mass(masks)[0].tolist() == [34.5, 14.5]


@pytest.mark.parametrize("budget", [1, 10_000])
def test_soft_label_cost_is_the_same_in_blocks(budget, monkeypatch):
    pred = CASES["DynamicSoftLabelAssigner"].pred(OBJECTS)
    expected = DynamicSoftLabelAssigner().assign(pred, OBJECTS.instances)
    monkeypatch.setattr(blocks, "MEMORY_BUDGET", budget)
    assert torch.equal(DynamicSoftLabelAssigner().assign(pred, OBJECTS.instances).gt_inds, expected.gt_inds)


def test_no_other_topk_matching_is_cheaper():
    cost = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    rows, columns = topk_hungarian(cost, topk=2)
    assert columns.bincount().tolist() == [2, 2]
    choices = itertools.permutations(range(5), 4)
    best = min(sum(cost[row, number // 2] for number, row in enumerate(chosen)) for chosen in choices)
    torch.testing.assert_close(cost[rows, columns].sum(), best)


def test_more_objects_than_predictions_leave_labels():
    """mmdet returns None as labels, which its sampler can't read."""
    objects = drawn_objects()[3]
    case = CASES["TopkHungarianAssigner"]
    pred = case.pred(objects)[:2]
    result = case.assign(objects, pred)
    assert result.gt_inds.tolist() == [0, 0]
    assert result.labels.tolist() == [-1, -1]
    assert result.assign_metrics.shape == result.max_overlaps.shape == (0,)


def test_costs_of_topk_can_be_chosen():
    made = TopkHungarianAssigner(4, cls_cost=DINO[0], reg_cost=DINO[1], iou_cost=DINO[2])
    assert made.reg_cost.box_format == "xywh"
    assert TopkHungarianAssigner(4).reg_cost.box_format == "xyxy"
