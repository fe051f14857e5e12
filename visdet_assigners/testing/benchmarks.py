"""The scenes of the benchmark: every assigner with the priors of the detector that uses it, at that detector's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.registry import scope_and_name
from visdet_assigners.testing.instances import InstanceData
from visdet_assigners.testing.priors import anchor_levels, point_levels, yolo_levels
from visdet_assigners.testing.scenes import Objects, draw_boxes, feature_sizes, generator, logits, proposals

NUM_CLASSES = 80
FPN = (8, 16, 32, 64, 128)
RPN = (4, 8, 16, 32, 64)
OCTAVES = [4 * 2 ** (third / 3) for third in range(3)]
"""Sides of RetinaNet's anchors, in strides."""


def drawn(count: int, image: tuple[int, int], seed: int = 0) -> Objects:
    """A scene of just so many objects of all sizes, drawn at random over the image and 80 classes."""
    boxes = draw_boxes(2 * count + 20, image, "mixed", seed)[:count]
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator(seed + 1))
    return Objects(f"drawn-{count}", boxes, labels, torch.zeros(0, 4), image, NUM_CLASSES)


def moved(boxes: Tensor) -> Tensor:
    """What a head predicts early in a training: its priors (N, 4) xyxy, each moved by about a tenth of its size."""
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + 0.1 * size * torch.randn(boxes.shape, generator=generator(2)).clamp(-3, 3)


@dataclass(frozen=True)
class Scene:
    """An assigner and what it is given.

    Attributes:
        name: of the detector.
        config: of the assigner, mmdet's.
        call: makes the positional arguments of one ``assign``.
        image: height and width.
        speedups: time of mmdet's assigner over ours that is to be reached at M = 7, 50 and 300.
        waits: how often ours may make the host wait for a device.
    """

    name: str
    config: Mapping[str, Any]
    call: Callable[[Objects], tuple[Any, ...]]
    image: tuple[int, int] = (800, 1333)
    speedups: tuple[float, float, float] = (1, 1, 1)
    waits: int = 0

    def with_config(self, name: str, config: Mapping[str, Any]) -> Scene:
        """The same scene for other settings of its assigner."""
        return replace(self, name=name, config=config)


def _anchors(
    objects: Objects, strides: tuple[int, ...], ratios: Sequence[float], scales: Sequence[float]
) -> tuple[Tensor, list[int]]:
    levels = anchor_levels(feature_sizes(objects.image, list(strides)), strides, ratios, scales)
    return torch.cat(levels), [len(level) for level in levels]


def _square(objects: Objects, strides: tuple[int, ...] = FPN, scale: int = 8) -> tuple[Tensor, list[int]]:
    return _anchors(objects, strides, ratios=[1.0], scales=[scale])


def _points(objects: Objects, strides: tuple[int, ...]) -> Tensor:
    return torch.cat(point_levels(feature_sizes(objects.image, list(strides)), strides))


def _rpn(objects: Objects) -> tuple[Any, ...]:
    return InstanceData(priors=_anchors(objects, RPN, ratios=[0.5, 1.0, 2.0], scales=[8])[0]), objects.instances


def _retina(objects: Objects) -> tuple[Any, ...]:
    priors, _ = _anchors(objects, FPN, ratios=[0.5, 1.0, 2.0], scales=OCTAVES)
    return InstanceData(priors=priors), objects.instances


def _rcnn(objects: Objects) -> tuple[Any, ...]:
    return InstanceData(priors=proposals(objects, 2000, seed=3)), objects.instances


def _sabl(objects: Objects) -> tuple[Any, ...]:
    squares, _ = _square(objects, scale=4)
    approxs, _ = _anchors(objects, FPN, ratios=[0.5, 1.0, 2.0], scales=OCTAVES)
    return InstanceData(priors=squares, approxs=approxs.view(-1, 9, 4)), objects.instances


def _atss(objects: Objects) -> tuple[Any, ...]:
    priors, sizes = _square(objects)
    return InstanceData(priors=priors), sizes, objects.instances


def _dense(objects: Objects) -> tuple[InstanceData, list[int]]:
    priors, sizes = _square(objects)
    return InstanceData(priors=priors, bboxes=moved(priors), scores=logits(len(priors), objects, 4)), sizes


def _ddod(objects: Objects) -> tuple[Any, ...]:
    return *_dense(objects), objects.instances


def _tood(objects: Objects) -> tuple[Any, ...]:
    pred, _ = _dense(objects)
    pred.scores = pred.scores.sigmoid()
    return pred, objects.instances, None, 1, 6


def _queries(objects: Objects, count: int) -> InstanceData:
    return InstanceData(bboxes=proposals(objects, count, seed=5), scores=logits(count, objects, 6))


def _detr(count: int) -> Callable[[Objects], tuple[Any, ...]]:
    return lambda objects: (_queries(objects, count), objects.instances, dict(img_shape=objects.image))


def _ddq(objects: Objects) -> tuple[Any, ...]:
    pred = _queries(objects, max(900, 4 * len(objects.boxes)))
    return pred.scores.sigmoid(), pred.bboxes, objects.boxes, objects.labels, dict(img_shape=objects.image)


def _yolox(objects: Objects) -> tuple[Any, ...]:
    points = _points(objects, (8, 16, 32))
    points = torch.cat([points[:, :2] + points[:, 2:] / 2, points[:, 2:]], dim=1)
    boxes = moved(torch.cat([points[:, :2] - 2 * points[:, 2:], points[:, :2] + 2 * points[:, 2:]], dim=1))
    pred = InstanceData(priors=points, bboxes=boxes, scores=logits(len(points), objects, 7).sigmoid())
    return pred, objects.instances


def _rtmdet(objects: Objects) -> tuple[Any, ...]:
    pred, gt = _yolox(objects)
    pred.scores = pred.scores.logit()
    return pred, gt


def _yolov3(objects: Objects) -> tuple[Any, ...]:
    strides = [32, 16, 8]
    boxes = [
        [(116, 90), (156, 198), (373, 326)],
        [(30, 61), (62, 45), (59, 119)],
        [(10, 13), (16, 30), (33, 23)],
    ]
    sizes = feature_sizes(objects.image, strides)
    priors = torch.cat(yolo_levels(sizes, strides, boxes))
    center, flags = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2, []
    for stride, (height, width) in zip(strides, sizes):
        column, row = (center // stride).long().unbind(1)
        cells = torch.zeros(height, width, dtype=torch.bool)
        cells[row.clamp(max=height - 1), column.clamp(max=width - 1)] = True
        flags.append(cells.flatten().repeat_interleave(3))
    return InstanceData(priors=priors, responsible_flags=torch.cat(flags)), objects.instances


def _yolof(objects: Objects) -> tuple[Any, ...]:
    priors, _ = _anchors(objects, (32,), ratios=[1.0], scales=[1, 2, 4, 8, 16])
    return InstanceData(priors=priors, decoder_priors=moved(priors)), objects.instances


def _fsaf(objects: Objects) -> tuple[Any, ...]:
    return InstanceData(priors=_square(objects, scale=1)[0]), objects.instances


def _reppoints(objects: Objects) -> tuple[Any, ...]:
    return InstanceData(priors=_points(objects, FPN)[:, :3]), objects.instances


def _cascade_rpn(objects: Objects) -> tuple[Any, ...]:
    priors, sizes = _square(objects, RPN)
    pred = InstanceData(priors=priors, valid_flags=torch.ones(len(priors), dtype=torch.bool))
    shape = dict(img_shape=objects.image)
    return pred, objects.instances, shape, feature_sizes(objects.image, list(RPN)), sizes, 8, list(RPN), None, -1


def _crowddet(objects: Objects) -> tuple[Any, ...]:
    nothing = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return *_rcnn(objects), nothing


def _thresholds(kind: str, pos: float, neg: float, least: float, **options: Any) -> dict[str, Any]:
    return dict(type=kind, pos_iou_thr=pos, neg_iou_thr=neg, min_pos_iou=least, **options)


_FOCAL = dict(type="FocalLossCost", weight=2.0)
_BOX = dict(type="BBoxL1Cost", weight=5.0, box_format="xywh")
_DETR = dict(type="HungarianAssigner", match_costs=[_FOCAL, _BOX, dict(type="IoUCost", iou_mode="giou", weight=2.0)])
_IOU, _OTA = (2, 12, 20), (2, 12, 30)

SCENES = {
    scene.name: scene
    for scene in (
        Scene("RPN", _thresholds("MaxIoUAssigner", 0.7, 0.3, 0.3), _rpn, speedups=_IOU),
        Scene("RetinaNet", _thresholds("MaxIoUAssigner", 0.5, 0.4, 0), _retina, speedups=_IOU),
        Scene("R-CNN", _thresholds("MaxIoUAssigner", 0.5, 0.5, 0.5, match_low_quality=False), _rcnn),
        Scene("SABL", _thresholds("ApproxMaxIoUAssigner", 0.5, 0.4, 0), _sabl, speedups=_IOU),
        Scene("ATSS", dict(type="ATSSAssigner", topk=9), _atss, speedups=(2, 4, 8)),
        Scene("DDOD", dict(type="ATSSAssigner", topk=9, alpha=0.8), _ddod, speedups=(2, 4, 8)),
        Scene("TOOD", dict(type="TaskAlignedAssigner", topk=13), _tood, speedups=(2, 4, 8)),
        Scene("Deformable DETR", _DETR, _detr(300), waits=1),
        Scene("DINO", _DETR, _detr(900), waits=1),
        Scene("YOLOX", dict(type="SimOTAAssigner", center_radius=2.5), _yolox, (640, 640), _OTA, 1),
        Scene("RTMDet", dict(type="DynamicSoftLabelAssigner", topk=13), _rtmdet, (640, 640), _OTA, 1),
        Scene("YOLOv3", _thresholds("GridAssigner", 0.5, 0.5, 0), _yolov3, (608, 608), (2, 8, 15)),
        Scene("YOLOF", dict(type="UniformAssigner", pos_ignore_thr=0.15, neg_ignore_thr=0.7), _yolof,
              speedups=(1.5, 2, 3)),
        Scene("FSAF", dict(type="CenterRegionAssigner", pos_scale=0.2, neg_scale=0.2, min_pos_iof=0.01), _fsaf,
              speedups=(2, 4, 8)),
        Scene("RepPoints", dict(type="PointAssigner", scale=4, pos_num=1), _reppoints, speedups=(2, 10, 30)),
        Scene("Cascade RPN", dict(type="RegionAssigner", center_ratio=0.2, ignore_ratio=0.5), _cascade_rpn,
              speedups=(2, 10, 30)),
        Scene("CrowdDet", _thresholds("MultiInstanceAssigner", 0.5, 0.5, 0.3), _crowddet),
        Scene("DDQ", dict(type="TopkHungarianAssigner", topk=4), _ddq, waits=1),
    )
}  # fmt: skip
"""By name; the rows of the README's table."""


def scene_for(path: str, config: Mapping[str, Any]) -> Scene:
    """The scene for an assigner of some config.

    Args:
        path: where in the config it stands; tells an RPN's from an R-CNN's.
        config: of the assigner, with its ``type``.

    Raises:
        KeyError: no scene has an assigner of that type.
    """
    kind = scope_and_name(config["type"])[1]
    of_kind = [scene for scene in SCENES.values() if scene.config["type"] == kind]
    if not of_kind:
        raise KeyError(kind)
    if kind == "MaxIoUAssigner":
        name = "RPN" if "rpn" in path else "R-CNN" if "rcnn" in path else "RetinaNet"
        return SCENES[name].with_config(path, config)
    chosen = next((scene for scene in of_kind if ("alpha" in scene.config) == ("alpha" in config)), of_kind[0])
    return chosen.with_config(path, config)
