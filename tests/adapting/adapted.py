"""mmdet's heads as its own configs have them, narrow, with any assigner by ``type=`` alone; and a batch for them."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

WIDTH = 32
CLASSES = 6
# Head, config, the assigner that it was written for.
STOCK = {
    "RPN": ("rpn/rpn_r50_fpn_1x_coco.py", "MaxIoUAssigner"),
    "RetinaNet": ("retinanet/retinanet_r50_fpn_1x_coco.py", "MaxIoUAssigner"),
    "SSD": ("ssd/ssd300_coco.py", "MaxIoUAssigner"),
    "ATSS": ("atss/atss_r50_fpn_1x_coco.py", "ATSSAssigner"),
    "GFL": ("gfl/gfl_r50_fpn_1x_coco.py", "ATSSAssigner"),
    "VFNet": ("vfnet/vfnet_r50_fpn_1x_coco.py", "ATSSAssigner"),
    "PAA": ("paa/paa_r50_fpn_1x_coco.py", "MaxIoUAssigner"),
    "FSAF": ("fsaf/fsaf_r50_fpn_1x_coco.py", "CenterRegionAssigner"),
    "FCOS": ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", "ScaleRangeAssigner"),
    "DDOD": ("ddod/ddod_r50_fpn_1x_coco.py", "ATSSAssigner"),
    "TOOD": ("tood/tood_r50_fpn_1x_coco.py", "TaskAlignedAssigner"),
    "YOLOX": ("yolox/yolox_s_8xb8-300e_coco.py", "SimOTAAssigner"),
    "RTMDet": ("rtmdet/rtmdet_tiny_8xb32-300e_coco.py", "DynamicSoftLabelAssigner"),
    "YOLOF": ("yolof/yolof_r50-c5_8xb8-1x_coco.py", "UniformAssigner"),
    "YOLOv3": ("yolo/yolov3_d53_8xb8-320-273e_coco.py", "GridAssigner"),
    "SABL": ("sabl/sabl-retinanet_r50_fpn_1x_coco.py", "ApproxMaxIoUAssigner"),
    "RepPoints": ("reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py", "PointAssigner"),
}
OURS = {"FCOS": "visdet_assigners.AssignedFCOSHead"}  # mmdet's takes no assigner
COSTS = [
    dict(type="FocalLossCost", weight=2.0),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
]
THRESHOLDS = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1)
SETTINGS: dict[str, dict[str, Any]] = {
    "MaxIoUAssigner": THRESHOLDS,
    "AscendMaxIoUAssigner": THRESHOLDS,
    "ATSSAssigner": dict(topk=9),
    "ScaleRangeAssigner": dict(),
    "CenterRegionAssigner": dict(pos_scale=0.5, neg_scale=0.7),
    "PointAssigner": dict(scale=4, pos_num=3),
    "RegionAssigner": dict(center_ratio=0.2, ignore_ratio=0.5),
    "UniformAssigner": dict(pos_ignore_thr=0.15, neg_ignore_thr=0.7),
    "TaskAlignedAssigner": dict(topk=13),
    "SimOTAAssigner": dict(center_radius=2.5),
    "DynamicSoftLabelAssigner": dict(topk=13),
    "HungarianAssigner": dict(match_costs=COSTS),
    "TopkHungarianAssigner": dict(topk=4),
    "RankingAssigner": dict(topk=2),
    "HierarchicalAssigner": dict(topk=3),
    "POTOAssigner": dict(matching="argmax"),
    "ScheduledAssigner": dict(
        assigners=[dict(type="ATSSAssigner", topk=9), dict(type="TaskAlignedAssigner", topk=13)], milestones=[10**9]
    ),
    "ApproxMaxIoUAssigner": THRESHOLDS,
    "GridAssigner": dict(pos_iou_thr=0.5, neg_iou_thr=0.5),
    "MaskHungarianAssigner": dict(),
    "MultiInstanceAssigner": dict(pos_iou_thr=0.5, neg_iou_thr=0.5),
}


def settings_for(name: str, head: str) -> dict[str, Any]:
    """A config of the assigner that fits the levels and the loss of a head."""
    settings = dict(SETTINGS[name])
    if name == "ScaleRangeAssigner":
        count = LEVELS.get(head, 5)
        ranges = [(64 * 2 ** (level - 1), 64 * 2**level) for level in range(count)]
        settings["regress_ranges"] = [(-1, ranges[0][1]), *ranges[1:]]
    if name in ("MaxIoUAssigner", "AscendMaxIoUAssigner") and head == "ATSS":
        settings["ignore_outside_gt"] = True  # its centerness needs centres inside
    if name == "UniformAssigner" and head in ANCHORS_ALONE:
        settings["anchors_only"] = True
    return dict(type=f"visdet_assigners.{name}", **settings)


LEVELS = {"SSD": 6, "YOLOX": 3, "RTMDet": 3, "YOLOv3": 3, "YOLOF": 1}
ANCHORS_ALONE = ("VFNet", "YOLOv3", "SABL", "RepPoints")
BOXES = (
    [[20.0, 18.0, 61.0, 64.0], [70.0, 10.0, 180.0, 120.0], [150.0, 100.0, 171.0, 118.0], [12.0, 60.0, 75.0, 122.0]],
    [[30.0, 5.0, 120.0, 95.0], [5.0, 60.0, 38.0, 98.0]],
    [],
)
REGION = [100.0, 40.0, 190.0, 130.0]


def narrow(node: Any) -> None:
    """Set the widths of a head's config."""
    for key, value in dict(in_channels=WIDTH, feat_channels=WIDTH, point_feat_channels=WIDTH, stacked_convs=1).items():
        if isinstance(node.get(key), int):
            node[key] = value
    for key in ("norm_cfg", "dcn_on_last_conv"):
        if isinstance(node.get(key), dict) and node[key].get("type") in ("SyncBN", "BN"):
            node[key] = dict(type="BN")


def head_config(name: str, assigner: dict[str, Any] | None = None, stage: str = "init") -> ConfigDict:
    """The head's config with its ``train_cfg``, in which this assigner stands in place of its own (of that stage)."""
    model = copy.deepcopy(get_config(f"mmdet::{STOCK[name][0]}").model)
    head = model.rpn_head if name == "RPN" else model.bbox_head
    train_cfg = model.train_cfg.rpn if name == "RPN" else model.get("train_cfg", ConfigDict())
    if name == "RPN":
        head.num_classes = 1
    elif "num_classes" in head:
        head.num_classes = CLASSES
    narrow(head)
    if name == "SSD":
        head.in_channels = [WIDTH] * 6
    if name == "YOLOv3":
        head.in_channels, head.out_channels = [WIDTH] * 3, [WIDTH] * 3
    if name == "DDOD":
        head.use_dcn = False  # larger than the coarsest maps
    if name == "FCOS":
        head.type, train_cfg = OURS[name], ConfigDict()
    if assigner is not None:
        place = train_cfg[stage] if name == "RepPoints" else train_cfg
        place.assigner = ConfigDict(assigner)
    head.train_cfg, head.test_cfg = train_cfg, model.get("test_cfg")
    return head


def build_head(name: str, assigner: dict[str, Any] | None = None, stage: str = "init") -> Any:
    """The head in training mode, with the same random weights each time."""
    MessageHub.get_current_instance().update_info("epoch", 99)  # TOOD asks for it
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        head = MODELS.build(head_config(name, assigner, stage))
    return head.train()


def image_size(name: str) -> tuple[int, int]:
    return (300, 300) if name == "SSD" else (128, 192)


def features(head: Any, name: str, count: int) -> tuple[torch.Tensor, ...]:
    """Maps of random numbers for as many images."""
    generator = head.prior_generator if hasattr(head, "prior_generator") else head.square_anchor_generator
    height, width = image_size(name)
    maker = torch.Generator().manual_seed(1)
    sizes = [
        (
            math.ceil(height / (s[1] if isinstance(s, tuple) else s)),
            math.ceil(width / (s[0] if isinstance(s, tuple) else s)),
        )
        for s in generator.strides
    ]
    return tuple(torch.randn(count, WIDTH, *size, generator=maker) for size in sizes)


def samples(name: str, boxes: Any = BOXES, padded: bool = True) -> list[DetDataSample]:
    """Images with these objects and a crowd region each; the second is padded, so that heads leave priors out."""
    made = []
    for number, own in enumerate(boxes):
        shape, pad_shape = (image_size(name),) * 2
        if padded and number == 1:
            shape, pad_shape = (100, 150), (128, 160)
        sample = DetDataSample(metainfo=dict(img_shape=shape, pad_shape=pad_shape, batch_input_shape=image_size(name)))
        labels = torch.zeros(len(own)).long() if name == "RPN" else torch.arange(len(own)) % CLASSES
        sample.gt_instances = InstanceData(bboxes=torch.tensor(own).reshape(-1, 4), labels=labels)
        sample.ignored_instances = InstanceData(bboxes=torch.tensor([REGION]), labels=torch.zeros(1).long())
        made.append(sample)
    return made


def losses_of(head: Any, name: str, batch: list[DetDataSample] | None = None) -> dict[str, torch.Tensor]:
    batch = samples(name) if batch is None else batch
    torch.manual_seed(2)  # samplers draw
    losses = head.loss(features(head, name, len(batch)), batch)
    return {key: sum(value) if isinstance(value, (list, tuple)) else value for key, value in losses.items()}
