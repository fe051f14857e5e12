"""What CenterRegion promises of its own."""

import torch
from mmengine.structures import InstanceData

from scenes import Objects, anchors, draw_boxes
from visdet_assigners import CenterRegionAssigner
from visdet_assigners.testing.measure import OperatorCounter


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


def test_a_device_is_waited_for_when_the_shadows_are_read(monkeypatch):
    image = (240, 320)
    boxes = draw_boxes(60, image, "mixed", 3)
    objects = Objects("drawn", boxes, torch.arange(len(boxes)) % 4, torch.zeros(0, 4), image)
    pred, assigner = InstanceData(priors=anchors(objects, scale=4)[0]), CenterRegionAssigner(0.3, 0.6)
    expected = assigner.assign(pred, objects.instances).get_extra_property("shadowed_labels")
    assert len(expected) > 100
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    with OperatorCounter() as counter:
        result = assigner.assign(pred, objects.instances)
    assert counter.waits.total() == 0
    with OperatorCounter() as counter:
        for _ in range(2):
            assert result.get_extra_property("shadowed_labels") is result.info["shadowed_labels"]
    assert counter.waits.total() == 1
    assert torch.equal(result.info["shadowed_labels"], expected)
