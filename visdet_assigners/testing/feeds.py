"""What each assigner is given: the predictions that its heads make for a scene, and the whole calls of ``assign``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.functional.boxes import box_iou
from visdet_assigners.registry import scope_and_name
from visdet_assigners.testing.instances import InstanceData
from visdet_assigners.testing.scenes import (
    STRIDES,
    Objects,
    anchors,
    feature_sizes,
    generator,
    logits,
    points,
    predicted_boxes,
    proposals,
)

QUERIES = 60


def prior_boxes(objects: Objects) -> InstanceData:
    """Anchors alone."""
    return InstanceData(priors=anchors(objects)[0])


def dense(objects: Objects) -> InstanceData:
    """Anchors with predicted boxes and class logits."""
    pred = prior_boxes(objects)
    pred.bboxes = predicted_boxes(pred.priors, objects, seed=1)
    pred.scores = logits(len(pred), objects, seed=2)
    return pred


def probable(objects: Objects) -> InstanceData:
    """Anchors with predicted boxes and class probabilities."""
    pred = dense(objects)
    pred.scores = pred.scores.sigmoid()
    return pred


def pointwise(objects: Objects) -> InstanceData:
    """Points with predicted boxes and class probabilities."""
    pred = InstanceData(priors=points(objects))
    reach = 2 * pred.priors[:, 2:]
    boxes = torch.cat([pred.priors[:, :2] - reach, pred.priors[:, :2] + reach], dim=1)
    pred.bboxes = predicted_boxes(boxes, objects, seed=1)
    pred.scores = logits(len(pred), objects, seed=2).sigmoid()
    return pred


def queries(objects: Objects) -> InstanceData:
    """Queries with boxes, class logits and mask logits."""
    pred = InstanceData(bboxes=proposals(objects, QUERIES, seed=8))
    pred.scores = logits(len(pred), objects, seed=9)
    pred.masks = torch.randn(len(pred), 6, 8, generator=generator(10))
    return pred


def likely_queries(objects: Objects) -> InstanceData:
    """Queries with boxes, class probabilities and mask logits."""
    pred = queries(objects)
    pred.scores = pred.scores.sigmoid()
    return pred


def approximated(objects: Objects) -> InstanceData:
    """Square anchors, each with the two anchors that it stands for."""
    pred = prior_boxes(objects)
    size = (pred.priors[:, 2:] - pred.priors[:, :2]).repeat(1, 2) * torch.tensor([-0.1, -0.2, 0.1, 0.2])
    pred.approxs = torch.stack([pred.priors, pred.priors + size], dim=1)
    return pred


def flagged(objects: Objects) -> InstanceData:
    """Anchors of which half are responsible for objects."""
    pred = prior_boxes(objects)
    pred.responsible_flags = torch.rand(len(pred), generator=generator(4)) < 0.5
    return pred


def decoded(objects: Objects) -> InstanceData:
    """Anchors with the boxes predicted from them."""
    pred = prior_boxes(objects)
    pred.decoder_priors = predicted_boxes(pred.priors, objects, seed=5)
    return pred


def validated(objects: Objects) -> InstanceData:
    """Anchors that all lie in the valid part of the batch."""
    pred = prior_boxes(objects)
    pred.valid_flags = torch.ones(len(pred), dtype=torch.bool)
    return pred


def ground_truths(objects: Objects) -> InstanceData:
    """Ground truths with boxes, labels and small masks."""
    gt = objects.instances
    gt.masks = (torch.rand(len(gt), 6, 8, generator=generator(3)) < 0.4).float()
    return gt


def meta(objects: Objects) -> dict[str, Any]:
    """What heads tell of the image."""
    return dict(img_shape=objects.image, img_path="scene.png")


# ------------------------------------------------------------------------------------------------------- whole calls


def feeds(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    """Make the arguments of ``assign`` for an assigner of mmdet's, as mmdet's heads hand them over.

    Scenes in which ours is meant to differ from mmdet's are left out: objects that overlap no prior, and crowd regions
    without objects (MaxIoU and those built on it), fewer boxes than instances of a proposal (MultiInstance), more
    objects than queries (TopkHungarian).

    Args:
        config: of the assigner, with its ``type``.
        objects: the scene; may be without objects.

    Yields:
        Positional arguments of one call, made anew each time.

    Raises:
        KeyError: the type is none of mmdet's assigners.
    """
    name = scope_and_name(config["type"])[1]
    yield from _FEEDS[name](config, objects)


def _max_iou(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    for priors in (anchors(objects, ratios=(0.5, 1.0, 2.0))[0], proposals(objects, 300, seed=5)):
        yield InstanceData(priors=priors), *_overlapping(objects, priors)


def _approx_max_iou(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    pred = approximated(objects)
    yield pred, *_overlapping(objects, pred.approxs.flatten(0, 1))


def _overlapping(objects: Objects, priors: Tensor) -> tuple[InstanceData, InstanceData | None]:
    """The ground truths that overlap a prior, and the crowd regions where there are any such."""
    gt = objects.instances
    if len(gt):
        gt = gt[box_iou(objects.boxes, priors).amax(dim=1) > 0]
    return gt, objects.ignore if len(gt) else None


def _atss(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    pred = prior_boxes(objects) if config.get("alpha") is None else dense(objects)
    yield pred, anchors(objects)[1], objects.instances, objects.ignore if len(objects.boxes) else None


def _task_aligned(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    yield probable(objects), objects.instances, None, 1, 6


def _sim_ota(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    yield pointwise(objects), objects.instances
    certain = pointwise(objects)
    certain.scores = certain.scores.round()  # many equal costs
    yield certain, objects.instances


def _dynamic_soft_label(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    for gt in (objects.instances, _half_masks(objects)):
        pred = pointwise(objects)
        pred.scores = pred.scores.logit()
        yield pred, gt


def _half_masks(objects: Objects) -> InstanceData:
    """Ground truths whose masks fill the left half of their boxes."""
    gt = objects.instances
    height, width = objects.image
    column, row = torch.arange(width), torch.arange(height)[:, None]
    x1, y1, x2, y2 = objects.boxes[:, :, None, None].unbind(1)
    gt.masks = (column >= x1) & (row >= y1) & (column < (x1 + x2) / 2) & (row < y2)
    return gt


def _hungarian(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    gt = ground_truths(objects)
    gt.text_token_mask = (torch.arange(objects.num_classes) < objects.num_classes - 2).repeat(len(gt), 1)
    gt.positive_maps = (torch.rand(len(gt), objects.num_classes, generator=generator(11)) < 0.3).float()
    yield queries(objects), gt, meta(objects)
    pred = queries(objects)
    pred.scores[:, -2:] = -torch.inf  # as grounding heads mask the words that a text lacks, and others their classes
    yield pred, gt, meta(objects)


def _topk_hungarian(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    pred = likely_queries(objects)
    if len(objects.boxes) <= len(pred):
        yield pred.scores, pred.bboxes, objects.boxes, objects.labels, meta(objects)


def _grid(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    yield flagged(objects), objects.instances


def _uniform(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    yield decoded(objects), objects.instances


def _region(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    pred = validated(objects)
    sizes = feature_sizes(objects.image, STRIDES)
    for border in (0, -1):
        yield pred, objects.instances, meta(objects), sizes, anchors(objects)[1], 8, STRIDES, None, border


def _center_region(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    yield InstanceData(priors=anchors(objects, scale=4)[0]), objects.instances, objects.ignore


def _point(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    yield InstanceData(priors=points(objects)[:, :3]), objects.instances


def _multi_instance(config: Mapping[str, Any], objects: Objects) -> Iterator[tuple[Any, ...]]:
    ignore = objects.ignore
    ignore.labels = torch.full((len(ignore),), -1)
    if len(objects.boxes) + len(ignore) >= config.get("num_instance", 2):
        yield InstanceData(priors=proposals(objects, 200, seed=16)), objects.instances, ignore


_FEEDS = {
    "ATSSAssigner": _atss,
    "ApproxMaxIoUAssigner": _approx_max_iou,
    "CenterRegionAssigner": _center_region,
    "DynamicSoftLabelAssigner": _dynamic_soft_label,
    "GridAssigner": _grid,
    "HungarianAssigner": _hungarian,
    "MaxIoUAssigner": _max_iou,
    "MultiInstanceAssigner": _multi_instance,
    "PointAssigner": _point,
    "RegionAssigner": _region,
    "SimOTAAssigner": _sim_ota,
    "TaskAlignedAssigner": _task_aligned,
    "TopkHungarianAssigner": _topk_hungarian,
    "UniformAssigner": _uniform,
}
