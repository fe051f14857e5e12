"""The losses of one training step of mmdet's stock detectors: the same with our assigners, to the last bit.

The configs are mmdet's own.  What is shrunk: images, and ResNet-50 to ResNet-18 with the channels that go with it;
weights are random in place of pretrained ones, and batch norm isn't synchronised, which needs a GPU.  Two networks of
one detector start from the same weights and see the same images, one with mmdet's assigners, the other with the
drop-in.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch
from mmdet.registry import TASK_UTILS as MMDET

from detectors import HEIGHT, WIDTH, batch, build_detector, seed_everything
from visdet_assigners import dropin
from visdet_assigners.assigners import atss
from visdet_assigners.observe.tap import find_assigners
from visdet_assigners.registry import is_ours


@dataclass(frozen=True)
class Stock:
    """A stock detector.

    Attributes:
        config: below mmdet's configs.
        assigners: those that this step must call.
        shape: of the images, where the usual one is too small.
        epoch: that the detector is told.
        num_classes: that it has at least.
        semantic: whether it wants a map of semantic classes.
        masks: whether its objects have masks; RTMDet's box detector takes them for tensors.
    """

    config: str
    assigners: set[str]
    shape: tuple[int, int] = (HEIGHT, WIDTH)
    epoch: int = 0
    num_classes: int = 3
    semantic: bool = False
    masks: bool = True


MAX_IOU = {"MaxIoUAssigner"}
HUNGARIAN = {"HungarianAssigner"}
TALL = (192, 256)  # more points than the 900 queries of DINO and DDQ
LARGE = (384, 384)  # 3 x 3 points in the coarsest level, the least for a deformable convolution

DETECTORS = {
    "atss": Stock("atss/atss_r50_fpn_1x_coco.py", {"ATSSAssigner"}),
    "cascade_rcnn": Stock("cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py", MAX_IOU),
    "cascade_rpn": Stock(
        "cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py", {"RegionAssigner", "MaxIoUAssigner"}
    ),
    "conditional_detr": Stock("conditional_detr/conditional-detr_r50_8xb2-50e_coco.py", HUNGARIAN),
    "crowddet": Stock(
        "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py",
        {"MaxIoUAssigner", "MultiInstanceAssigner"},
        num_classes=1,
    ),
    "dab_detr": Stock("dab_detr/dab-detr_r50_8xb2-50e_coco.py", HUNGARIAN),
    "ddod": Stock("ddod/ddod_r50_fpn_1x_coco.py", {"ATSSAssigner"}, LARGE),
    "ddq": Stock("ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py", {"HungarianAssigner", "TopkHungarianAssigner"}, TALL),
    "deformable_detr": Stock("deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py", HUNGARIAN),
    "detr": Stock("detr/detr_r50_8xb2-150e_coco.py", HUNGARIAN),
    "dino": Stock("dino/dino-4scale_r50_8xb2-12e_coco.py", HUNGARIAN, TALL),
    "dyhead": Stock("dyhead/atss_r50_fpn_dyhead_1x_coco.py", {"ATSSAssigner"}),
    "dynamic_rcnn": Stock("dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py", MAX_IOU),
    "faster_rcnn": Stock("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", MAX_IOU),
    "fsaf": Stock("fsaf/fsaf_r50_fpn_1x_coco.py", {"CenterRegionAssigner"}),
    "gfl": Stock("gfl/gfl_r50_fpn_1x_coco.py", {"ATSSAssigner"}),
    "grid_rcnn": Stock("grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco.py", MAX_IOU),
    "guided_anchoring": Stock(
        "guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py", {"ApproxMaxIoUAssigner", "MaxIoUAssigner"}
    ),
    "htc": Stock("htc/htc_r50_fpn_1x_coco.py", MAX_IOU, semantic=True),
    "libra_rcnn": Stock("libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py", MAX_IOU),
    "mask2former": Stock("mask2former/mask2former_r50_8xb2-lsj-50e_coco.py", HUNGARIAN),
    "mask_rcnn": Stock("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", MAX_IOU),
    "maskformer": Stock("maskformer/maskformer_r50_ms-16xb1-75e_coco.py", HUNGARIAN, semantic=True),
    "ms_rcnn": Stock("ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py", MAX_IOU),
    "pisa": Stock("pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py", MAX_IOU),
    "queryinst": Stock("queryinst/queryinst_r50_fpn_1x_coco.py", HUNGARIAN),
    "reppoints": Stock("reppoints/reppoints-moment_r50_fpn_1x_coco.py", {"PointAssigner", "MaxIoUAssigner"}, LARGE),
    "retinanet": Stock("retinanet/retinanet_r50_fpn_1x_coco.py", MAX_IOU),
    "rpn": Stock("rpn/rpn_r50_fpn_1x_coco.py", MAX_IOU, num_classes=1),
    "rtmdet": Stock("rtmdet/rtmdet_tiny_8xb32-300e_coco.py", {"DynamicSoftLabelAssigner"}, masks=False),
    "rtmdet_ins": Stock("rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py", {"DynamicSoftLabelAssigner"}),
    "sabl": Stock("sabl/sabl-retinanet_r50_fpn_1x_coco.py", {"ApproxMaxIoUAssigner"}),
    "scnet": Stock("scnet/scnet_r50_fpn_1x_coco.py", MAX_IOU, semantic=True),
    "sparse_rcnn": Stock("sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py", HUNGARIAN),
    "ssd": Stock("ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py", MAX_IOU, (320, 320)),
    "tood, its first epochs": Stock("tood/tood_r50_fpn_1x_coco.py", {"ATSSAssigner"}),
    "tood": Stock("tood/tood_r50_fpn_1x_coco.py", {"TaskAlignedAssigner"}, epoch=4),
    "vfnet": Stock("vfnet/vfnet_r50_fpn_1x_coco.py", {"ATSSAssigner"}, LARGE),
    "yolact": Stock("yolact/yolact_r50_1xb8-55e_coco.py", MAX_IOU),
    "yolo": Stock("yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py", {"GridAssigner"}),
    "yolof": Stock("yolof/yolof_r50-c5_8xb8-1x_coco.py", {"UniformAssigner"}),
    "yolox": Stock("yolox/yolox_tiny_8xb8-300e_coco.py", {"SimOTAAssigner"}),
}
SLOW = {
    "cascade_rcnn", "cascade_rpn", "conditional_detr", "crowddet", "dab_detr", "ddod", "ddq", "dino", "dyhead",
    "dynamic_rcnn", "grid_rcnn", "htc", "libra_rcnn", "mask_rcnn", "ms_rcnn", "pisa", "queryinst", "reppoints",
    "scnet", "sparse_rcnn", "vfnet",
}  # seconds of computing each; what they assign, other tests compare  # fmt: skip
BOXES = [[[8.0, 8.0, 60.0, 50.0], [70.0, 30.0, 120.0, 90.0], [30.0, 60.0, 42.0, 72.0]], [[20.0, 10.0, 110.0, 80.0]]]


def training_step(stock: Stock) -> tuple[dict[str, torch.Tensor], set[type]]:
    """Build the detector with the assigners that mmdet's registry holds now, and give it a batch to learn from.

    Returns:
        Every loss; the classes of the assigners that were called.
    """
    model = build_detector(stock.config, stock.epoch, queries=None)
    images, samples = batch(BOXES, stock.shape, stock.num_classes, stock.semantic, crowd=True)
    if not stock.masks:
        for sample in samples:
            del sample.gt_instances.masks
    seed_everything()
    called = set()
    with ExitStack() as stack, torch.no_grad():
        for _, _, assigner in find_assigners(model):
            stack.enter_context(patch.object(assigner, "assign", spy(assigner, called)))
        outputs = model.loss(images, samples)
    values = {}
    for key, value in outputs.items():
        for index, loss in enumerate(value if isinstance(value, (list, tuple)) else [value]):
            values[f"{key}[{index}]"] = loss
    return {key: torch.as_tensor(value) for key, value in values.items()}, called


def spy(assigner, called: set[type]):
    """The assigner's ``assign``, which notes that it was called."""
    assign = assigner.assign

    def noting(*args, **kwargs):
        called.add(type(assigner))
        return assign(*args, **kwargs)

    return noting


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in DETECTORS]
)
def test_losses_are_equal_to_the_last_bit(name):
    stock = DETECTORS[name]
    dropin.restore()
    expected, theirs = training_step(stock)
    dropin.enable()
    losses, ours = training_step(stock)
    assert {assigner.__name__ for assigner in ours} == {assigner.__name__ for assigner in theirs} == stock.assigners
    assert all(map(is_ours, ours))
    assert not any(map(is_ours, theirs))
    assert unequal(losses, expected) == []
    total = sum(loss.mean() for key, loss in losses.items() if "loss" in key)
    assert total > 0
    assert total.isfinite()


def unequal(losses: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    """Names of the losses that differ in a bit, or that only one side has."""
    return [
        key
        for key in sorted(losses.keys() | expected.keys())
        if key not in losses or key not in expected or not torch.equal(losses[key], expected[key])
    ]


def test_another_assignment_would_show(monkeypatch):
    dropin.enable()
    expected, _ = training_step(DETECTORS["atss"])
    monkeypatch.setattr(atss, "INSIDE", 3.0)
    losses, _ = training_step(DETECTORS["atss"])
    assert "loss_bbox[0]" in unequal(losses, expected)


def test_all_assigners_of_mmdet_and_at_least_25_families():
    assert len({stock.config.split("/")[0] for stock in DETECTORS.values()}) >= 25
    named = set().union(*(stock.assigners for stock in DETECTORS.values()))
    dropin.enable()
    assert named == {name for name, kind in MMDET.module_dict.items() if name.endswith("Assigner")}
