"""What SimOTA promises of its own."""

import pytest
import torch
import torch.nn.functional as F

from scenes import drawn_objects, logits, points, predicted_boxes
from visdet_assigners.assigners.sim_ota import near_and_inside, sim_ota
from visdet_assigners.functional.costs import one_hot_cost
from visdet_assigners.functional.select import cheapest, dynamic_k
from visdet_assigners.settings import using

OBJECTS = [objects for objects in drawn_objects() if len(objects.boxes)]


def inputs(objects):
    priors = points(objects)
    reach = 2 * priors[:, 2:]
    boxes = predicted_boxes(torch.cat([priors[:, :2] - reach, priors[:, :2] + reach], dim=1), objects, seed=1)
    return priors, boxes, logits(len(priors), objects, seed=2).sigmoid()


@pytest.mark.parametrize("flat", [[50.0, 50.0, 50.0, 90.0], [50.0, 50.0, 50.0, 50.0]], ids=["no-width", "a-point"])
def test_a_box_of_no_area_changes_nothing(flat):
    """mmdet forces one positive upon it."""
    objects = OBJECTS[2]
    priors, boxes, scores = inputs(objects)

    def decide(gts, labels):
        return sim_ota(priors, gts, labels, boxes, scores).gt_index

    alone = decide(objects.boxes, objects.labels)
    with_flat = decide(torch.cat([objects.boxes, torch.tensor([flat])]), torch.cat([objects.labels, torch.tensor([0])]))
    assert torch.equal(alone, with_flat)
    assert (decide(torch.tensor([flat]), torch.tensor([0])) == -1).all()


def test_every_object_with_area_may_take_as_many_as_its_ious_sum_to():
    iou = torch.tensor([[0.9, 0.0], [0.8, 0.2], [0.7, 0.3], [0.6, 0.1]])
    assert dynamic_k(iou.topk(4, dim=0).values).tolist() == [3, 0]  # 2.999... and 3.0 both happen; the sum here is 3.0
    assert dynamic_k(iou.topk(2, dim=0).values).tolist() == [1, 0]


def test_inside_and_near():
    inside, near = near_and_inside(
        torch.tensor([[10.0, 10.0, 8.0, 8.0], [40.0, 40.0, 8.0, 8.0], [50.0, 50.0, 8.0, 8.0]]),
        torch.tensor([[0.0, 0.0, 50.0, 50.0]]),
        radius=2.0,
    )
    assert inside[0].tolist() == [True, True, False]  # the border is outside
    assert near[0].tolist() == [True, True, False]  # centre (25, 25), reach 16


@pytest.mark.parametrize("num_classes", [3, 80])
@pytest.mark.parametrize("num_gts", [1, 5, 100])
@pytest.mark.parametrize("budget", [10**9, 1, 5000])
@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
def test_class_cost_is_the_one_hot_entropy_to_the_last_bit(num_classes, num_gts, budget, way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    g = torch.Generator().manual_seed(0)
    scores = torch.rand(37, num_classes, generator=g)
    scores[:3] = torch.tensor([0.0, 1.0, 0.5])[:, None]
    labels = torch.randint(num_classes, (num_gts,), generator=g)
    target = F.one_hot(labels, num_classes).float().expand(37, -1, -1)
    full = F.binary_cross_entropy(scores[:, None].repeat(1, num_gts, 1), target, reduction="none").sum(-1)
    with using(memory_budget=budget):
        assert torch.equal(one_hot_cost(scores, labels), full)


@pytest.mark.parametrize("counts", [[2, 0, 1], torch.tensor([2, 0, 1])], ids=["list", "tensor"])
def test_cheapest_counts(counts):
    cost = torch.tensor([[3.0, 1.0, 9.0], [1.0, 2.0, 8.0], [2.0, 3.0, 7.0]])
    chosen = cheapest(cost, counts, limit=2)
    assert chosen.T.tolist() == [[False, True, True], [False, False, False], [False, False, True]]
