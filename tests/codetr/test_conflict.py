"""Where two heads contradict each other, counted on small cases and by plain loops."""

import pytest
import torch
from mmengine.structures import InstanceData

from scenes import anchors, drawn_objects
from visdet_assigners import ATSSAssigner, MaxIoUAssigner
from visdet_assigners.codetr import Conflict, assignment_conflict

NONE = torch.zeros(0, dtype=torch.long)


def by_loops(first, second):
    """Places with several priors each, as lists of 1-based objects."""
    places = one_sided = other_object = 0
    for a, b in zip(first, second):
        objects_a, objects_b = ({index for index in one if index > 0} for one in (a, b))
        if not objects_a and not objects_b:
            continue
        places += 1
        if objects_a and objects_b:
            other_object += not objects_a & objects_b
        else:
            one_sided += all(index == 0 for index in (b if objects_a else a))
    return Conflict(places, one_sided, other_object)


@pytest.mark.parametrize(("anchors_a", "anchors_b"), [(1, 1), (1, 3), (9, 2)])
def test_by_loops(anchors_a, anchors_b):
    generator = torch.Generator().manual_seed(anchors_a)
    a = torch.randint(-1, 4, (200, anchors_a), generator=generator)
    b = torch.randint(-1, 4, (200, anchors_b), generator=generator)
    found = assignment_conflict(a.flatten(), b.flatten(), num_places=200)
    assert found == by_loops(a.tolist(), b.tolist())
    assert 0 < found.share < 1
    assert assignment_conflict(b.flatten(), a.flatten(), num_places=200) == found


def test_a_head_agrees_with_itself_and_ignored_is_no_contradiction():
    one = torch.tensor([1, 0, -1, 2])
    assert assignment_conflict(one, one) == Conflict(2, 0, 0)
    assert assignment_conflict(one, torch.tensor([-1, 0, 1, 2])) == Conflict(3, 0, 0)


@pytest.mark.parametrize("places", [None, 0])
def test_no_priors(places):
    assert assignment_conflict(NONE, NONE, places) == Conflict()
    assert Conflict().share == 0


def test_over_images_and_results_of_assigners():
    atss, max_iou = ATSSAssigner(topk=9), MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
    together = Conflict()
    for objects in drawn_objects():
        priors, level_sizes = anchors(objects)
        pred, truths = InstanceData(priors=priors), objects.instances
        together += assignment_conflict(atss.assign(pred, level_sizes, truths), max_iou.assign(pred, truths))
    assert together.places > together.one_sided > 0
    assert 0 < together.share < 1


def test_priors_that_do_not_fit():
    with pytest.raises(ValueError, match="4 and 12 priors; give num_places"):
        assignment_conflict(torch.zeros(4), torch.zeros(12))
    with pytest.raises(ValueError, match="12 priors are no multiple of num_places=5"):
        assignment_conflict(torch.zeros(10), torch.zeros(12), num_places=5)
