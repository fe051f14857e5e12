"""One-to-many training of the detector's own queries, against plain loops; the detector stays as it is."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, GIoULoss, L1Loss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData

from co_detrs import BOXES, KINDS, SIZES, build_co, dense, images, losses_of, plain_config
from detectors import build
from visdet_assigners.codetr import PrimaryOneToMany, one_to_many, strip_auxiliary
from visdet_assigners.codetr.primary import after_cross_attention, match_one_to_many
from visdet_assigners.set_losses import targets_of, truths_of
from visdet_assigners.settings import using
from visdet_assigners.testing.measure import OperatorCounter

PRIMARY = dict(type="PrimaryOneToMany")
MAIN = {f"{layer}loss_{term}" for layer in ("", "d0.") for term in ("cls", "bbox", "iou")}
NOTHING = [[], []]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def models():
    """One detector with the branch alone for each kind, built once."""
    built = {}

    def get(kind):
        if kind not in built:
            built[kind] = build_co(kind, [PRIMARY])
        return built[kind]

    return get


def total(losses):
    return sum(value for name, value in losses.items() if "loss" in name)


def plain_one_to_many(quality, threshold, topk):
    """Object by object and query by query, quality[q][m]."""
    claims = defaultdict(list)
    for gt in range(len(quality[0]) if quality else 0):
        order = sorted(range(len(quality)), key=lambda query: -quality[query][gt])
        for rank, query in enumerate(order[:topk]):
            if rank == 0 or quality[query][gt] >= threshold:
                claims[query].append((rank == 0, quality[query][gt], -gt))
    return [-max(claims[query])[2] if query in claims else -1 for query in range(len(quality))]


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.9, 1.0])
@pytest.mark.parametrize(("num_queries", "num_gts", "topk"), [(30, 7, 6), (4, 9, 6), (12, 3, 1), (1, 1, 6)])
def test_matching_by_a_plain_loop(num_queries, num_gts, topk, threshold):
    generator = torch.Generator().manual_seed(num_queries)
    quality = torch.rand(5, num_queries, num_gts, generator=generator)
    counts = [num_gts, 0, max(1, num_gts // 2), num_gts, 1]
    is_object = torch.arange(num_gts) < torch.tensor(counts)[:, None]
    found = one_to_many(quality, is_object, threshold, topk)
    for image, count in enumerate(counts):
        assert found[image].tolist() == plain_one_to_many(quality[image, :, :count].tolist(), threshold, topk)


def test_each_query_serves_one_object_and_an_objects_best_goes_first():
    quality = torch.tensor([[[0.95, 0.9], [0.1, 0.6], [0.5, 0.3], [0.2, 0.2]]])
    # Query 0 is the best of both, and goes to the better; the second object keeps its other one.
    assert one_to_many(quality, torch.tensor([[True, True]])).tolist() == [[0, 1, 0, -1]]
    # A best below the threshold is kept from an object that has better ones.
    quality = torch.tensor([[[0.5, 0.3], [0.9, 0.1], [0.8, 0.2]]])
    assert one_to_many(quality, torch.tensor([[True, True]])).tolist() == [[1, 0, 0]]


def test_what_is_nan_is_never_chosen():
    quality = torch.tensor([[[float("nan")], [0.2], [0.1]], [[float("nan")]] * 3])
    assert one_to_many(quality, torch.ones(2, 1, dtype=torch.bool)).tolist() == [[-1, 0, -1], [-1, -1, -1]]


def drawn(num_queries=9, num_classes=4):
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(2, 2, num_queries, num_classes, generator=generator)
    boxes = torch.rand(2, 2, num_queries, 4, generator=generator) * 0.4 + 0.2
    samples = images(sizes=SIZES)[1]
    return scores, boxes, [s.gt_instances for s in samples], [s.metainfo for s in samples]


def iou(first, second):
    width, height = ((torch.min(first[2:], second[2:]) - torch.max(first[:2], second[:2])).clamp(min=0)).tolist()
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def plain_quality(scores, boxes, gt, meta, weight, softmax=False):
    """weight * p + (1 - weight) * IoU of each pair of an image."""
    height, width = meta["img_shape"]
    corners = bbox_cxcywh_to_xyxy(boxes) * torch.tensor([width, height, width, height])
    p = scores.softmax(-1) if softmax else scores.sigmoid()
    return [
        [weight * float(p[q, label]) + (1 - weight) * iou(corners[q], box) for label, box in zip(gt.labels, gt.bboxes)]
        for q in range(len(boxes))
    ]


@pytest.mark.parametrize("budget", [1, 2**28])
def test_quality_by_a_plain_loop(budget):
    scores, boxes, gts, metas = drawn(num_classes=80)
    with using(memory_budget=budget):
        found = match_one_to_many(scores[0].sigmoid(), boxes[0], truths_of(gts, metas), 0.3, 0.3, 4)
    for image in range(2):
        quality = plain_quality(scores[0, image], boxes[0, image], gts[image], metas[image], 0.3)
        assert found[image].tolist() == plain_one_to_many(quality, 0.3, 4)
    assert (found >= 0).sum() > len(BOXES[0]) + len(BOXES[1])


def head_of(softmax):
    return SimpleNamespace(
        loss_cls=CrossEntropyLoss(class_weight=[1.0] * 80 + [0.1]) if softmax else FocalLoss(loss_weight=2.0),
        loss_bbox=L1Loss(loss_weight=5.0),
        loss_iou=GIoULoss(loss_weight=2.0),
        num_classes=80,
        bg_cls_weight=0.1 if softmax else 0,
        sync_cls_avg_factor=False,
    )


@pytest.mark.parametrize("softmax", [False, True])
def test_losses_by_plain_loops(softmax):
    """Every query learns its class, the positives their boxes; all is divided by the number of positives."""
    scores, boxes, gts, metas = drawn(num_classes=81 if softmax else 80)
    head, branch = head_of(softmax), PrimaryOneToMany(score_weight=0.2, threshold=0.3, topk=4)
    losses = branch.losses(head, scores, boxes, truths_of(gts, metas))
    assert set(losses) == MAIN
    for layer, prefix in enumerate(("d0.", "")):
        expected, labels, positives = dict(loss_bbox=0.0, loss_iou=0.0), [], 0
        for image, (gt, meta) in enumerate(zip(gts, metas)):
            quality = plain_quality(scores[layer, image], boxes[layer, image], gt, meta, 0.2, softmax)
            size = torch.tensor([meta["img_shape"][1], meta["img_shape"][0]] * 2, dtype=torch.float32)
            for query, index in enumerate(plain_one_to_many(quality, 0.3, 4)):
                labels.append(int(gt.labels[index]) if index >= 0 else 80)
                if index < 0:
                    continue
                positives += 1
                box, truth = boxes[layer, image, query], gt.bboxes[index]
                target = torch.cat([(truth[:2] + truth[2:]) / 2, truth[2:] - truth[:2]]) / size
                expected["loss_bbox"] += head.loss_bbox(box, target, reduction_override="none").sum()
                corners = bbox_cxcywh_to_xyxy(box[None]) * size
                expected["loss_iou"] += head.loss_iou(corners, truth[None], reduction_override="none").sum()
        own = head.loss_cls(scores[layer].flatten(0, 1), torch.tensor(labels), reduction_override="none").sum()
        count = positives + 0.1 * (len(labels) - positives) if softmax else positives
        assert positives > 4
        assert torch.allclose(losses[f"{prefix}loss_cls"], own / count, rtol=1e-5)
        for name, value in expected.items():
            assert torch.allclose(losses[prefix + name], value / positives, rtol=1e-5), name


def test_no_waits_but_those_of_the_losses(monkeypatch):
    """mmdet's own losses ask the device whether any weight is above 0."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    scores, boxes, gts, metas = drawn(num_classes=80)
    with OperatorCounter() as counter:
        truths = truths_of(gts, metas)
        index = match_one_to_many(scores[0].sigmoid(), boxes[0], truths, 0.3, 0.4, 6)
        targets_of(head_of(softmax=False), truths, index, index)
    assert counter.waits.total() == 0, counter.waits


@every_kind
def test_main_losses_are_the_plain_detectors_to_the_last_bit(models, kind):
    model, plain = models(kind), build(plain_config(kind))
    assert not list(model.auxiliary.parameters())
    plain.load_state_dict(model.state_dict())
    ours, theirs = losses_of(model, images()), losses_of(plain, images())
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    assert set(ours) - set(theirs) == {f"{name}_aux0" for name in MAIN}


@every_kind
def test_what_is_left_is_the_plain_detector(models, kind):
    model, plain = models(kind).eval(), build(plain_config(kind)).eval()
    plain.load_state_dict(model.state_dict())
    stripped = strip_auxiliary(model)
    assert type(stripped) is type(plain)
    with torch.no_grad():
        predictions = [[s.pred_instances for s in one.predict(*images())] for one in (model, plain, stripped)]
    model.train()
    for ours, *others in zip(*predictions):
        assert len(ours)
        for other in others:
            assert all(torch.equal(ours[field], other[field]) for field in ("bboxes", "scores", "labels"))


@every_kind
@pytest.mark.parametrize("boxes", [None, [[], [[30.0, 5.0, 80.0, 50.0]]], NOTHING], ids=["full", "one empty", "empty"])
def test_gradients_whatever_the_images_hold(models, kind, boxes):
    model = models(kind)
    losses = losses_of(model, images(boxes))
    assert all(torch.isfinite(value).all() for value in losses.values())
    own = sum(value for name, value in losses.items() if name.endswith("_aux0"))
    for part in (model.encoder, model.decoder.layers[0].cross_attn, model.bbox_head):
        learned = torch.autograd.grad(own, list(part.parameters()), retain_graph=True, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in learned)
    # What comes behind the states of the last layer learns nothing of it.
    behind = list(model.decoder.layers[-1].ffn.parameters())
    learned = torch.autograd.grad(own, behind, retain_graph=True, allow_unused=True)
    assert not any(gradient is not None and gradient.any() for gradient in learned)
    if boxes == NOTHING:
        assert all(losses[f"{name}_aux0"] == 0 for name in MAIN if "cls" not in name)


@every_kind
def test_one_pass_through_the_decoder_and_no_denoising_queries(models, kind):
    model, passes, read = models(kind), [], []
    handles = [
        model.decoder.register_forward_hook(lambda *_: passes.append(1)),
        model.bbox_head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[2])),
    ]
    losses_of(model, images())
    for handle in handles:
        handle.remove()
    assert len(passes) == 1
    main, own = read
    assert own == model.num_queries
    assert (main > own) == (kind == "dino")


def test_states_are_those_after_cross_attention(models):
    """The feed-forward part of each layer makes the decoder's states of them."""
    model = models("refined").eval()
    inputs, samples = images()
    with torch.no_grad():
        features = model.extract_feat(inputs)
        encoder_inputs, decoder_inputs = model.pre_transformer(features, samples)
        decoder_inputs.update(model.pre_decoder(**model.forward_encoder(**encoder_inputs))[0])
        with after_cross_attention(model.decoder) as states:
            hidden = model.forward_decoder(**decoder_inputs)["hidden_states"]
        for layer, state, after in zip(model.decoder.layers, states, hidden, strict=True):
            assert torch.equal(layer.norms[2](layer.ffn(state)), after)
    model.train()
    assert not any(layer.norms[1]._forward_hooks for layer in model.decoder.layers)


@pytest.mark.parametrize("kind", ["refined", "dino"])
def test_bfloat16_autocast(models, kind):
    model = models(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, images())
    assert all(torch.isfinite(value).all() for value in losses.values())
    total(losses).backward()


def test_beside_branches_with_heads():
    """Numbers are those of the list; the encoder of queries is the head's."""
    losses = losses_of(build_co("refined", [PRIMARY, dense("atss"), PRIMARY]), images())
    ones = {name for name in losses if name.endswith("1")}
    assert {"loss_cls_aux0", "loss_cls_aux2", "loss_cls1", "loss_cls_aux1"} <= set(losses)
    assert ones == {f"loss_{term}1" for term in ("cls", "bbox", "centerness")} | {f"{name}_aux1" for name in MAIN}
    assert all(torch.equal(losses[f"{name}_aux0"], losses[f"{name}_aux2"]) for name in MAIN)
    alone = losses_of(build_co("refined", [dense("atss")]), images())
    for name, value in alone.items():
        assert torch.equal(losses[name.removesuffix("0") + "1" if name.endswith("0") else name], value), name


def test_lambda1_is_its_factor_and_the_switches_of_heads_are_not_its():
    once = losses_of(build_co("refined", [PRIMARY]), images())
    twice = losses_of(build_co("refined", [PRIMARY], lambda1=2.0), images())
    off = losses_of(build_co("refined", [PRIMARY], pos_queries=False, aux_losses=False), images())
    for name, value in once.items():
        assert torch.equal(twice[name], value * (2 if "_aux0" in name else 1)), name
        assert torch.equal(off[name], value), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(score_weight=1.5), "score_weight is 1.5; it must be at least 0 and at most 1"),
        (dict(threshold=float("nan")), "threshold is nan"),
        (dict(topk=0), "topk is 0; at least 1 is needed"),
        (dict(topk=2.5), "topk is 2.5; a whole number"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"PrimaryOneToMany: {message}"):
        PrimaryOneToMany(**options)


def test_truths_of_images_without_objects():
    empty = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    truths = truths_of([empty, empty], [dict(img_shape=(8, 16))] * 2)
    assert truths.boxes.shape == (2, 1, 4)
    assert not truths.is_object.any()
    assert truths.scale.tolist() == [[16, 8, 16, 8]] * 2
