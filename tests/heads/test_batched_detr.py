"""DETR's line matched at once: mmdet's own losses to the last bit, with one call of the assigner and one wait."""

from unittest.mock import patch

import pytest
import torch

pytest.importorskip("mmdet.models")
from mmdet.models.task_modules import assigners
from mmdet.registry import MODELS
from mmengine.config import Config

from batched_detrs import BOXES, CONFIGS, build, every_head, losses, mmdet_scope
from detectors import build_detector
from toolbox import ROOT
from visdet_assigners import HungarianAssigner
from visdet_assigners.assigners import hungarian
from visdet_assigners.functional import lsap
from visdet_assigners.heads import BatchedDeformableDETRHead

assert mmdet_scope  # a fixture


@every_head
def test_losses_and_gradients_are_mmdets(name):
    compare(*(build(config) for config in CONFIGS[name]))


def test_proposals_of_a_two_stage_deformable_detr():
    stock, batched = (
        build_detector("deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py") for _ in range(2)
    )
    batched.bbox_head.__class__ = BatchedDeformableDETRHead  # of the same weights
    for model in (stock, batched):
        model.bbox_head.assigner = HungarianAssigner([dict(type="FocalLossCost"), dict(type="IoUCost")])
    assert "enc_loss_cls" in compare(stock, batched)


def compare(stock, batched) -> dict[str, torch.Tensor]:
    """The losses, which both give, and their gradients to the last bit."""
    assert batched.state_dict().keys() == stock.state_dict().keys()
    expected, found = losses(stock), losses(batched)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    for values in (expected, found):
        sum(values.values()).backward()
    for mine, theirs in zip(batched.parameters(), stock.parameters()):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad)
    return expected


@every_head
def test_one_call_and_one_copy_for_all_layers_and_images(name):
    stock, batched = (build(config) for config in CONFIGS[name])
    calls = {}
    for which, model in (("stock", stock), ("batched", batched)):
        with patch.object(hungarian, "matched_columns", wraps=lsap.matched_columns) as solve:
            losses(model)
        calls[which] = [sum(map(len, call.args[1])) for call in solve.call_args_list]
    assert len(calls["batched"]) == 1
    assert calls["stock"] == [1] * calls["batched"][0]
    assert calls["batched"][0] % len(BOXES) == 0


@every_head
def test_the_assigner_is_there_again_after_an_error(name):
    model = build(CONFIGS[name][1])
    stopped = patch.object(type(model.bbox_head), "loss_by_feat_single", side_effect=RuntimeError("stop"))
    with stopped, pytest.raises(RuntimeError, match="stop"):
        losses(model)
    assert isinstance(model.bbox_head.assigner, HungarianAssigner)


def test_another_assigner_is_refused():
    cfg = Config.fromfile(ROOT / "configs" / CONFIGS["detr"][1]).model
    cfg.train_cfg.assigner.type = assigners.HungarianAssigner
    with pytest.raises(ValueError, match=r"BatchedDETRHead: the assigner is HungarianAssigner; .*visdet_assigners"):
        MODELS.build(cfg)
