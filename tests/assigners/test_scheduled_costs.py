"""Match costs by epoch: the costs of the stage, in a training and in a resumed one."""

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from visdet_assigners import HungarianAssigner
from visdet_assigners.schedule import Schedule, progress
from visdet_assigners.scheduled_costs import ScheduledCosts

USUAL = [dict(type="FocalLossCost", weight=2.0), dict(type="IoUCost", iou_mode="giou", weight=2.0)]
SCHEDULE = dict(
    type="ScheduledCosts",
    stages=[dict(begin=0, match_costs=USUAL), dict(begin=2, match_costs=[dict(type="HighOrderCost")])],
)
PRED = InstanceData(
    bboxes=torch.tensor([[0.0, 0.0, 40.0, 40.0], [0.0, 0.0, 40.0, 36.0], [5.0, 0.0, 40.0, 40.0]]),
    scores=torch.tensor([[-2.0, 0.0], [0.5, 0.0], [4.0, 0.0]]),
)
GT = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 40.0, 40.0]]), labels=torch.tensor([0]))
META = dict(img_shape=(100, 200))


@pytest.fixture
def hub():
    """mmengine's own, with what was in it put back."""
    hub = MessageHub.get_current_instance()
    before = dict(hub.runtime_info)
    yield hub
    hub.runtime_info.clear()
    hub.runtime_info.update(before)


def names(assigner):
    return [type(cost).__name__ for cost in assigner.costs_for(PRED)]


@pytest.mark.parametrize("by_epoch", [True, False])
def test_each_stage_decides_as_its_costs_do(hub, by_epoch):
    assigner = HungarianAssigner(dict(SCHEDULE, by_epoch=by_epoch))
    for step in range(4):
        hub.update_info("epoch", step if by_epoch else 0)
        hub.update_info("iter", 100 if by_epoch else step)
        costs = USUAL if step < 2 else [dict(type="HighOrderCost")]
        expected = HungarianAssigner(costs).assign(PRED, GT, META)
        assert names(assigner) == [cost["type"] for cost in costs]
        assert torch.equal(assigner.assign(PRED, GT, META).gt_inds, expected.gt_inds)
        assert torch.equal(assigner.assign_batch([PRED], [GT], None, [META])[0].gt_inds, expected.gt_inds)


def test_beside_other_costs(hub):
    hub.update_info("epoch", 3)
    assigner = HungarianAssigner([dict(type="BBoxL1Cost"), SCHEDULE])
    assert names(assigner) == ["BBoxL1Cost", "HighOrderCost"]


def test_as_one_cost_it_is_the_sum(hub):
    hub.update_info("epoch", 0)
    costs = HungarianAssigner(USUAL).match_costs
    expected = costs[0](PRED, GT, META) + costs[1](PRED, GT, META)
    assert torch.equal(HungarianAssigner(SCHEDULE).match_costs[0](PRED, GT, META), expected)


class Toy(BaseModel):
    """Notes the costs of each iteration."""

    def __init__(self, assigner):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.assigner = assigner
        self.seen = []

    def forward(self, inputs, data_samples=None, mode="loss"):
        self.seen.append((progress(), names(self.assigner)[-1]))
        return dict(loss=self.weight.sum())


def train(folder, epochs, resume):
    model = Toy(HungarianAssigner(SCHEDULE))
    Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=1, num_workers=0, dataset=[torch.zeros(1)], sampler=dict(type="DefaultSampler", shuffle=False)
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
        resume=resume,
        experiment_name=f"scheduled-costs-{epochs}-{resume}",
        log_level="ERROR",
    ).train()
    return model.seen


def test_a_resumed_training_goes_on_in_its_stage(tmp_path, hub):
    stages = ["IoUCost", "IoUCost", "HighOrderCost", "HighOrderCost", "HighOrderCost"]
    assert train(tmp_path, 3, resume=False) == list(enumerate(stages))[:3]
    assert train(tmp_path, 5, resume=True) == list(enumerate(stages))[3:]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], r"begin of the stages is \[\]"),
        ([dict(begin=1, match_costs=USUAL)], r"begin of the stages is \[1\]; the first must be 0"),
        ([dict(begin=0, match_costs=USUAL), dict(begin=0, match_costs=USUAL)], "each later than the one before"),
        ([dict(begin=0.5, match_costs=USUAL)], "a whole number is expected"),
        ([dict(match_costs=USUAL)], "write dict"),
        ([dict(begin=0, costs=USUAL)], "write dict"),
        ([dict(begin=0, match_costs=USUAL, end=3)], "there is no option 'end'"),
    ],
)
def test_wrong_stages_are_named(stages, message):
    with pytest.raises(ValueError, match=message) as raised:
        ScheduledCosts(stages)
    assert str(raised.value).startswith("ScheduledCosts: ")


def test_a_stage_without_costs():
    assigner = HungarianAssigner(dict(type="ScheduledCosts", stages=[dict(begin=0, match_costs=[])]))
    with pytest.raises(ValueError, match="HungarianAssigner: match_costs has no cost for this epoch"):
        assigner.assign(PRED, GT, META)
    with pytest.raises(ValueError, match="ScheduledCosts: the stage of this epoch has no match_costs"):
        assigner.match_costs[0](PRED, GT, META)


def test_numbers_between_points(hub):
    falling = Schedule("collab", "lambda2", dict(points=[(0, 2.0), (4, 1.0), (5, 0.0)], by_epoch=False))
    for step, expected in enumerate([2.0, 1.75, 1.5, 1.25, 1.0, 0.0, 0.0]):
        hub.update_info("iter", step)
        assert falling.now() == expected
    assert Schedule("collab", "lambda2", 3).at(100) == 3


@pytest.mark.parametrize("value", ["2", [(0, 1.0), (0, 2.0)], [(1, 1.0)], [], [0, 1], [(0, -1.0)], dict(begin=0)])
def test_wrong_points_are_named(value):
    with pytest.raises(ValueError, match=r"^collab: .*(lambda2|option)"):
        Schedule("collab", "lambda2", value)
