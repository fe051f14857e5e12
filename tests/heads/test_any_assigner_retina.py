"""RetinaNet's head with assigners that it was not written for, and heads of ATSS with those they were not."""

import pytest
import torch

pytest.importorskip("mmdet.models")
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from scenes import STRIDES, anchors, drawn_objects, feature_sizes
from visdet_assigners import ATSSAssigner
from visdet_assigners.observe import watch

IMAGE = (240, 320)
SCENES = [objects for objects in drawn_objects() if objects.image == IMAGE]
THRESHOLDS = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
SHAPES = {
    1: dict(octave_base_scale=8, scales_per_octave=1, ratios=[1.0]),
    9: dict(octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0]),
}


@pytest.fixture(scope="module", autouse=True)
def mmdet_scope():
    init_default_scope("mmdet")


def build(type_, assigner, anchors_per_place=1, **options):
    generator = dict(type="AnchorGenerator", strides=STRIDES, **SHAPES[anchors_per_place])
    train_cfg = dict(assigner=assigner, allowed_border=-1, pos_weight=-1, sampler=dict(type="PseudoSampler"))
    size = dict(num_classes=8, in_channels=8, feat_channels=8, stacked_convs=1)
    if type_ == "ATSSHead":
        size.update(norm_cfg=dict(type="GN", num_groups=4), loss_bbox=dict(type="GIoULoss"))
    torch.manual_seed(0)
    head = MODELS.build(dict(type=type_, **size, anchor_generator=generator, train_cfg=train_cfg, **options))
    head.init_weights()
    return head


def batch(scenes):
    """Maps of random numbers, and samples whose second image is padded."""
    features = [
        torch.randn(len(scenes), 8, *size, generator=torch.manual_seed(1)) for size in feature_sizes(IMAGE, STRIDES)
    ]
    samples = []
    for number, objects in enumerate(scenes):
        shape = IMAGE if number != 1 else (200, 300)
        sample = DetDataSample(metainfo=dict(img_shape=shape, pad_shape=shape, batch_input_shape=IMAGE))
        sample.gt_instances, sample.ignored_instances = objects.instances, objects.ignore
        samples.append(sample)
    return features, samples


def losses_of(head, scenes=SCENES[:4]) -> list[torch.Tensor]:
    losses = head.loss(*batch(scenes))
    return [torch.stack(list(value)) if isinstance(value, list) else value for value in losses.values()]


def test_with_max_iou_it_is_retinanets_head():
    assigner = dict(type="visdet_assigners.MaxIoUAssigner", **THRESHOLDS)
    stock, ours = (
        losses_of(build(head, assigner)) for head in ("RetinaHead", "visdet_assigners.AnyAssignerRetinaHead")
    )
    assert all(torch.equal(*pair) for pair in zip(stock, ours, strict=True))
    assert all((loss > 0).any() for loss in ours)


@pytest.mark.parametrize(
    "options",
    [dict(topk=9), dict(topk=9, topk_per_location=True, num_anchors_per_location=9)],
    ids=["anchors", "places"],
)
def test_atss_under_retinanets_head(options):
    head = build("visdet_assigners.AnyAssignerRetinaHead", dict(type="visdet_assigners.ATSSAssigner", **options), 9)
    calls = []
    with watch(head, calls.append):
        losses = losses_of(head)
    assert all(loss.isfinite().all() for loss in losses)
    assert len(calls) == 4
    for call, objects in zip(calls, SCENES):
        sizes = call.arguments["num_level_priors"]
        priors = call.arguments["pred_instances"].priors
        alone = ATSSAssigner(**options).assign(InstanceData(priors=priors), sizes, objects.instances)
        assert sum(sizes) == len(priors)
        assert torch.equal(call.result.gt_inds, alone.gt_inds)
        assert (alone.gt_inds > 0).any()
    assert sum(calls[1].arguments["num_level_priors"]) < sum(calls[0].arguments["num_level_priors"])


def test_retinanets_own_head_does_the_same():
    assigner = dict(type="visdet_assigners.ATSSAssigner", topk=9)
    stock, ours = (
        losses_of(build(head, assigner)) for head in ("RetinaHead", "visdet_assigners.AnyAssignerRetinaHead")
    )
    assert all(torch.equal(*pair) for pair in zip(stock, ours, strict=True))


@pytest.mark.parametrize(
    "assigner",
    [
        dict(type="visdet_assigners.MaxIoUAssigner", **THRESHOLDS, ignore_outside_gt=True),
        dict(type="visdet_assigners.ScaleRangeAssigner", center_sampling=True),
        dict(type="visdet_assigners.ATSSAssigner", topk=9),
    ],
    ids=["iou", "lite", "atss"],
)
@pytest.mark.parametrize(
    "coder",
    [
        dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]),
        dict(type="visdet_assigners.PointBBoxCoder"),
    ],
    ids=["box", "point"],
)
def test_the_grid_of_the_paper_under_atsss_head(assigner, coder):
    """Three rules, and boxes regressed from the anchor or from its centre; the watch sees the level sizes."""
    head = build("ATSSHead", assigner, bbox_coder=coder, reg_decoded_bbox=True)
    calls = []
    with watch(head, calls.append):
        losses = losses_of(head)
    assert all(loss.isfinite().all() for loss in losses)
    assert len(calls) == 4
    assert calls[0].arguments["num_level_priors"] == anchors(SCENES[0])[1]
    for call, objects in zip(calls, SCENES):
        assert torch.equal(call.arguments["gt_instances"].bboxes, objects.boxes)
    assert any((call.result.gt_inds > 0).any() for call in calls)
