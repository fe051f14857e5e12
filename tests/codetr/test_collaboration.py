"""Collaborative training adds to the plain detector, and takes nothing away."""

import math

import pytest
import torch
from mmengine.logging import MessageHub

from co_detrs import BRANCHES, FASTER_RCNN, KINDS, SIZES, build_co, dense, images, losses_of, plain_config
from detectors import build
from visdet_assigners.codetr import Collaboration, strip_auxiliary

NOTHING = [[], []]
HEAD_LOSSES = {"atss": 3, "rcnn": 5, "retina": 2}


@pytest.fixture(scope="module")
def models():
    """One detector with two branches for each kind, built once."""
    built = {}

    def get(kind):
        if kind not in built:
            built[kind] = build_co(kind, BRANCHES[:2])
        return built[kind]

    return get


def total(losses):
    return sum(value for name, value in losses.items() if "loss" in name)


def gradient_norm(module, loss):
    gradients = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None))


def unused(model):
    return [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]


@pytest.mark.parametrize("kind", KINDS)
def test_main_losses_are_the_plain_detectors_to_the_last_bit(models, kind):
    model = models(kind)
    plain = build(plain_config(kind))
    plain.load_state_dict(strip_auxiliary(model.state_dict()))
    ours, theirs = losses_of(model, images()), losses_of(plain, images())
    assert theirs
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_without_the_auxiliary_modules_predicts_the_same(models, kind):
    model = models(kind).eval()
    plain = build(plain_config(kind)).eval()
    plain.load_state_dict(strip_auxiliary(model.state_dict()))
    stripped = strip_auxiliary(model)
    assert type(stripped) is type(plain)
    assert not any("auxiliary" in name for name, _ in stripped.named_modules())
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in stripped.named_parameters()] == names
    with torch.no_grad():
        predictions = [[s.pred_instances for s in one.predict(*images())] for one in (model, plain, stripped)]
    model.train()
    for ours, *others in zip(*predictions):
        assert len(ours)
        for other in others:
            assert all(torch.equal(ours[field], other[field]) for field in ("bboxes", "scores", "labels"))


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_runs_no_auxiliary_module(models, kind):
    model = models(kind).eval()
    ran = []
    handles = [one.register_forward_hook(lambda module, *_: ran.append(module)) for one in model.auxiliary.modules()]
    with torch.no_grad():
        model.predict(*images())
        model.forward(*images(), mode="tensor")
    [handle.remove() for handle in handles]
    model.train()
    assert not ran


@pytest.mark.thinned
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boxes", [None, [[], [[30.0, 5.0, 80.0, 50.0]]], NOTHING], ids=["full", "one empty", "empty"])
def test_every_parameter_learns_whatever_the_images_hold(models, kind, boxes):
    model = models(kind)
    model.zero_grad(set_to_none=True)
    losses = losses_of(model, images(boxes))
    assert all(torch.isfinite(value).all() for value in losses.values())
    total(losses).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    if kind == "dino" and boxes == NOTHING:  # mmdet's own: it has no denoising queries then
        gradients = {name: value for name, value in gradients.items() if "dn_query_generator" not in name}
    assert not [name for name, gradient in gradients.items() if gradient is None]
    assert not [name for name, gradient in gradients.items() if not gradient.isfinite().all()]


@pytest.mark.parametrize("branches", range(4))
def test_losses_by_name(branches):
    losses = losses_of(build_co("refined", BRANCHES[:branches]), images())
    main = {f"{layer}loss_{term}" for layer in ("", "d0.") for term in ("cls", "bbox", "iou")}
    expected = set(main)
    for index, heads in enumerate(list(HEAD_LOSSES)[:branches]):
        names = {
            "atss": ["loss_cls", "loss_bbox", "loss_centerness"],
            "rcnn": ["loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "acc"],
            "retina": ["loss_cls", "loss_bbox"],
        }[heads]
        assert len(names) == HEAD_LOSSES[heads]
        expected |= {f"{name}{index}" for name in names} | {f"{name}_aux{index}" for name in main}
    assert set(losses) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_encoder_from_all_and_the_decoder_from_the_queries(models, kind):
    model = models(kind)
    losses = losses_of(model, images())
    for index in range(2):
        head = sum(v for n, v in losses.items() if n.endswith(str(index)) and "loss" in n and "aux" not in n)
        queries = sum(value for name, value in losses.items() if name.endswith(f"_aux{index}"))
        assert gradient_norm(model.encoder, head) > 0
        assert gradient_norm(model.encoder, queries) > 0
        assert gradient_norm(model.decoder, head) == 0
        assert gradient_norm(model.decoder, queries) > 0


def test_the_factors_scale_their_own_losses():
    once = losses_of(build_co("refined", BRANCHES[:2]), images())
    twice = losses_of(build_co("refined", BRANCHES[:2], lambda1=2.0, lambda2=4.0), images())
    for name, value in once.items():
        factor = 2 if name[-1].isdigit() and "loss" in name else 1
        assert torch.equal(twice[name], value * factor), name


def test_the_factors_change_while_training():
    """In one step the losses are those of the factors of now."""
    hub = MessageHub.get_current_instance()
    model = build_co("refined", BRANCHES[:2], lambda1=[(0, 1.0), (2, 3.0)], lambda2=[(0, 2.0), (4, 0.0)])
    for epoch, factors in ((0, (1.0, 2.0)), (1, (2.0, 1.5)), (3, (3.0, 0.5)), (9, (3.0, 0.0))):
        hub.update_info("epoch", epoch)
        try:
            found = losses_of(model, images())
        finally:
            hub.update_info("epoch", 0)
        expected = losses_of(build_co("refined", BRANCHES[:2], lambda1=factors[0], lambda2=factors[1]), images())
        for name, value in expected.items():
            assert torch.equal(found[name], value), name


def test_lambda2_stands_inside_the_sum_over_layers():
    branch = [dense("atss")]
    model = build_co("refined", branch)
    data = images()
    torch.manual_seed(1)
    features = model.extract_feat(data[0])
    inputs, _ = model.pre_transformer(features, data[1])
    memory = model.forward_encoder(**inputs)["memory"]
    maps = model.auxiliary.adapter(memory, [level.shape[-2:] for level in features])
    alone, _ = model.auxiliary.branches[0].loss(maps, data[1])  # lists: one for each level
    losses = losses_of(model, data)
    layers = model.decoder.num_layers
    for name, value in alone.items():
        assert torch.equal(losses[f"{name}0"], sum(one * (2.0 * layers) for one in value)), name


def test_each_half_can_be_switched_off():
    both = losses_of(build_co("refined", BRANCHES[:2]), images())
    heads_alone = build_co("refined", BRANCHES[:2], pos_queries=False)
    assert not list(heads_alone.auxiliary.encoders)  # what is off is not built
    without = losses_of(heads_alone, images())
    assert set(without) == {name for name in both if "_aux" not in name}
    queries_alone = build_co("refined", BRANCHES[:2], aux_losses=False)
    losses = losses_of(queries_alone, images())
    assert set(losses) == set(both)
    assert all(losses[f"loss_{term}"] == 0 for term in ("cls0", "bbox0", "rpn_cls1", "cls1", "bbox1"))
    assert all(losses[f"loss_{term}_aux0"] > 0 for term in ("cls", "bbox", "iou"))
    total(losses).backward()
    assert not unused(queries_alone)


def test_most_queries_of_a_branch():
    model = build_co("refined", BRANCHES[:1], max_pos_queries=3)
    seen = []
    model.auxiliary.encoders[0].register_forward_hook(lambda module, inputs, output: seen.append(output[0].shape))
    losses_of(model, images())
    assert seen == [(2, 3, 256)]


def test_ground_truths_among_the_proposals_or_not():
    boxes = images()[1][0].gt_instances.bboxes

    def queried(add_gt):
        model = build_co("refined", [dict(FASTER_RCNN, add_gt=add_gt)])
        found = []
        branch = model.auxiliary.branches[0]
        loss = branch.loss
        branch.loss = lambda *args: found.append(loss(*args)) or found[-1]
        losses_of(model, images())
        return found[0][1][0].boxes

    with_them, without = queried(True), queried(False)
    contains = [bool((with_them == box).all(dim=1).any()) for box in boxes]
    assert contains == [True] * len(boxes)
    assert not any((without == box).all(dim=1).any() for box in boxes)


def test_without_features():
    model = build_co("refined", BRANCHES[:1], with_feat=False)
    assert model.auxiliary.encoders[0].feature is None
    total(losses_of(model, images())).backward()
    assert not unused(model)


def test_heads_are_initialised_as_in_their_own_detectors():
    model = build_co("refined", BRANCHES[:1])
    bias = model.auxiliary.branches[0].head.atss_cls.bias
    assert torch.allclose(bias, torch.full_like(bias, -math.log(99)))


@pytest.mark.parametrize("kind", ["refined", "dino"])
def test_bfloat16_autocast(models, kind):
    model = models(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, images())
    exact = losses_of(model, images())
    assert set(losses) == set(exact)
    assert all(torch.isfinite(value).all() for value in losses.values())
    total(losses).backward()


def test_padded_queries_change_no_valid_output(models):
    """A second image with many objects pads the first one's queries; what comes out for the first stays."""
    for kind in KINDS:
        model = models(kind).eval()  # no dropout
        outputs = []
        decode = model.decode_positives
        model.decode_positives = lambda *args, decode=decode, outputs=outputs: (
            outputs.append(decode(*args)) or outputs[-1]
        )
        few = [[[10.0, 10.0, 60.0, 60.0]], [[30.0, 5.0, 80.0, 50.0]]]
        many = [few[0], [[x, y, x + 12.0, y + 12.0] for x in (5.0, 30.0, 60.0) for y in (5.0, 30.0, 45.0)]]
        with torch.no_grad():
            for boxes in (few, many):
                inputs, samples = images(boxes, sizes=[SIZES[0]] * 2)
                features = model.extract_feat(inputs)
                encoder_inputs, decoder_inputs = model.pre_transformer(features, samples)
                encoded = model.forward_encoder(**encoder_inputs)
                context = dict(decoder_inputs, memory=encoded["memory"])
                shapes = [tuple(level.shape[-2:]) for level in features[model.encoder_levels]]
                model.collaborative_losses(context, shapes, samples)
        del model.decode_positives
        model.train()
        (few_scores, few_boxes), _, (many_scores, many_boxes), _ = outputs
        count = few_scores.shape[2]
        assert many_scores.shape[2] > count
        valid = slice(0, count)
        assert (few_scores[:, 0] - many_scores[:, 0, valid]).abs().max() < 1e-5, kind
        assert (few_boxes[:, 0] - many_boxes[:, 0, valid]).abs().max() < 1e-5, kind


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(anchor_generator=dict(type="AnchorGenerator", scales=[8], ratios=[1.0], strides=[8, 16])), "2 levels"),
        (dict(in_channels=64), "in_channels=64"),
    ],
)
def test_heads_that_do_not_fit_the_pyramid(changes, message):
    model = build_co("refined", [dense("atss", **changes)])
    with pytest.raises(ValueError, match=message):
        losses_of(model, images())


def test_branches_with_other_classes_than_the_detector():
    """Fewer would take a class for background, or be out of bounds: 'Target 3 is out of bounds'."""
    with pytest.raises(
        ValueError, match=r"aux_branches\[1\].head: ATSSHead has num_classes=2, the detector's bbox_head 80"
    ):
        build_co("refined", [dense("retina"), dense("atss", num_classes=2)])
    roi = FASTER_RCNN["roi"]
    other = dict(FASTER_RCNN, roi=dict(roi, bbox_head=dict(roi["bbox_head"], num_classes=4)))
    with pytest.raises(ValueError, match=r"aux_branches\[0\].roi.bbox_head: \w+ has num_classes=4"):
        build_co("refined", [other])


def test_what_is_no_head():
    with pytest.raises(TypeError, match="Shared2FCBBoxHead is no dense head"):
        build_co("refined", [dict(type="AuxDenseBranch", head=dict(type="Shared2FCBBoxHead"))])
    cascade = dict(FASTER_RCNN["roi"], type="CascadeRoIHead", num_stages=1, stage_loss_weights=[1.0])
    with pytest.raises(TypeError, match="CascadeRoIHead holds no single sampler"):
        build_co("refined", [dict(FASTER_RCNN, roi=dict(cascade, train_cfg=[cascade["train_cfg"]]))])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (dict(lambda1=-1.0), "lambda1"),
        (dict(lambda2=-0.5), "lambda2"),
        (dict(lambda2=[(0, 2.0), (5, -1.0)]), "collab: lambda2 is -1; it must be at least 0"),
        (dict(lambda2=[(3, 2.0)]), r"collab: lambda2's epochs is \[3\]; the first must be 0"),
        (dict(max_pos_queries=0), "max_pos_queries"),
    ],
)
def test_knobs_are_checked(knobs, message):
    with pytest.raises(ValueError, match=message):
        Collaboration(**knobs)
    with pytest.raises(TypeError, match="lambda_1"):
        Collaboration(lambda_1=1.0)
