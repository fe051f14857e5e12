"""FCOS's rule: the same as mmdet's FCOSHead, and as plain loops."""

import pytest
import torch
from mmdet.models.dense_heads import FCOSHead
from mmengine.structures import InstanceData

from references import plain_scale_range
from scenes import STRIDES, anchors, drawn_objects, real_objects
from visdet_assigners import ScaleRangeAssigner
from visdet_assigners.assigners.scale_range import RANGES, scale_range

SCENES = [*drawn_objects(), *real_objects(10)]
SAMPLING = pytest.mark.parametrize("radius", [None, 1.5, 0.6])


@SAMPLING
def test_the_rule_as_plain_loops(radius):
    """On whole pixels, where arithmetic is exact."""
    positives = 0
    for objects in drawn_objects():
        if objects.name.startswith(("grid", "twice")) and len(objects.boxes) <= 12:
            boxes = objects.boxes.round()
            priors, sizes = anchors(objects)
            radii = None if radius is None else [radius * stride for stride in STRIDES]
            found = scale_range(priors, boxes, sizes, RANGES, radii).gt_index
            assert found.tolist() == plain_scale_range(priors, boxes, sizes, RANGES, STRIDES, radius)
            positives += int((found >= 0).sum())
    assert positives > 50


@SAMPLING
def test_the_targets_of_mmdets_head(radius):
    sampling = dict(center_sampling=radius is not None, center_sample_radius=radius)
    head = FCOSHead(8, 8, strides=STRIDES, **sampling)
    assigner = ScaleRangeAssigner(**sampling)
    positives = 0
    for objects in SCENES:
        priors, sizes = anchors(objects)
        points = ((priors[:, :2] + priors[:, 2:]) / 2).split(sizes)
        head.num_classes = objects.num_classes
        labels, distances = map(torch.cat, head.get_targets(points, [objects.instances]))
        result = assigner.assign(InstanceData(priors=priors), sizes, objects.instances)
        positive = result.gt_inds > 0
        assert torch.equal(torch.where(positive, result.labels, objects.num_classes), labels)
        own = objects.boxes[result.gt_inds[positive] - 1]
        points = torch.cat(points)[positive]
        assert torch.equal(torch.cat([points - own[:, :2], own[:, 2:] - points], dim=1), distances[positive])
        positives += int(positive.sum())
    assert positives > 400  # of the drawn scenes alone


def test_mistakes_are_told():
    objects = drawn_objects()[5]
    priors, sizes = anchors(objects)
    with pytest.raises(ValueError, match="ScaleRangeAssigner: there are 5 levels and 2 regress_ranges"):
        ScaleRangeAssigner(RANGES[:2]).assign(InstanceData(priors=priors), sizes, objects.instances)
    with pytest.raises(ValueError, match="5 strides and 2 regress_ranges"):
        ScaleRangeAssigner(RANGES[:2], center_sampling=True)
