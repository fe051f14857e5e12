"""What Uniform promises of its own."""

import torch
from mmengine.structures import InstanceData

from assigners.cases import CASES
from scenes import drawn_objects
from visdet_assigners import UniformAssigner
from visdet_assigners.functional.boxes import box_overlaps

OBJECTS = drawn_objects()[2]


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


def test_by_anchors_alone_each_object_takes_its_nearest_anchors():
    """YOLOF's rule with anchors in place of predictions, as plain loops; predictions are not looked at."""
    pred, gts = CASES["UniformAssigner"].pred(OBJECTS), OBJECTS.boxes
    anchors = pred.priors
    assigner = UniformAssigner(0.15, 0.4, match_times=3, anchors_only=True)
    expected = (box_overlaps(anchors, gts) > 0.4).any(dim=1).long().neg()  # ignored where near enough, else background
    for number, gt in enumerate(gts):
        centre, size = (gt[:2] + gt[2:]) / 2, gt[2:] - gt[:2]
        distance = ((anchors[:, :2] + anchors[:, 2:]) / 2 - centre).abs().sum(dim=1)
        distance += (anchors[:, 2:] - anchors[:, :2] - size).abs().sum(dim=1)
        for row in distance.sort(stable=True).indices[:3].tolist():
            fits = box_overlaps(anchors[row : row + 1], gt[None]).item() >= 0.15
            expected[row] = number + 1 if fits else -1
    result = assigner.assign(InstanceData(priors=anchors), OBJECTS.instances)
    assert torch.equal(result.gt_inds, expected)
    assert (expected == -1).any()
    assert torch.equal(assigner.assign(pred, OBJECTS.instances).gt_inds, expected)
    assert assigner.reads_of(assigner).keys() == {"priors"}
