"""What DynamicSoftLabel promises of its own."""

import pytest
import torch
from mmdet.structures.mask import BitmapMasks

from assigners.cases import CASES
from scenes import drawn_objects
from visdet_assigners import (
    DynamicSoftLabelAssigner,
)
from visdet_assigners.functional.masks import center_of_mass

OBJECTS = drawn_objects()[2]


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
def test_soft_label_cost_is_the_same_in_blocks(budget):
    pred = CASES["DynamicSoftLabelAssigner"].pred(OBJECTS)
    expected = DynamicSoftLabelAssigner().assign(pred, OBJECTS.instances)
    result = DynamicSoftLabelAssigner(memory_budget=budget).assign(pred, OBJECTS.instances)
    assert torch.equal(result.gt_inds, expected.gt_inds)
