"""One case for every registered assigner: how to build it, what to give it.  The contract tests walk this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.structures import InstanceData

import visdet_assigners as va
from scenes import STRIDES, Objects, anchors, feature_sizes
from visdet_assigners.testing.feeds import (
    approximated,
    decoded,
    dense,
    flagged,
    ground_truths,
    likely_queries,
    meta,
    pointwise,
    prior_boxes,
    probable,
    queries,
    validated,
)


def plainly(assigner, pred, gt, ignore, objects):
    return assigner.assign(pred, gt, ignore)


def level_sizes(pred, objects):
    """Sizes of the levels, or one level where a test has left out priors."""
    sizes = anchors(objects)[1]
    return sizes if sum(sizes) == len(pred) else [len(pred)]


def with_levels(assigner, pred, gt, ignore, objects):
    sizes = level_sizes(pred, objects)
    return assigner.assign(pred, sizes + [0] * (len(STRIDES) - len(sizes)), gt, ignore)


def with_meta(assigner, pred, gt, ignore, objects):
    return assigner.assign(pred, gt, meta(objects))


def as_cascade_rpn(assigner, pred, gt, ignore, objects):
    sizes = level_sizes(pred, objects)
    return assigner.assign(pred, gt, meta(objects), feature_sizes(objects.image, STRIDES), sizes, 8, STRIDES)


def as_tensors(assigner, pred, gt, ignore, objects):
    tensors = [getattr(pred, name, None) for name in ("scores", "bboxes")]
    tensors += [getattr(gt, name, None) for name in ("bboxes", "labels")]
    return assigner.assign(*tensors, meta(objects))


def as_mask_tensors(assigner, pred, gt, ignore, objects):
    truths = getattr(gt, "labels", None), getattr(gt, "masks", torch.zeros(0, 1))  # some have no objects and no masks
    return assigner.assign(getattr(pred, "scores", None), getattr(pred, "masks", None), *truths, meta(objects))


def as_list(assigner, pred, gt, ignore, objects):
    return assigner.assign([pred], [gt], [ignore])[0]


@dataclass(frozen=True)
class Case:
    """An assigner with its inputs.

    Attributes:
        build: makes the assigner.
        pred: makes the predictions for a scene.
        fields: floating fields of the predictions that it reads, those that may not hold NaN or inf.
        boxes: fields of the predictions that hold xyxy boxes, which may come in mmdet's containers.
        call: hands the instances over as its heads do.
        levels: whether the order of the priors matters beyond their level.
        ignores: whether it honours ignore regions.
        best_overlap: whether ``max_overlaps`` tells the best overlap of a prior even where nothing is matched.
        matched_only: whether ``max_overlaps`` has an entry for each match alone.
        own_layout: whether the result has a layout of its own, not one entry for each prior.
        without_order: the same without the rule by which the last object wins, where it has one.
    """

    build: Callable[[], Any]
    pred: Callable[[Objects], InstanceData]
    fields: tuple[str, ...]
    boxes: tuple[str, ...]
    call: Callable[..., Any] = plainly
    levels: bool = False
    ignores: bool = False
    best_overlap: bool = False
    matched_only: bool = False
    own_layout: bool = False
    without_order: Callable[[], Any] | None = None

    def assign(self, objects: Objects, pred: InstanceData | None = None, gt: InstanceData | None = None, ignore=None):
        """Run the assigner as a head does."""
        pred = self.pred(objects) if pred is None else pred
        gt = self.gt(objects) if gt is None else gt
        return self.call(self.build(), pred, gt, ignore, objects)

    def shared(self, objects: Objects) -> dict[str, Any]:
        """What ``assign_batch`` takes once for all images."""
        sizes = anchors(objects)[1]
        if self.call is as_cascade_rpn:
            featmap_sizes = feature_sizes(objects.image, STRIDES)
            return dict(featmap_sizes=featmap_sizes, num_level_anchors=sizes, anchor_scale=8, anchor_strides=STRIDES)
        return dict(num_level_priors=sizes) if self.call is with_levels else {}

    gt = staticmethod(ground_truths)


DINO = [
    dict(type="FocalLossCost", weight=2.0),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
]

LOOSE = dict(pos_iou_thr=0.5, neg_iou_thr=0.4)
LAST_FREE = dict(**LOOSE, match_low_quality=False)

CASES: dict[str, Case] = {
    "MaxIoUAssigner": Case(
        lambda: va.MaxIoUAssigner(**LOOSE, min_pos_iou=0.2, ignore_iof_thr=0.5),
        prior_boxes, ("priors",), ("priors",), ignores=True, best_overlap=True,
        without_order=lambda: va.MaxIoUAssigner(**LAST_FREE),
    ),
    "MaxIoUAssigner-first-of-equals": Case(
        lambda: va.MaxIoUAssigner(**LOOSE, gt_max_assign_all=False, ignore_iof_thr=0.5),
        prior_boxes, ("priors",), ("priors",), ignores=True, best_overlap=True,
        without_order=lambda: va.MaxIoUAssigner(**LAST_FREE),
    ),
    "MaxIoUAssigner-in-box": Case(
        lambda: va.MaxIoUAssigner(**LOOSE, ignore_iof_thr=0.5, ignore_outside_gt=True),
        prior_boxes, ("priors",), ("priors",), ignores=True, best_overlap=True,
        without_order=lambda: va.MaxIoUAssigner(**LAST_FREE, ignore_outside_gt=True),
    ),
    "ApproxMaxIoUAssigner": Case(
        lambda: va.ApproxMaxIoUAssigner(**LOOSE, ignore_iof_thr=0.5),
        approximated, ("priors", "approxs"), ("priors",), ignores=True, best_overlap=True,
        without_order=lambda: va.ApproxMaxIoUAssigner(**LAST_FREE),
    ),
    "AscendMaxIoUAssigner": Case(
        lambda: va.AscendMaxIoUAssigner(**LOOSE, min_pos_iou=0.2, ignore_iof_thr=0.5),
        prior_boxes, ("priors",), ("priors",), ignores=True, best_overlap=True,
        without_order=lambda: va.AscendMaxIoUAssigner(**LAST_FREE),
    ),
    "AscendMaxIoUAssigner-list": Case(
        lambda: va.AscendMaxIoUAssigner(**LOOSE, min_pos_iou=0.2, ignore_iof_thr=0.5),
        prior_boxes, ("priors",), ("priors",), as_list, ignores=True, best_overlap=True,
        without_order=lambda: va.AscendMaxIoUAssigner(**LAST_FREE),
    ),
    "ATSSAssigner": Case(
        lambda: va.ATSSAssigner(9, ignore_iof_thr=0.5),
        prior_boxes, ("priors",), ("priors",), with_levels, levels=True, ignores=True,
    ),
    "ATSSAssigner-ddod": Case(
        lambda: va.ATSSAssigner(9, alpha=0.8),
        dense, ("priors", "bboxes", "scores"), ("priors", "bboxes"), with_levels, levels=True,
    ),
    "ScaleRangeAssigner": Case(
        lambda: va.ScaleRangeAssigner(center_sampling=True),
        prior_boxes, ("priors",), ("priors",), with_levels, levels=True,
    ),
    "TaskAlignedAssigner": Case(
        lambda: va.TaskAlignedAssigner(13), probable, ("priors", "bboxes", "scores"), ("priors", "bboxes")
    ),
    "SimOTAAssigner": Case(va.SimOTAAssigner, pointwise, ("priors", "bboxes", "scores"), ("bboxes",)),
    "DynamicSoftLabelAssigner": Case(
        va.DynamicSoftLabelAssigner, pointwise, ("priors", "bboxes", "scores"), ("bboxes",)
    ),
    "HungarianAssigner": Case(
        lambda: va.HungarianAssigner(DINO), queries, ("bboxes", "scores"), ("bboxes",), with_meta
    ),
    "MaskHungarianAssigner": Case(
        lambda: va.MaskHungarianAssigner(dice_cost=dict(type="DiceCost", pred_act=True, eps=1.0)),
        queries, ("scores", "masks"), (), with_meta,
    ),
    "MaskHungarianAssigner-tensors": Case(
        lambda: va.MaskHungarianAssigner(dice_cost=dict(type="DiceCost", pred_act=True, eps=1.0)),
        queries, ("scores", "masks"), (), as_mask_tensors,
    ),
    "TopkHungarianAssigner": Case(
        lambda: va.TopkHungarianAssigner(4),
        likely_queries, ("bboxes", "scores"), ("bboxes",), as_tensors, matched_only=True,
    ),
    "GridAssigner": Case(
        lambda: va.GridAssigner(0.5, 0.5), flagged, ("priors",), ("priors",), best_overlap=True,
        without_order=lambda: va.GridAssigner(0.5, 0.5, min_pos_iou=1.0),
    ),
    "UniformAssigner": Case(
        lambda: va.UniformAssigner(0.15, 0.7), decoded, ("priors", "decoder_priors"), ("priors", "decoder_priors"),
        best_overlap=True, without_order=lambda: va.UniformAssigner(0.15, 0.7, match_times=1),
    ),
    "RegionAssigner": Case(
        lambda: va.RegionAssigner(0.2, 0.5), validated, ("priors",), ("priors",), as_cascade_rpn, levels=True,
        without_order=lambda: va.RegionAssigner(0.05, 0.05),
    ),
    "CenterRegionAssigner": Case(
        lambda: va.CenterRegionAssigner(0.3, 0.6), prior_boxes, ("priors",), ("priors",)
    ),
    "PointAssigner": Case(lambda: va.PointAssigner(4, 3), pointwise, ("priors",), ()),
    "MultiInstanceAssigner": Case(
        lambda: va.MultiInstanceAssigner(2, pos_iou_thr=0.5, neg_iou_thr=0.5),
        prior_boxes, ("priors",), ("priors",), own_layout=True,
    ),
}  # fmt: skip
