"""One assigner until an epoch, then another: turns, resumed trainings, what reaches each of them."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub

import visdet_assigners as va
from assigners.cases import scene
from linear_training import train
from scenes import anchors
from visdet_assigners import inputs
from visdet_assigners.testing.feeds import ground_truths, prior_boxes, probable

ATSS, TAL = dict(type="ATSSAssigner", topk=9), dict(type="visdet_assigners.TaskAlignedAssigner", topk=13)


class Turns(Hook):
    """Writes down whose turn it is at each step."""

    def __init__(self, schedule, seen):
        self.schedule, self.seen = schedule, seen

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append(type(self.schedule.current).__name__[:4])


def turns(folder, epochs, by_epoch=True, milestone=2, resume=False):
    seen, schedule = [], va.ScheduledAssigner([ATSS, TAL], [milestone], by_epoch)
    train(folder, epochs, more=dict(custom_hooks=[Turns(schedule, seen)], resume=resume))
    return seen


def test_turns_of_a_training_and_of_a_resumed_one(tmp_path):
    """Two steps an epoch."""
    assert turns(tmp_path, 3) == ["ATSS"] * 4 + ["Task"] * 2
    assert turns(tmp_path, 4, resume=True) == ["Task"] * 2


def test_turns_by_iteration(tmp_path):
    assert turns(tmp_path, 2, by_epoch=False, milestone=3) == ["ATSS"] * 3 + ["Task"]


def test_results_are_those_of_the_one_whose_turn_it_is():
    objects = scene(20)
    pred, gt, sizes = probable(objects), ground_truths(objects), anchors(objects)[1]
    schedule = va.ScheduledAssigner([ATSS, TAL, dict(type="POTOAssigner", prior_form="boxes",
                                                     score_form="probabilities")], [2, 5])  # fmt: skip
    others = [va.ATSSAssigner(9), va.TaskAlignedAssigner(13), schedule.assigners[2]]
    for epoch, other in ((0, 0), (1, 0), (2, 1), (4, 1), (5, 2), (99, 2)):
        schedule.epoch = epoch
        mine = schedule.assign(pred, gt, None, 1, 6, num_level_priors=sizes)  # as TOOD's head, with sizes
        plain = dict(num_level_priors=sizes) if other == 0 else {}
        expected = others[other].assign(pred, gt, **plain)
        assert torch.equal(mine.gt_inds, expected.gt_inds)
        assert torch.equal(schedule.assign(pred, sizes, gt, None).gt_inds, expected.gt_inds)  # as ATSS's head
        assert hasattr(mine, "assign_metrics") == (other > 0)
        batch = schedule.assign_batch([pred, pred], [gt, gt], num_level_priors=sizes, alpha=1)
        assert torch.equal(batch[1].gt_inds, expected.gt_inds)
        assert next(iter(va.ScheduledAssigner.reads_of(schedule))) == "priors"
        assert schedule.knobs == others[other].knobs


def test_options_of_the_schedule_hold_for_those_that_say_nothing():
    schedule = va.ScheduledAssigner([dict(ATSS, on_nonfinite="raise"), ATSS], [1], on_nonfinite="replace")
    objects = scene()
    pred, gt = prior_boxes(objects).clone(), ground_truths(objects)
    pred.priors[3, 0] = float("nan")
    schedule.epoch = 0
    with pytest.raises(va.AssignerInputError, match=r"ATSSAssigner: pred_instances.priors\[3, 0\] is nan"):
        schedule.assign(pred, anchors(objects)[1], gt)
    schedule.epoch = 1
    inputs.warned.clear()
    with pytest.warns(UserWarning, match="never matched"):
        assert (schedule.assign(pred, anchors(objects)[1], gt).gt_inds > 0).any()


def test_outside_of_a_training_it_is_the_first_epoch():
    MessageHub.get_instance("fresh")  # the newest is asked
    assert type(va.ScheduledAssigner([ATSS, TAL], [1]).current) is va.ATSSAssigner


@pytest.mark.parametrize(
    ("assigners", "milestones", "message"),
    [
        ([ATSS], [], "there are 1 assigners and 0 milestones"), ([ATSS, TAL], [1, 2], "2 assigners and 2 milestones"),
        ([ATSS, TAL, ATSS], [3, 3], "must ascend"), ([ATSS, TAL], [0], "milestones is 0"),
    ],
)  # fmt: skip
def test_wrong_schedules(assigners, milestones, message):
    with pytest.raises(ValueError, match=message):
        va.ScheduledAssigner(assigners, milestones)
