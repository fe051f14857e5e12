"""Costs of classes and boxes at once, in the Hungarian assigner: one matching, blocks, NaN, errors."""

import pytest
import torch
from mmengine.structures import InstanceData

from visdet_assigners import HungarianAssigner
from visdet_assigners.functional.costs import high_order_cost, position_modulated_cost
from visdet_assigners.match_costs import HighOrderCost, PositionModulatedCost
from visdet_assigners.settings import using

META = dict(img_shape=(100, 200), img_path="street.jpg")
BOXES = torch.tensor([[0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0], [100.0, 10.0, 150.0, 60.0]])
KINDS = {"HighOrderCost": high_order_cost, "PositionModulatedCost": position_modulated_cost}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_way = pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])


def prediction():
    return InstanceData(bboxes=BOXES.flip(0), scores=torch.zeros(3, 4))


def truth():
    return InstanceData(bboxes=BOXES[:2], labels=torch.tensor([1, 3]))


@every_kind
def test_boxes_find_their_objects_and_the_cost_is_the_functions(kind):
    assigner = HungarianAssigner(dict(type=kind, weight=3.0))
    assert assigner.assign(prediction(), truth()).gt_inds.tolist() == [0, 2, 1]
    cost = assigner.match_costs[0](prediction(), truth())
    expected = KINDS[kind](torch.zeros(3, 4), torch.tensor([1, 3]), BOXES.flip(0), BOXES[:2])
    assert torch.equal(cost, expected * 3)


@every_kind
@every_way
def test_ground_truths_in_blocks_or_whole(kind, way, monkeypatch):
    """The largest place is that of the image, not of a block."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    g = torch.Generator().manual_seed(0)
    low = torch.rand(20, 2, generator=g) * 100
    gt = InstanceData(
        bboxes=torch.cat([low, low + 5 + 30 * torch.rand(20, 2, generator=g)], 1), labels=torch.arange(20) % 4
    )
    pred = InstanceData(bboxes=gt.bboxes[:9] + 2, scores=torch.randn(9, 4, generator=g))
    assigner = HungarianAssigner([dict(type=kind), dict(type="BBoxL1Cost", weight=5.0)])
    (image,) = assigner.read_images([(pred, gt, META)])
    whole = assigner.total_cost(image)
    with using(memory_budget=1):
        assert torch.equal(assigner.total_cost(image), whole)


@every_kind
@every_way
@pytest.mark.parametrize("field", ["bboxes", "scores"])
def test_what_is_not_finite_is_named_or_left_out(kind, way, field, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    pred = prediction()
    bad = getattr(pred, field).clone()
    bad[1] = float("nan")
    pred[field] = bad
    with pytest.raises(ValueError, match=rf"HungarianAssigner: pred_instances.{field}\[1, 0\] is nan.*street.jpg"):
        HungarianAssigner(dict(type=kind), on_nonfinite="raise").assign(pred, truth(), META)
    replaced = HungarianAssigner(dict(type=kind), on_nonfinite="replace").assign(pred, truth(), META)
    assert replaced.gt_inds[1] == 0
    without = HungarianAssigner(dict(type=kind)).assign(prediction()[[0, 2]], truth(), META)
    assert replaced.gt_inds[[0, 2]].tolist() == without.gt_inds.tolist()


@every_kind
def test_missing_fields_and_wrong_labels_are_named(kind):
    pred, gt = prediction(), truth()
    del pred.scores
    with pytest.raises(ValueError, match=r"HungarianAssigner: pred_instances.scores must be"):
        HungarianAssigner(dict(type=kind)).assign(pred, gt, META)
    gt.labels = torch.tensor([0, 4])
    with pytest.raises(ValueError, match=r"HungarianAssigner: gt_instances.labels\[1\] is 4.*street.jpg"):
        HungarianAssigner(dict(type=kind)).assign(prediction(), gt, META)
    with pytest.raises(ValueError, match=rf"{kind}: gt_instances.labels\[1\] is 4"):
        HungarianAssigner(dict(type=kind)).match_costs[0](prediction(), gt)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HighOrderCost(alpha=-1), "HighOrderCost: alpha is -1; it must be at least 0"),
        (lambda: HighOrderCost(alpha="4"), "HighOrderCost: alpha is '4'; a number is expected"),
        (lambda: PositionModulatedCost(beta=float("nan")), "PositionModulatedCost: beta is nan"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_kind
@pytest.mark.parametrize(("num_preds", "num_gts"), [(0, 2), (3, 0), (1, 2)])
def test_few_or_none(kind, num_preds, num_gts):
    result = HungarianAssigner(dict(type=kind)).assign(prediction()[:num_preds], truth()[:num_gts], META)
    assert len(result.gt_inds) == num_preds
    assert (result.gt_inds > 0).sum() == min(num_preds, num_gts)
