"""Match costs at their ends, with their defaults and in batches; mmdet's classes are the reference, bit by bit."""

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
    of_labels,
    one_hot_cost,
    one_hot_costs,
    overlap_cost,
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
