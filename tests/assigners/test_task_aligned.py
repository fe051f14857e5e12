"""What the task-aligned assigner promises of its own."""

import pytest
import torch
from mmengine.structures import InstanceData

from scenes import anchors, drawn_objects, predicted_boxes
from visdet_assigners import TaskAlignedAssigner
from visdet_assigners.assigners.task_aligned import task_aligned
from visdet_assigners.functional.boxes import box_iou
from visdet_assigners.functional.overlaps import Measure

MIXED = [
    objects for objects in drawn_objects() if objects.name.startswith(("mixed", "twice")) and len(objects.boxes) > 2
]
ONE = torch.tensor([[0.0, 0.0, 10.0, 10.0]])


def centred(count):
    return torch.tensor([[4.0, 4.0, 6.0, 6.0]]).repeat(count, 1)


def decide(priors, gts, scores, iou, **numbers):
    """The assignment under given overlaps (N, M), every ground truth being of a class of its own."""
    labels, boxes = torch.arange(len(gts)), torch.zeros(len(priors), 4)
    return task_aligned(priors, gts, labels, boxes, scores, measure=Measure(lambda *_: iou.T), **numbers)


def test_alignment_by_hand():
    """Four candidates (score, IoU); alpha 1, beta 6: .95 * .20^6 = .000061, .0706, .0221, .1131; the best two win."""
    scores = torch.tensor([[0.95], [0.60], [0.80], [0.30]])
    iou = torch.tensor([[0.20], [0.70], [0.55], [0.85]])
    torch.testing.assert_close(
        (scores * iou**6)[:, 0], torch.tensor([0.000061, 0.0706, 0.0221, 0.1131]), atol=5e-5, rtol=0
    )
    decided = decide(centred(4), ONE, scores, iou, topk=2)
    assert decided.gt_index.tolist() == [-1, 0, -1, 0]
    metrics = decided.extras["assign_metrics"]
    torch.testing.assert_close(metrics, torch.tensor([0.0, 0.0706, 0.0, 0.1131]), atol=5e-5, rtol=0)
    # .0706 / .1131 * .85, and the best gets the best IoU
    targets = decided.extras["norm_metrics"]
    torch.testing.assert_close(targets, torch.tensor([0.0, 0.5303, 0.0, 0.8500]), atol=5e-5, rtol=0)
    halved = decide(centred(4), ONE, scores, iou, topk=2, alpha=0.5)
    assert halved.gt_index.tolist() == [-1, 0, -1, 0]
    assert halved.extras["norm_metrics"][1].item() == pytest.approx(0.3750, abs=5e-5)


def test_the_example_through_the_class():
    """The same with boxes: a prediction of IoU u is [0, 0, 100 u, 100] for the ground truth [0, 0, 100, 100]."""
    centers = torch.tensor([20.0, 40.0, 60.0, 80.0])[:, None]
    iou = torch.tensor([0.20, 0.70, 0.55, 0.85])
    boxes = torch.zeros(4, 4)
    boxes[:, 2], boxes[:, 3] = 100 * iou, 100
    priors = torch.cat([centers - 4, centers - 4, centers + 4, centers + 4], dim=1)
    pred = InstanceData(priors=priors, bboxes=boxes, scores=torch.tensor([[0.95], [0.60], [0.80], [0.30]]))
    gt = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 100.0, 100.0]]), labels=torch.tensor([0]))
    result = TaskAlignedAssigner(topk=2).assign(pred, gt)
    assert result.gt_inds.tolist() == [0, 1, 0, 1]
    assert result.norm_metrics.tolist() == pytest.approx([0, 0.5303, 0, 0.8500], abs=5e-5)


@pytest.mark.parametrize("objects", MIXED, ids=lambda objects: objects.name)
def test_targets_are_those_that_tood_makes_of_the_alignment(objects):
    priors, _ = anchors(objects)
    boxes = predicted_boxes(priors, objects, 3)
    scores = torch.rand(len(priors), 8, generator=torch.Generator().manual_seed(5))
    result = TaskAlignedAssigner(13).assign(InstanceData(priors=priors, bboxes=boxes, scores=scores), objects.instances)
    expected = torch.zeros(len(priors))
    for number in range(1, len(objects.boxes) + 1):
        mine = result.gt_inds == number
        if mine.any():
            alignment = result.assign_metrics[mine]
            expected[mine] = alignment / (alignment.max() + 1e-7) * result.max_overlaps[mine].max()
    assert (expected > 0).any()
    torch.testing.assert_close(result.norm_metrics, expected)


def test_no_overlap_is_no_positive():
    decided = decide(centred(3), ONE, torch.ones(3, 1), torch.zeros(3, 1))
    assert decided.gt_index.tolist() == [-1, -1, -1]


def test_a_centre_outside_takes_a_place_but_is_not_positive():
    """The top-k is chosen first, then what lies outside the box is dropped (TOOD's order, not YOLOv8's)."""
    priors = torch.cat([centred(1), torch.tensor([[20.0, 20.0, 30.0, 30.0]])])
    decided = decide(priors, ONE, torch.ones(2, 1), torch.tensor([[0.5], [0.9]]), topk=1)
    assert decided.gt_index.tolist() == [-1, -1]


def test_candidates_inside_first_keep_the_place():
    """YOLOv8's order: the top-k of those inside the box."""
    priors = torch.cat([centred(1), torch.tensor([[20.0, 20.0, 30.0, 30.0]]), centred(1)])
    scores, iou = torch.ones(3, 1), torch.tensor([[0.5], [0.9], [0.4]])
    outside_first = decide(priors, ONE, scores, iou, topk=2)
    inside_first = decide(priors, ONE, scores, iou, topk=2, candidate_order="inside_then_topk")
    assert outside_first.gt_index.tolist() == [0, -1, -1]
    assert inside_first.gt_index.tolist() == [0, -1, 0]


@pytest.mark.parametrize("objects", MIXED, ids=lambda objects: objects.name)
def test_inside_first_in_plain_loops(objects):
    priors, _ = anchors(objects)
    boxes = predicted_boxes(priors, objects, 4)
    scores = torch.rand(len(priors), 8, generator=torch.Generator().manual_seed(6))
    result = TaskAlignedAssigner(5, candidate_order="inside_then_topk").assign(
        InstanceData(priors=priors, bboxes=boxes, scores=scores), objects.instances
    )
    iou = box_iou(boxes, objects.boxes)
    centers = (priors[:, :2] + priors[:, 2:]) / 2
    expected, best = torch.zeros(len(priors), dtype=torch.long), torch.full((len(priors),), -1.0)
    for number, (gt, label) in enumerate(zip(objects.boxes, objects.labels), start=1):
        alignment = scores[:, label] * iou[:, number - 1] ** 6
        inside = torch.cat([centers - gt[:2], gt[2:] - centers], dim=1).amin(1) > 0.01
        ranked = torch.where(inside, alignment, 0).sort(descending=True, stable=True).indices[:5]
        for prior in ranked.tolist():
            if inside[prior] and alignment[prior] > 0 and iou[prior, number - 1] > best[prior]:
                expected[prior], best[prior] = number, iou[prior, number - 1]
    assert result.gt_inds.tolist() == expected.tolist()
    assert (expected > 0).any()


def test_an_unknown_order_is_named():
    with pytest.raises(ValueError, match="candidate_order is 'inside'; choose one of topk_then_inside, inside_then"):
        TaskAlignedAssigner(13, candidate_order="inside")


def test_targets_of_a_batch():
    scenes = [drawn_objects()[2], drawn_objects()[-1], drawn_objects()[1]]  # the second without objects
    priors, _ = anchors(scenes[0])
    scores = torch.rand(len(priors), 8, generator=torch.Generator().manual_seed(7))
    preds = [
        InstanceData(priors=priors, bboxes=predicted_boxes(priors, objects, 5), scores=scores) for objects in scenes
    ]
    assigner = TaskAlignedAssigner(13)
    targets = assigner.batch_targets(preds, [objects.instances for objects in scenes], alpha=0.5)
    assert targets.scores.shape == (3, len(priors), 8)
    for image, (objects, pred) in enumerate(zip(scenes, preds)):
        result = assigner.assign(pred, objects.instances, alpha=0.5)
        foreground = result.gt_inds > 0
        assert targets.gt_index[image].tolist() == (result.gt_inds - 1).tolist()
        assert targets.foreground[image].tolist() == foreground.tolist()
        assert targets.labels[image][foreground].tolist() == result.labels[foreground].tolist()
        assert (targets.labels[image][~foreground] == 8).all()
        assert targets.boxes[image][foreground].tolist() == objects.boxes[targets.gt_index[image][foreground]].tolist()
        assert (targets.boxes[image][~foreground] == 0).all()
        assert targets.scores[image].sum(1).tolist() == result.norm_metrics.tolist()
        rows = foreground.nonzero()[:, 0]
        assert (targets.scores[image][rows, result.labels[rows]] == result.norm_metrics[rows]).all()
    assert targets.foreground[0].any()
    assert not targets.foreground[1].any()


def test_batches_of_different_sizes_are_refused():
    objects = drawn_objects()[2]
    priors, _ = anchors(objects)
    preds = [InstanceData(priors=priors[:n], bboxes=priors[:n], scores=torch.rand(n, 8)) for n in (20, 30)]
    with pytest.raises(ValueError, match="the same number of priors and classes"):
        TaskAlignedAssigner(13).batch_targets(preds, [objects.instances] * 2)


def test_a_prior_claimed_twice_goes_to_the_higher_iou_not_to_the_better_aligned():
    scores, iou = torch.tensor([[1.0, 0.1]]), torch.tensor([[0.8, 0.9]])
    assert decide(centred(1), ONE.repeat(2, 1), scores, iou, topk=1).gt_index.tolist() == [1]


def test_logits_are_refused():
    objects = drawn_objects()[2]
    priors, _ = anchors(objects)
    pred = InstanceData(priors=priors, bboxes=predicted_boxes(priors, objects, 0), scores=torch.randn(len(priors), 8))
    with pytest.raises(ValueError, match=r"TaskAlignedAssigner: pred_instances.scores\[\d+, \d+\] is .*probabilities"):
        TaskAlignedAssigner(13).assign(pred, objects.instances)


def test_labels_beyond_the_scores_are_named():
    objects = drawn_objects()[2]
    priors, _ = anchors(objects)
    pred = InstanceData(priors=priors, bboxes=predicted_boxes(priors, objects, 0), scores=torch.rand(len(priors), 8))
    gt = objects.instances
    gt.labels = gt.labels + 8
    with pytest.raises(ValueError, match=r"gt_instances.labels\[\d+\] is \d+ but scores have 8 classes"):
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
