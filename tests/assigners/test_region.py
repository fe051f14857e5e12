"""What Region promises of its own."""

import pytest
import torch
from mmengine.structures import InstanceData

from assigners.cases import CASES
from scenes import drawn_objects
from visdet_assigners import (
    RegionAssigner,
)

OBJECTS = drawn_objects()[2]
META = dict(img_shape=OBJECTS.image)


def test_region_takes_no_ignore_regions():
    pred = CASES["RegionAssigner"].pred(OBJECTS)
    arguments = (pred, OBJECTS.instances, META, [(1, 1)], [len(pred)], 8, [8])
    with pytest.raises(ValueError, match="has 2 boxes; the method defines no ignore regions; set ignore_iof_thr"):
        RegionAssigner().assign(*arguments, OBJECTS.ignore)
    RegionAssigner().assign(*arguments, OBJECTS.ignore[:0])


@pytest.mark.parametrize("flat", [[8.0, 8.0, 8.0, 8.0], [0.0, 8.0, 16.0, 8.0]])
def test_a_box_of_no_area_takes_nothing(flat):
    """mmdet gives it the anchors whose centres it meets.  Found by fuzzing."""
    centers = torch.cartesian_prod(torch.arange(4), torch.arange(4)).flip(1) * 8.0
    pred = InstanceData(priors=torch.cat([centers - 8, centers + 8], dim=1), valid_flags=torch.ones(16).bool())
    boxes = torch.tensor([flat, [0.0, 0.0, 24.0, 24.0]])
    call = (dict(img_shape=(32, 32)), [(4, 4)], [16], 2, [8], None, -1)
    both = RegionAssigner().assign(pred, InstanceData(bboxes=boxes, labels=torch.tensor([0, 1])), *call).gt_inds
    alone = RegionAssigner().assign(pred, InstanceData(bboxes=boxes[1:], labels=torch.tensor([1])), *call).gt_inds
    assert (alone > 0).any()
    assert torch.equal(both, alone + (alone > 0))


def one(boxes, border=None, sizes=(1,)):
    """One anchor, around (8, 8), in an image of 16 x 20."""
    pred = InstanceData(priors=torch.tensor([[0.0, 0.0, 16.0, 16.0]]), valid_flags=torch.tensor([True]))
    gt = InstanceData(bboxes=torch.tensor(boxes).view(-1, 4), labels=torch.zeros(len(boxes)).long())
    more = () if border is None else (None, border)
    return RegionAssigner().assign(pred, gt, dict(img_shape=(20, 16)), [(2, 2)], list(sizes), 2, [8], *more).gt_inds


def test_one_anchor():
    """That reaches to the border of the image, which is one pixel too far unless that is allowed."""
    assert one([[0.0, 0.0, 16.0, 16.0]], border=1).tolist() == [1]
    assert one([[0.0, 0.0, 16.0, 16.0]], border=0).tolist() == [-1]
    assert one([[0.0, 0.0, 16.0, 16.0]]).tolist() == [-1]
    assert one([], border=1).tolist() == [0]


def test_an_object_of_less_than_a_pixel_takes_the_anchor_that_it_meets():
    assert one([[7.6, 7.6, 8.4, 8.4]], border=1).tolist() == [1]


def test_level_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"RegionAssigner: sum\(num_level_anchors\) is 5 but there are 1 priors"):
        one([[0.0, 0.0, 16.0, 16.0]], sizes=(2, 3))
