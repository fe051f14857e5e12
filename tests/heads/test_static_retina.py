"""The head in static shapes: positives, losses and gradients of mmdet's own RetinaHead with MaxIoUAssigner."""

import subprocess
import sys

import pytest
import torch

pytest.importorskip("mmdet.models")
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from visdet_assigners.heads import StaticRetinaHead
from visdet_assigners.heads.static_retina import inside, pad_images

NUM_CLASSES = 3
STRIDES = [8, 16, 32]
PADDED = (96, 128)
THRESHOLDS = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)


@pytest.fixture(scope="module", autouse=True)
def mmdet_scope():
    init_default_scope("mmdet")


def config(type_, assigner, allowed_border=-1, pos_weight=-1, **head) -> dict:
    return dict(
        type=type_,
        num_classes=NUM_CLASSES,
        in_channels=8,
        feat_channels=8,
        stacked_convs=1,
        anchor_generator=dict(
            type="AnchorGenerator", octave_base_scale=3, scales_per_octave=2, ratios=[0.5, 1.0, 2.0], strides=STRIDES
        ),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        train_cfg=dict(
            assigner=dict(type=assigner[0], **assigner[1]),
            sampler=dict(type="PseudoSampler"),
            allowed_border=allowed_border,
            pos_weight=pos_weight,
            debug=False,
        ),
        **head,
    )


def pair(thresholds=THRESHOLDS, gt_multiple=32, **settings) -> tuple[RetinaHead, StaticRetinaHead]:
    """mmdet's head and ours with the same weights."""
    stock = MODELS.build(config("RetinaHead", ("mmdet.MaxIoUAssigner", thresholds), **settings))
    static = MODELS.build(
        config("visdet_assigners.StaticRetinaHead", ("visdet_assigners.AscendMaxIoUAssigner", thresholds),
               gt_multiple=gt_multiple, **settings)
    )  # fmt: skip
    torch.manual_seed(0)
    stock.init_weights()
    static.load_state_dict(stock.state_dict())
    return stock, static


def boxes(count: int, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    height, width = size
    extent = 8 + 40 * torch.rand(count, 2, generator=generator)
    center = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    made = torch.cat([center - extent / 2, center + extent / 2], dim=1)
    return torch.minimum(made.clamp(min=0), torch.tensor([width, height, width, height]))


def batch(counts=(7, 0, 1, 33), crowds=2):
    """Images of different sizes in one batch; one without objects, one with more than the others."""
    generator = torch.Generator().manual_seed(1)
    sizes = [PADDED, (64, 128), (96, 80), (90, 101)]
    gts, ignores, metas = [], [], []
    for count, (height, width) in zip(counts, sizes):
        labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
        gts.append(InstanceData(bboxes=boxes(count, (height, width), generator), labels=labels))
        ignores.append(InstanceData(bboxes=boxes(crowds, (height, width), generator)))
        # Padding that the model adds to the batch is no part of pad_shape: anchors there are not valid.
        metas.append(dict(img_shape=(height, width), pad_shape=(height, width)))
    features = [
        torch.randn(len(counts), 8, PADDED[0] // stride, PADDED[1] // stride, generator=generator) for stride in STRIDES
    ]
    return features, gts, metas, ignores


def losses(head, features, gts, metas, ignores) -> tuple[dict, torch.Tensor]:
    """Losses of each level, and the gradients of the weights."""
    head.zero_grad()
    found = head.loss_by_feat(*head(features), gts, metas, ignores)
    sum(sum(values) for values in found.values()).backward()
    return found, torch.cat([parameter.grad.flatten() for parameter in head.parameters()])


SETTINGS = {
    "retinanet": dict(),
    "small padding": dict(gt_multiple=1),
    "inside the image": dict(allowed_border=0),
    "pos_weight": dict(pos_weight=2.5),
    "decoded boxes": dict(reg_decoded_bbox=True),
    "normalised targets": dict(
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.1, 0, 0, 0.2], target_stds=[0.1, 0.1, 0.2, 0.2])
    ),
    "crowd regions": dict(thresholds=dict(THRESHOLDS, ignore_iof_thr=0.5)),
    "rpn": dict(thresholds=dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)),
    "without low quality": dict(thresholds=dict(THRESHOLDS, match_low_quality=False)),
    "one best anchor": dict(thresholds=dict(THRESHOLDS, gt_max_assign_all=False)),
    "negative band": dict(thresholds=dict(THRESHOLDS, neg_iou_thr=(0.1, 0.4))),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_are_those_of_retina_head(name):
    stock, static = pair(**SETTINGS[name])
    scene = batch()
    if name == "crowd regions":  # mmdet forgets them in images without objects
        scene[3][1] = InstanceData(bboxes=torch.zeros(0, 4))
    expected, expected_gradient = losses(stock, *scene)
    found, gradient = losses(static, *scene)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        for mine, theirs in zip(found[key], values):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)
            assert torch.isfinite(theirs)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
    assert sum(values.sum() for values in found["loss_bbox"]) > 0


def targets(head, features, gts, metas, ignores):
    anchors, flags = head.get_anchors([feature.shape[-2:] for feature in features], metas, device="cpu")
    return head.get_targets(anchors, flags, gts, metas, ignores)


@pytest.mark.parametrize("name", SETTINGS)
def test_positives_and_targets_are_those_of_retina_head(name):
    stock, static = pair(**SETTINGS[name])
    scene = batch()
    if name == "crowd regions":
        scene[3][1] = InstanceData(bboxes=torch.zeros(0, 4))
    expected, found = targets(stock, *scene), targets(static, *scene)
    for level in range(len(STRIDES)):
        for mine, theirs in zip(found[:2] + found[3:4], expected[:2] + expected[3:4]):  # labels and both weights
            assert torch.equal(mine[level], theirs[level])
        torch.testing.assert_close(found[2][level], expected[2][level], rtol=1e-6, atol=1e-6)
    assert found[4] == expected[4]
    assert sum((labels < NUM_CLASSES).sum() for labels in found[0]) > 20


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (0, 1, 0, 2)])
def test_images_without_objects(counts):
    stock, static = pair()
    expected, _ = losses(stock, *batch(counts))
    found, _ = losses(static, *batch(counts))
    for key, values in expected.items():
        torch.testing.assert_close(found[key], list(values))


def test_crowd_regions_hold_in_images_without_objects():
    _, static = pair(thresholds=dict(THRESHOLDS, ignore_iof_thr=0.5))
    _, weights, _, _, _ = targets(static, *batch((0, 0, 0, 0)))
    _, all_weights, _, _, _ = targets(static, *batch((0, 0, 0, 0), crowds=0))
    assert sum(level.sum() for level in weights) < sum(level.sum() for level in all_weights)


def test_shapes_depend_on_the_padding_alone():
    """Whatever the objects, the assigner sees the same shapes."""
    _, static = pair(gt_multiple=8)
    shapes = []
    assign = static.assigner.assign
    static.assigner.assign = lambda *args: shapes.append([tuple(arg.shape) for arg in args]) or assign(*args)
    for counts in ((1, 0, 0, 0), (8, 2, 3, 4), (9, 0, 0, 0)):
        targets(static, *batch(counts))
    assert shapes[0] == shapes[1]
    assert [shape[1][1] for shape in shapes] == [8, 8, 16]


def test_predictions_and_weights_are_those_of_retina_head():
    stock, static = pair()
    features, *_ = batch()
    for mine, theirs in zip(static(features), stock(features)):
        for a, b in zip(mine, theirs):
            assert torch.equal(a, b)


def test_other_assigners_and_samplers_are_refused():
    with pytest.raises(ValueError, match="the assigner is MaxIoUAssigner; batches need"):
        MODELS.build(config("visdet_assigners.StaticRetinaHead", ("mmdet.MaxIoUAssigner", THRESHOLDS)))
    wrong = config("visdet_assigners.StaticRetinaHead", ("visdet_assigners.AscendMaxIoUAssigner", THRESHOLDS))
    with pytest.raises(ValueError, match="gt_multiple is 0"):
        MODELS.build(dict(wrong, gt_multiple=0))
    wrong["train_cfg"]["sampler"] = dict(type="RandomSampler", num=256, pos_fraction=0.5)
    with pytest.raises(ValueError, match="the sampler is RandomSampler"):
        MODELS.build(wrong)
    del wrong["train_cfg"]["sampler"]
    assert isinstance(MODELS.build(wrong), StaticRetinaHead)
    assert isinstance(MODELS.build(dict(wrong, train_cfg=None)), StaticRetinaHead)
    _, static = pair()
    with pytest.raises(NotImplementedError):
        static.get_targets([[torch.zeros(1, 4)]], [[torch.ones(1)]], [], [], return_sampling_results=True)


def test_padding():
    padded = pad_images([torch.ones(2, 4), torch.ones(0, 4), torch.ones(5, 4)], 4)
    assert padded.shape == (3, 8, 4)
    assert padded.sum(dim=(1, 2)).tolist() == [8, 0, 20]
    assert pad_images([torch.ones(0, dtype=torch.long)] * 2, 3).tolist() == [[0, 0, 0]] * 2
    assert pad_images([torch.ones(0, 4)], 1).shape == (1, 1, 4)


def test_inside():
    anchors = torch.tensor([[[0.0, 0, 9, 9], [-1, 0, 9, 9], [0, 0, 10, 9], [0, 0, 9, 20]]])
    assert inside(anchors, [(20, 10)], 0).tolist() == [[True, False, False, False]]
    assert inside(anchors, [(20, 10)], 1).tolist() == [[True, True, True, True]]


def test_the_prefix_finds_the_head_without_custom_imports():
    """In an interpreter of its own, where nothing has imported the package."""
    code = """
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
init_default_scope("mmdet")
cfg = get_config("mmdet::retinanet/retinanet_r18_fpn_1x_coco.py")
cfg.merge_from_dict({
    "model.bbox_head.type": "visdet_assigners.StaticRetinaHead",
    "model.train_cfg.assigner.type": "visdet_assigners.AscendMaxIoUAssigner",
})
cfg.model.backbone.init_cfg = None
print(type(MODELS.build(cfg.model).bbox_head).__module__)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "visdet_assigners.heads.static_retina" in done.stdout
