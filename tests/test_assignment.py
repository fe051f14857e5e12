"""AssignResult and its making."""

import pytest
import torch
from mmdet.models.task_modules import AssignResult as Theirs
from mmdet.models.task_modules.samplers import RandomSampler
from mmengine.structures import InstanceData

from visdet_assigners import IGNORED, NEGATIVE, Assignment, AssignResult
from visdet_assigners.assignment import to_assign_result


def test_one_is_added_in_one_place():
    decided = Assignment(torch.tensor([1, NEGATIVE, IGNORED, 0]), torch.tensor([0.5, 0.0, 0.0, 0.9]), {"extra": 3})
    result = to_assign_result(decided, torch.tensor([7, 8]))
    assert result.gt_inds.tolist() == [2, 0, -1, 1]
    assert result.labels.tolist() == [8, -1, -1, 7]
    assert result.get_extra_property("extra") == 3


def test_an_assignment_cannot_be_changed():
    with pytest.raises(AttributeError):
        Assignment(torch.tensor([0])).gt_index = torch.tensor([1])


def test_the_same_members_as_mmdets():
    public = {name for name in dir(Theirs) if not name.startswith("_")}
    assert public <= {name for name in dir(AssignResult) if not name.startswith("_")}
    arguments = (2, torch.tensor([0, 2, 1]), torch.tensor([0.0, 0.5, 0.6]), torch.tensor([-1, 4, 3]))
    mine, theirs = AssignResult(*arguments), Theirs(*arguments)
    for result in (mine, theirs):
        result.set_extra_property("note", "kept")
        with pytest.raises(AssertionError):
            result.set_extra_property("note", "again")
        result.add_gt_(torch.tensor([3, 4]))
    assert mine.info.keys() == theirs.info.keys()
    for key in ("gt_inds", "max_overlaps", "labels"):
        assert torch.equal(mine.info[key], theirs.info[key])
    assert mine.num_preds == theirs.num_preds == 5
    assert mine.get_extra_property("absent") is None


def test_mmdets_sampler_reads_it():
    gt = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 9.0, 9.0]]), labels=torch.tensor([2]))
    priors = torch.tensor([[0.0, 0.0, 8.0, 9.0], [50.0, 50.0, 60.0, 60.0], [1.0, 0.0, 9.0, 9.0]])
    result = AssignResult(1, torch.tensor([1, 0, -1]), torch.tensor([0.9, 0.0, 0.5]), torch.tensor([2, -1, -1]))
    sampled = RandomSampler(num=4, pos_fraction=0.5).sample(result, InstanceData(priors=priors), gt)
    assert sampled.pos_assigned_gt_inds.tolist() == [0, 0]  # the prior and the added ground truth
    assert len(sampled.neg_inds) == 1


def test_results_without_overlaps_tell_the_sampler_so():
    result = AssignResult(1, torch.tensor([1]), None, torch.tensor([2]))
    with pytest.raises(ValueError, match="add_gt_as_proposals=False"):
        result.add_gt_(torch.tensor([2]))


@pytest.mark.parametrize("num_gts", [0, 3])
def test_random(num_gts):
    result = AssignResult.random(num_preds=200, num_gts=num_gts, num_classes=4, rng=0)
    assert torch.equal(
        result.gt_inds, AssignResult.random(num_preds=200, num_gts=num_gts, num_classes=4, rng=0).gt_inds
    )
    assert set(result.gt_inds.tolist()) == {-1, *range(num_gts + 1)}
    assert torch.equal(result.labels >= 0, result.gt_inds > 0)
    assert torch.equal(result.max_overlaps > 0, result.gt_inds > 0)
