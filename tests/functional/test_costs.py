"""Match costs at their ends, with their defaults and in batches; mmdet's classes are the reference, bit by bit."""

import math

import pytest
import torch
from mmdet.models.task_modules.assigners import match_cost as theirs
from mmengine.structures import InstanceData

from visdet_assigners.functional.costs import (
    binary_cross_entropy_cost,
    binary_focal_cost,
    box_l1_cost,
    dice_cost,
    focal_cost,
    high_order_cost,
    of_labels,
    one_hot_cost,
    one_hot_costs,
    overlap_cost,
    position_modulated_cost,
    soft_label_cost,
    softmax_cost,
)

LABELS = torch.tensor([3, 0, 3])


def drawn(*shape, seed=0, scale=3.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sure():
    """Logits whose sigmoids are exactly 0 and 1, so that the logarithms show what is added inside them."""
    return torch.tensor([[-200.0, 200.0, 0.0, -200.0, 1.0], [200.0, -200.0, 3.0, 200.0, -1.0]])


def theirs_on(cost, scores, labels, **more):
    pred, gt = InstanceData(scores=scores), InstanceData(labels=labels)
    return cost(pred, gt, **more)


@pytest.mark.parametrize("logits", [sure(), drawn(37, 5), drawn(37, 80)], ids=["sure", "few", "many"])
@pytest.mark.parametrize("repeats", [1, 40], ids=["fewer objects", "more objects than classes"])
def test_costs_of_classes(logits, repeats):
    labels = LABELS.repeat(repeats)
    assert torch.equal(focal_cost(logits, labels), theirs_on(theirs.FocalLossCost(), logits, labels))
    for gamma in (1.5, 3.0):
        options = dict(alpha=0.6, gamma=gamma, eps=1e-6)
        expected = theirs_on(theirs.FocalLossCost(**options), logits, labels)
        assert torch.equal(focal_cost(logits, labels, **options), expected)
    assert torch.equal(softmax_cost(logits, labels), theirs_on(theirs.ClassificationCost(), logits, labels))


def test_labels_choose_columns_of_their_image():
    values = torch.arange(24.0).view(2, 3, 4)
    assert of_labels(values[0], torch.tensor([3, 1])).tolist() == [[3, 1], [7, 5], [11, 9]]
    both = of_labels(values, torch.tensor([[3, 1], [0, 0]]))
    assert both[0].tolist() == [[3, 1], [7, 5], [11, 9]]
    assert both[1].tolist() == [[12, 12], [16, 16], [20, 20]]


@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_each_image_of_a_batch_has_its_own_costs(gamma):
    logits, labels = drawn(3, 7, 5), torch.tensor([[3, 0], [1, 1], [4, 2]])
    together = focal_cost(logits, labels, gamma=gamma)
    assert together.shape == (3, 7, 2)
    for image in range(3):
        assert torch.equal(together[image], focal_cost(logits[image], labels[image], gamma=gamma))


def masks():
    return drawn(4, 6, 9), (drawn(3, 6, 9, seed=1) > 1).float()


def test_costs_of_masks():
    logits, targets = masks()
    pred, gt = InstanceData(masks=logits), InstanceData(masks=targets)
    assert torch.equal(binary_cross_entropy_cost(logits, targets), theirs.CrossEntropyLossCost()(pred, gt))
    for naive in (True, False):
        expected = theirs.DiceCost(pred_act=True, naive_dice=naive)(pred, gt)
        assert torch.allclose(dice_cost(logits.sigmoid(), targets, squared=not naive), expected, rtol=1e-6)
    assert torch.equal(dice_cost(logits.sigmoid(), targets), dice_cost(logits.sigmoid(), targets, squared=False))


def test_binary_focal_cost():
    logits, targets = torch.stack([sure(), -sure()]), (drawn(3, 2, 5) > 0).float()
    expected = theirs.FocalLossCost(binary_input=True)(InstanceData(masks=logits), InstanceData(masks=targets))
    assert torch.equal(binary_focal_cost(logits, targets) / logits[0].numel(), expected)  # theirs is a mean


def test_dice_of_empty_masks():
    nothing, one = torch.zeros(1, 4), torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert dice_cost(nothing, nothing).item() == 0
    assert dice_cost(nothing, one).item() == pytest.approx(1 - 1e-3 / 1.001)


@pytest.mark.parametrize("box_format", ["xyxy", "xywh"])
def test_distances_in_parts_of_the_image(box_format):
    boxes, gts = torch.tensor([[10.0, 20.0, 30.0, 80.0]]), torch.tensor([[20.0, 20.0, 40.0, 60.0]])
    expected = {"xyxy": 10 / 100 + 10 / 100 + 20 / 50, "xywh": 10 / 100 + 10 / 50 + 20 / 50}[box_format]
    assert box_l1_cost(boxes, gts, (50, 100), box_format).item() == pytest.approx(expected)
    sizes = torch.tensor([[50, 100], [100, 50]])
    both = box_l1_cost(boxes.expand(2, 1, 4), gts.expand(2, 1, 4), sizes, box_format)
    other = {"xyxy": 10 / 50 + 10 / 50 + 20 / 100, "xywh": 10 / 50 + 10 / 100 + 20 / 100}[box_format]
    assert both.flatten().tolist() == pytest.approx([expected, other])
    assert torch.equal(box_l1_cost(boxes, gts, (50, 100)), box_l1_cost(boxes, gts, (50, 100), "xyxy"))


def test_overlaps_as_costs():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    assert overlap_cost(boxes, boxes, "iou").tolist() == [[-1, 0], [0, -1]]
    assert overlap_cost(boxes, boxes)[0, 1].item() == pytest.approx(1 / 3)  # a third of the enclosing box lies between


def test_one_hot_cost():
    scores, labels = drawn(6, 4).sigmoid(), torch.tensor([3, 0])
    target = torch.nn.functional.one_hot(labels, 4).float().expand(6, 2, 4)
    expected = torch.nn.functional.binary_cross_entropy(scores[:, None].expand(6, 2, 4), target, reduction="none")
    assert torch.equal(one_hot_cost(scores, labels), expected.sum(-1))


@pytest.mark.parametrize("labels", [[3, 0], [3, 0, 1, 1], [3, 0, 1, 1, 3]])
def test_on_a_device_there_are_as_many_rows_as_classes_or_objects(labels, monkeypatch):
    """Whichever is less; a CPU counts the classes that there are."""
    scores, labels = drawn(6, 4).sigmoid(), torch.tensor(labels)
    rows, number = one_hot_costs(scores, labels)
    assert len(rows) == len(set(labels.tolist()))
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    on_device, place = one_hot_costs(scores, labels)
    assert len(on_device) == min(4, len(labels))
    assert torch.equal(on_device[place], rows[number])


def test_soft_label_cost():
    logits, labels, iou = drawn(6, 4), torch.tensor([3, 0]), drawn(6, 2, seed=1).sigmoid()
    target = torch.zeros(6, 2, 4)
    target[:, 0, 3], target[:, 1, 0] = iou.T
    wide = logits[:, None].expand(6, 2, 4)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(wide, target, reduction="none")
    expected = (entropy * (target - wide.sigmoid()).abs() ** 2).sum(-1)
    assert torch.allclose(soft_label_cost(logits, labels, iou), expected, rtol=1e-6)


BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [30.0, 30.0, 40.0, 44.0], [8.0, 1.0, 19.0, 12.0]])
GTS = torch.tensor([[0.0, 1.0, 10.0, 10.0], [28.0, 30.0, 40.0, 40.0], [0.0, 0.0, 4.0, 4.0]])


def intersection_and_areas(box, gt):
    width = max(0.0, min(box[2], gt[2]) - max(box[0], gt[0]))
    height = max(0.0, min(box[3], gt[3]) - max(box[1], gt[1]))
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (box, gt)]
    hull = (max(box[2], gt[2]) - min(box[0], gt[0])) * (max(box[3], gt[3]) - min(box[1], gt[1]))
    return width * height, sum(areas) - width * height, hull


def iou_and_giou(box, gt):
    overlap, union, hull = intersection_and_areas(box, gt)
    return overlap / union, overlap / union - (hull - union) / hull


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


@pytest.mark.parametrize("alpha", [4.0, 1.0, 0.0, 2.5])
def test_product_of_class_and_box_by_a_plain_loop(alpha):
    logits = drawn(4, 5)
    found = high_order_cost(logits, LABELS, BOXES, GTS, alpha)
    assert found.shape == (4, 3)
    for row, (scores, box) in enumerate(zip(logits.tolist(), BOXES.tolist())):
        for column, (label, gt) in enumerate(zip(LABELS.tolist(), GTS.tolist())):
            expected = -sigmoid(scores[label]) * iou_and_giou(box, gt)[0] ** alpha
            assert found[row, column].item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("options", [{}, dict(beta=1.3, alpha=0.4, gamma=1.5, eps=1e-8)], ids=["defaults", "others"])
def test_probabilities_that_the_place_lowers_by_a_plain_loop(options):
    """Two objects of one class each have their own place."""
    logits = drawn(4, 5)
    settings = dict(beta=0.5, alpha=0.25, gamma=2.0, eps=1e-12) | options
    found = position_modulated_cost(logits, LABELS, BOXES, GTS, **options)
    places = [[(iou_and_giou(box, gt)[1] + 1) / 2 for gt in GTS.tolist()] for box in BOXES.tolist()]
    largest = max(map(max, places))
    alpha, gamma, eps = settings["alpha"], settings["gamma"], settings["eps"]
    for row, scores in enumerate(logits.tolist()):
        for column, label in enumerate(LABELS.tolist()):
            p = sigmoid(scores[label]) * (places[row][column] / largest) ** settings["beta"]
            positive = -math.log(p + eps) * alpha * (1 - p) ** gamma
            negative = -math.log(1 - p + eps) * (1 - alpha) * p**gamma
            assert found[row, column].item() == pytest.approx(positive - negative, rel=1e-4)


def test_where_the_place_counts_for_nothing_the_focal_cost_is_left():
    logits = drawn(4, 5)
    found = position_modulated_cost(logits, LABELS, BOXES, GTS, beta=0)
    assert torch.allclose(found, focal_cost(logits, LABELS), rtol=1e-5)


def test_the_best_place_is_that_of_pairs_that_may_match():
    """Padding, boxes upside down and what is NaN leave the other costs as they are."""
    logits = drawn(4, 5)
    alone = position_modulated_cost(logits[:2], LABELS[1:2], BOXES[:2], GTS[1:2])
    strange = torch.cat([BOXES[:2], GTS[1:2, [2, 3, 0, 1]], torch.full((1, 4), float("nan")), GTS[1:2]])
    unsure = torch.cat([logits, torch.full((1, 5), float("nan"))])
    found = position_modulated_cost(
        unsure, torch.tensor([0, 0]), strange, torch.cat([GTS[1:2], BOXES[:1]]), is_object=torch.tensor([True, False])
    )
    assert torch.equal(found[:2, :1], alone)
    assert found[3:].isnan().all()


def test_places_without_any_overlap_are_finite():
    far = torch.tensor([[1e6, 1e6, 1e6, 1e6]])
    assert position_modulated_cost(drawn(1, 5), LABELS[:1], far, GTS[:1]).isfinite().all()
    assert position_modulated_cost(drawn(1, 5), LABELS[:1], far * 0, GTS[2:]).isfinite().all()
