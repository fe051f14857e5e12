"""What the point assigner promises of its own."""

import pytest
import torch
from mmengine.structures import InstanceData

from scenes import drawn_objects, points
from visdet_assigners import PointAssigner

OBJECTS = [objects for objects in drawn_objects() if len(objects.boxes)]


def test_the_level_follows_the_size_and_the_nearest_points_win():
    priors = torch.tensor([[4.0, 4.0, 8.0], [12.0, 4.0, 8.0], [8.0, 8.0, 16.0], [24.0, 8.0, 16.0]])
    gt = InstanceData(
        bboxes=torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 64.0, 64.0]]), labels=torch.tensor([3, 5])
    )
    result = PointAssigner(scale=4, pos_num=1).assign(InstanceData(priors=priors), gt)
    assert result.gt_inds.tolist() == [1, 0, 0, 2]


@pytest.mark.parametrize("flat", [[50.0, 50.0, 50.0, 90.0], [50.0, 50.0, 50.0, 50.0]], ids=["no-width", "a-point"])
def test_a_box_of_no_area_takes_nothing(flat):
    """mmdet forces ``pos_num`` points upon it."""
    objects = OBJECTS[2]
    pred = InstanceData(priors=points(objects)[:, :3])
    with_flat = InstanceData(
        bboxes=torch.cat([objects.boxes, torch.tensor([flat])]), labels=torch.cat([objects.labels, torch.tensor([0])])
    )
    alone, result = (PointAssigner().assign(pred, gt) for gt in (objects.instances, with_flat))
    assert torch.equal(alone.gt_inds, result.gt_inds)


def test_more_points_wanted_than_a_level_has():
    """mmdet fails here."""
    objects = OBJECTS[0]
    priors = points(objects)[:, :3]
    result = PointAssigner(pos_num=10**6).assign(InstanceData(priors=priors), objects.instances)
    assert result.gt_inds.max() == len(objects.boxes)


def test_level_sizes_are_read_off_the_strides_or_given():
    objects = OBJECTS[2]
    pred = InstanceData(priors=points(objects)[:, :3])
    sizes = pred.priors[:, 2].unique_consecutive(return_counts=True)[1].tolist()
    read, given = (PointAssigner().assign(pred, objects.instances, num_level_priors=s) for s in (None, sizes))
    assert torch.equal(read.gt_inds, given.gt_inds)
    with pytest.raises(ValueError, match=r"PointAssigner: sum\(num_level_priors\) is"):
        PointAssigner().assign(pred, objects.instances, num_level_priors=sizes[1:])


def test_boxes_are_refused_with_the_reason():
    """Where no head turns them into points; mmdet's assigner takes them."""
    objects = OBJECTS[2]
    with pytest.raises(
        ValueError, match=r"PointAssigner: pred_instances.priors are boxes, not points with their strides"
    ):
        PointAssigner().assign(InstanceData(priors=objects.boxes), objects.instances)
