"""Boxes that learn from the union of all layers' pairs, against a plain loop over mmdet's own matchings."""

from collections import Counter

import pytest
import torch

pytest.importorskip("mmdet.models")
from mmdet.models.losses import GIoULoss
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.config import Config
from mmengine.structures import InstanceData

from batched_detrs import BOXES, CONFIGS, build, every_head, losses, mmdet_scope
from detectors import batch
from toolbox import ROOT
from visdet_assigners.functional.resolve import union_of_matchings
from visdet_assigners.testing.measure import OperatorCounter

assert mmdet_scope  # a fixture


def stirred(model):
    """With other weights in each layer of the head, so that layers match differently."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.bbox_head.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def with_union(name):
    model = stirred(build(CONFIGS[name][1]))
    model.bbox_head.box_matching = "union"
    return model


def plain_union(layers):
    """Of each query the object that most layers matched it with, of equals that of the latest layer."""
    union = {}
    for query in range(len(layers[0])):
        matched = [(objects[query], layer) for layer, objects in enumerate(layers) if objects[query] >= 0]
        times = Counter(gt for gt, _ in matched)
        if matched:
            union[query] = max(matched, key=lambda pair: (times[pair[0]], pair[1]))[0]
    return union


@pytest.mark.parametrize("num_layers", [1, 2, 3, 6])
def test_union_by_a_plain_loop(num_layers):
    index = torch.randint(-1, 4, (num_layers, 5, 40), generator=torch.Generator().manual_seed(num_layers))
    found = union_of_matchings(index)
    for image in range(5):
        expected = plain_union(index[:, image].tolist())
        assert found[image].tolist() == [expected.get(query, -1) for query in range(40)]


def outputs_of(model):
    """The losses of a step, and what the head computed them from."""
    head, kept = model.bbox_head, {}
    original = head.loss_by_feat

    def listen(scores, boxes, *rest):
        kept.update(scores=scores, boxes=boxes, rest=rest)
        return original(scores, boxes, *rest)

    head.loss_by_feat = listen
    found = losses(model)
    del head.loss_by_feat
    return found, kept


@every_head
def test_losses_by_a_plain_loop(name):
    """L1 and GIoU of each pair of the union, added up and divided by their number; classes as in mmdet."""
    own = losses(stirred(build(CONFIGS[name][0])))
    model = with_union(name)
    found, kept = outputs_of(model)
    assert found.keys() == own.keys()
    for key, value in own.items():
        if "loss_cls" in key or "dn_loss" in key or "enc_" in key:
            assert torch.equal(found[key], value), key
    first = kept["scores"].shape[2] - model.num_queries  # denoising queries come before
    scores, boxes = kept["scores"][:, :, first:].detach(), kept["boxes"][:, :, first:].detach()
    size = torch.tensor([160.0, 128.0, 160.0, 128.0])
    pairs = []
    for image, gts in enumerate(BOXES):
        gt = InstanceData(bboxes=torch.tensor(gts).view(-1, 4), labels=labels_of(image))
        decided = []
        for layer_scores, layer_boxes in zip(scores[:, image], boxes[:, image]):
            pred = InstanceData(scores=layer_scores, bboxes=bbox_cxcywh_to_xyxy(layer_boxes) * size)
            decided.append((model.bbox_head.assigner.assign(pred, gt, dict(img_shape=(128, 160))).gt_inds - 1).tolist())
        pairs += [(image, query, gt.bboxes[index]) for query, index in plain_union(decided).items()]
    num_objects = sum(map(len, BOXES))
    assert num_objects < len(pairs) <= len(boxes) * num_objects
    for layer, layer_boxes in enumerate(boxes):
        prefix = f"d{layer}." if layer + 1 < len(boxes) else ""
        l1 = giou = 0.0
        for image, query, gt in pairs:
            box = layer_boxes[image, query]
            corners = bbox_cxcywh_to_xyxy(box[None])[0] * size
            target = torch.cat([(gt[:2] + gt[2:]) / 2, gt[2:] - gt[:2]]) / size
            l1 += 5.0 * (box - target).abs().sum()
            giou += 2.0 * GIoULoss()(corners[None], gt[None])
        assert torch.allclose(found[f"{prefix}loss_bbox"], l1 / len(pairs), rtol=1e-4)
        assert torch.allclose(found[f"{prefix}loss_iou"], giou / len(pairs), rtol=1e-4)


def labels_of(image):
    """The labels of `detectors.batch`."""
    return batch(BOXES, (128, 160), num_classes=3)[1][image].gt_instances.labels


@every_head
def test_no_further_waits(name, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    waits = {}
    for box_matching in ("own", "union"):
        model = build(CONFIGS[name][1])
        model.bbox_head.box_matching = box_matching
        with OperatorCounter() as counter:
            losses(model)
        waits[box_matching] = counter.waits.total()
    assert waits["union"] <= waits["own"]


@every_head
def test_every_parameter_learns(name):
    model = with_union(name)
    sum(losses(model).values()).backward()
    stock = build(CONFIGS[name][0])
    sum(losses(stock).values()).backward()
    for mine, theirs in zip(model.parameters(), stock.parameters()):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or mine.grad.isfinite().all()


def test_by_a_config_and_by_a_wrong_one():
    def built(box_matching):
        cfg = Config.fromfile(ROOT / "configs" / CONFIGS["deformable_detr"][1]).model
        cfg.bbox_head.box_matching = box_matching
        return MODELS.build(cfg)

    assert built("union").bbox_head.box_matching == "union"
    with pytest.raises(ValueError, match="box_matching is 'all'; choose one of own, union"):
        built("all")
