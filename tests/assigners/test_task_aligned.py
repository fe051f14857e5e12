"""What the task-aligned assigner promises of its own."""

import pytest
import torch
from mmengine.structures import InstanceData

from scenes import anchors, drawn_objects, predicted_boxes
from visdet_assigners import TaskAlignedAssigner
from visdet_assigners.assigners.task_aligned import task_aligned

ONE = torch.tensor([[0.0, 0.0, 10.0, 10.0]])


def centred(count):
    return torch.tensor([[4.0, 4.0, 6.0, 6.0]]).repeat(count, 1)


def decide(priors, gts, scores, iou, **numbers):
    """The assignment under given overlaps (N, M), every ground truth being of a class of its own."""
    labels, boxes = torch.arange(len(gts)), torch.zeros(len(priors), 4)
    return task_aligned(priors, gts, labels, boxes, scores, overlaps=lambda *_: iou.T, reach=None, **numbers)


def test_alignment_by_hand():
    """Four candidates (score, IoU); alpha 1, beta 6: .95 * .20^6 = .000061, .0706, .0221, .1131; the best two win."""
    scores = torch.tensor([[0.95], [0.60], [0.80], [0.30]])
    iou = torch.tensor([[0.20], [0.70], [0.55], [0.85]])
    decided = decide(centred(4), ONE, scores, iou, topk=2)
    assert decided.gt_index.tolist() == [-1, 0, -1, 0]
    metrics = decided.extras["assign_metrics"]
    torch.testing.assert_close(metrics, torch.tensor([0.0, 0.0706, 0.0, 0.1131]), atol=5e-5, rtol=0)


def test_no_overlap_is_no_positive():
    decided = decide(centred(3), ONE, torch.ones(3, 1), torch.zeros(3, 1))
    assert decided.gt_index.tolist() == [-1, -1, -1]


def test_a_centre_outside_takes_a_place_but_is_not_positive():
    """The top-k is chosen first, then what lies outside the box is dropped (TOOD's order, not YOLOv8's)."""
    priors = torch.cat([centred(1), torch.tensor([[20.0, 20.0, 30.0, 30.0]])])
    decided = decide(priors, ONE, torch.ones(2, 1), torch.tensor([[0.5], [0.9]]), topk=1)
    assert decided.gt_index.tolist() == [-1, -1]


def test_a_prior_claimed_twice_goes_to_the_higher_iou_not_to_the_better_aligned():
    scores, iou = torch.tensor([[1.0, 0.1]]), torch.tensor([[0.8, 0.9]])
    assert decide(centred(1), ONE.repeat(2, 1), scores, iou, topk=1).gt_index.tolist() == [1]


def test_logits_are_refused():
    objects = drawn_objects()[2]
    priors, _ = anchors(objects)
    pred = InstanceData(priors=priors, bboxes=predicted_boxes(priors, objects, 0), scores=torch.randn(len(priors), 8))
    with pytest.raises(ValueError, match=r"TaskAlignedAssigner: pred_instances.scores holds .*probabilities"):
        TaskAlignedAssigner(13).assign(pred, objects.instances)


def test_labels_beyond_the_scores_are_named():
    objects = drawn_objects()[2]
    priors, _ = anchors(objects)
    pred = InstanceData(priors=priors, bboxes=predicted_boxes(priors, objects, 0), scores=torch.rand(len(priors), 8))
    gt = objects.instances
    gt.labels = gt.labels + 8
    with pytest.raises(ValueError, match=r"gt_instances.labels holds \d+ but scores have 8 classes"):
        TaskAlignedAssigner(13).assign(pred, gt)


def test_fields_of_different_lengths_are_named():
    objects = drawn_objects()[2]
    priors, _ = anchors(objects)

    class Fields:
        bboxes = predicted_boxes(priors, objects, 0)[1:]
        scores = torch.rand(len(priors), 8)

    Fields.priors = priors
    with pytest.raises(ValueError, match="fields of different lengths"):
        TaskAlignedAssigner(13).assign(Fields, objects.instances)
