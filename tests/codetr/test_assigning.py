"""Any assigner in any anchor head: what the head leaves out is filled in, or it is said what is missing."""

import pytest
import torch
from mmengine.structures import InstanceData

from adapting.adapted import SETTINGS
from co_detrs import STRIDES, build_co, dense, images, losses_of
from visdet_assigners.codetr import AuxDenseBranch
from visdet_assigners.registry import REGISTERED, build

# Of all assigners, those that find their input in a dense head.
FITTING = {name: settings for name, settings in SETTINGS.items() if "RPN" in REGISTERED[name].heads.split(", ")}
FITTING["ScaleRangeAssigner"] = dict(center_sampling=True)
# Those whose positives lie inside their objects, as the centerness of ATSS's head needs.
INSIDE = (
    "ATSSAssigner", "CenterRegionAssigner", "DynamicSoftLabelAssigner", "POTOAssigner", "ScaleRangeAssigner",
    "ScheduledAssigner", "TaskAlignedAssigner",
)  # fmt: skip
# And of those that don't, with what they say.
OTHERS = {
    "ApproxMaxIoUAssigner": "approxs",
    "GridAssigner": "responsible_flags",
    "MaskHungarianAssigner": "masks",
    "MultiInstanceAssigner": "one object for each prior",
}


def assigner(name, settings):
    return dict(type=f"visdet_assigners.{name}", **settings)


def branch_with(head, name, settings, **more):
    cfg = dense(head)["head"]
    train_cfg = dict(cfg["train_cfg"], assigner=assigner(name, settings), **more)
    torch.manual_seed(0)
    branch = AuxDenseBranch({**cfg, "train_cfg": train_cfg}, num_classes=80, embed_dims=16)
    branch.init_weights()
    return branch


def pyramid():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 16, -(-96 // s), -(-128 // s), generator=generator) for s in STRIDES]


def test_every_assigner_is_tried():
    assigners = {name for name in REGISTERED if name.endswith("Assigner")}
    assert assigners == set(FITTING) | set(OTHERS)


@pytest.mark.parametrize(
    ("head", "name"),
    [("retina", name) for name in FITTING] + [("atss", name) for name in INSIDE],
)
def test_every_assigner_that_fits(head, name):
    """The positives are what the assigner says of the head's own anchors and predictions; image two is padded."""
    branch = branch_with(head, name, FITTING[name])
    _, samples = images()
    for sample in samples:
        sample.gt_instances = InstanceData(bboxes=sample.gt_instances.bboxes, labels=sample.gt_instances.labels)
        sample.set_metainfo(dict(pad_shape=sample.img_shape))  # so that some anchors are left out
    losses, positives = branch.loss(pyramid(), samples)
    assert all(torch.isfinite(torch.stack(value)).all() for value in losses.values())
    levels = branch.head.prior_generator.grid_priors([level.shape[-2:] for level in pyramid()], device="cpu")
    outputs = branch.head(tuple(pyramid()))
    strides = torch.cat([torch.full((len(level), 2), float(s)) for level, s in zip(levels, STRIDES)])
    for image, (found, sample) in enumerate(zip(positives, samples)):
        height, width = sample.img_shape
        valid = branch.head.prior_generator.valid_flags([x.shape[-2:] for x in pyramid()], (height, width), "cpu")
        inside = torch.cat(valid)
        assert bool(inside.all()) == (image == 0)
        anchors = torch.cat(levels)[inside]
        scores = torch.cat([x[image].permute(1, 2, 0).reshape(-1, 80) for x in outputs[0]])[inside].detach()
        deltas = torch.cat([x[image].permute(1, 2, 0).reshape(-1, 4) for x in outputs[1]])[inside].detach()
        boxes = branch.head.bbox_coder.decode(anchors, deltas)
        predicted = InstanceData(priors=anchors, bboxes=boxes, scores=scores, decoder_priors=boxes)
        if name in ("SimOTAAssigner", "TaskAlignedAssigner", "TopkHungarianAssigner"):
            predicted.scores = scores.sigmoid()
        if name in ("SimOTAAssigner", "DynamicSoftLabelAssigner", "PointAssigner", "POTOAssigner"):
            predicted.priors = torch.cat([(anchors[:, :2] + anchors[:, 2:]) / 2, strides[inside]], dim=1)
        alone, truths = build(assigner(name, FITTING[name])), sample.gt_instances
        if name == "TopkHungarianAssigner":
            arguments = (predicted.scores, boxes, truths.bboxes, truths.labels, sample.metainfo)
            result = alone.assign(*arguments)
        elif name == "RegionAssigner":
            sizes = [tuple(x.shape[-2:]) for x in pyramid()]
            predicted.valid_flags = torch.ones(len(anchors), dtype=torch.bool)
            scale = 4 * 2 ** (1 / 3)  # the geometric mean of three scales in an octave
            numbers = [int(flags.sum()) for flags in valid]
            result = alone.assign(predicted, truths, sample.metainfo, sizes, numbers, scale, STRIDES, allowed_border=-1)
        else:
            result = alone.assign(
                pred_instances=predicted,
                gt_instances=truths,
                num_level_priors=[int(flags.sum()) for flags in valid],
                img_meta=sample.metainfo,
            )
        positive = result.gt_inds > 0
        assert positive.any()
        assert torch.equal(found.boxes, anchors[positive])
        assert torch.equal(found.gt_index, result.gt_inds[positive] - 1)


@pytest.mark.parametrize("name", OTHERS)
def test_every_assigner_that_does_not_fit_says_why(name):
    branch = branch_with("atss", name, SETTINGS[name])
    _, samples = images(sizes=[(96, 128)] * 2)
    with pytest.raises(TypeError, match=OTHERS[name]):
        branch.loss(pyramid(), samples)


@pytest.mark.parametrize("name", ["MaxIoUAssigner", "AscendMaxIoUAssigner"])
def test_positives_outside_their_objects_have_no_centerness(name):
    branch = branch_with("atss", name, dict(pos_iou_thr=0.2, neg_iou_thr=0.2, match_low_quality=False))
    with pytest.raises(TypeError, match=f"{name} made anchors positive whose centres lie outside"):
        branch.loss(pyramid(), images(sizes=[(96, 128)] * 2)[1])


@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner", "UniformAssigner"])
def test_three_assigners_swapped_in_a_detector(name):
    train_cfg = dict(dense("atss")["head"]["train_cfg"], assigner=assigner(name, FITTING[name]))
    model = build_co("refined", [dense("atss", train_cfg=train_cfg)])
    losses = losses_of(model, images())
    assert losses["loss_cls_aux0"] > 0
    sum(value for key, value in losses.items() if "loss" in key).backward()
    assert all(one.grad is not None for one in model.auxiliary.parameters())
