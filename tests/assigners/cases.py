"""One case for every registered assigner: how to build it, what to give it.  The contract tests walk this table."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from mmengine.structures import InstanceData

import visdet_assigners as va
from scenes import STRIDES, Objects, anchors, draw_boxes, feature_sizes, points
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


def at_epoch(epoch: int) -> va.ScheduledAssigner:
    """ATSS for four epochs, then TaskAligned."""
    schedule = va.ScheduledAssigner([va.ATSSAssigner(9), dict(type="TaskAlignedAssigner", topk=13)], milestones=[4])
    schedule.epoch = epoch
    return schedule


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
    "RankingAssigner": Case(
        lambda: va.RankingAssigner(2, ignore_iof_thr=0.5), prior_boxes, ("priors",), ("priors",), best_overlap=True,
    ),
    "RankingAssigner-nwd": Case(
        lambda: va.RankingAssigner(3, iou_calculator=dict(type="NWDOverlaps", constant=40.0), ignore_iof_thr=0.5),
        prior_boxes, ("priors",), ("priors",), best_overlap=True,
    ),
    "HierarchicalAssigner": Case(
        lambda: va.HierarchicalAssigner(ignore_iof_thr=0.5), prior_boxes, ("priors",), ("priors",), best_overlap=True,
        without_order=lambda: va.HierarchicalAssigner(conflict="best"),
    ),
    "POTOAssigner": Case(
        lambda: va.POTOAssigner(score_form="probabilities"), pointwise, ("priors", "bboxes", "scores"), ("bboxes",)
    ),
    "POTOAssigner-matching": Case(
        lambda: va.POTOAssigner(matching="hungarian", prior_form="boxes", score_form="probabilities"),
        probable, ("priors", "bboxes", "scores"), ("priors", "bboxes"),
    ),
    "MaxIoUAssigner-nwd": Case(
        lambda: va.MaxIoUAssigner(**LOOSE, iou_calculator=dict(type="NWDOverlaps", union=True), ignore_iof_thr=0.5),
        prior_boxes, ("priors",), ("priors",), ignores=True, best_overlap=True,
        without_order=lambda: va.MaxIoUAssigner(**LAST_FREE, iou_calculator=dict(type="NWDOverlaps", union=True)),
    ),
    "TaskAlignedAssigner-kld": Case(
        lambda: va.TaskAlignedAssigner(13, dict(type="KLDOverlaps")),
        probable, ("priors", "bboxes", "scores"), ("priors", "bboxes"),
    ),
    "SimOTAAssigner-simd": Case(
        lambda: va.SimOTAAssigner(iou_calculator=dict(type="SimDOverlaps")),
        pointwise, ("priors", "bboxes", "scores"), ("bboxes",),
    ),
    "ATSSAssigner-kld": Case(
        lambda: va.ATSSAssigner(9, iou_calculator=dict(type="KLDOverlaps", floor=0.0), ignore_iof_thr=0.5),
        prior_boxes, ("priors",), ("priors",), with_levels, levels=True, ignores=True,
    ),
    "ScheduledAssigner": Case(
        lambda: at_epoch(3), probable, ("priors",), ("priors", "bboxes"), with_levels, levels=True,
    ),
    "ScheduledAssigner-later": Case(
        lambda: at_epoch(4), probable, ("priors", "bboxes", "scores"), ("priors", "bboxes"), with_levels,
    ),
    # Options of the others.
    "TaskAlignedAssigner-one": Case(
        lambda: va.TaskAlignedAssigner(13, topk2=1, side_floor=(16, 32), min_positives=1),
        probable, ("priors", "bboxes", "scores"), ("priors", "bboxes"),
    ),
    "SimOTAAssigner-today": Case(
        lambda: va.SimOTAAssigner(1.5, candidate_region="center", conflict="selected", min_positives=1),
        pointwise, ("priors", "bboxes", "scores"), ("bboxes",),
    ),
    "DynamicSoftLabelAssigner-selected": Case(
        lambda: va.DynamicSoftLabelAssigner(conflict="selected", min_positives=1),
        pointwise, ("priors", "bboxes", "scores"), ("bboxes",),
    ),
    "MaxIoUAssigner-covered": Case(
        lambda: va.MaxIoUAssigner(**LAST_FREE, ignore_iof_thr=0.5, min_positives=1),
        prior_boxes, ("priors",), ("priors",), ignores=True, best_overlap=True,
    ),
    "ATSSAssigner-covered": Case(
        lambda: va.ATSSAssigner(9, ignore_iof_thr=0.5, min_positives=1),
        prior_boxes, ("priors",), ("priors",), with_levels, levels=True, ignores=True,
    ),
    "ScaleRangeAssigner-covered": Case(
        lambda: va.ScaleRangeAssigner(center_sampling=True, min_positives=1),
        prior_boxes, ("priors",), ("priors",), with_levels, levels=True,
    ),
    "GridAssigner-covered": Case(
        lambda: va.GridAssigner(0.5, 0.5, min_pos_iou=1.0, min_positives=1), flagged, ("priors",), ("priors",),
        best_overlap=True,
    ),
    "UniformAssigner-covered": Case(
        lambda: va.UniformAssigner(0.15, 0.7, match_times=1, min_positives=1),
        decoded, ("priors", "decoder_priors"), ("priors", "decoder_priors"), best_overlap=True,
    ),
    "RegionAssigner-covered": Case(
        lambda: va.RegionAssigner(0.05, 0.05, min_positives=1), validated, ("priors",), ("priors",), as_cascade_rpn,
        levels=True,
    ),
    "CenterRegionAssigner-covered": Case(
        lambda: va.CenterRegionAssigner(0.3, 0.6, min_positives=1), prior_boxes, ("priors",), ("priors",)
    ),
    "PointAssigner-covered": Case(lambda: va.PointAssigner(4, 1, min_positives=1), pointwise, ("priors",), ()),
}  # fmt: skip


@cache
def scene(count: int = 12, kind: str = "mixed", image: tuple[int, int] = (240, 320), seed: int = 77) -> Objects:
    """A scene of just so many objects without ties: no coordinate stands on a grid."""
    boxes = draw_boxes(2 * count + 10, image, kind, seed)[:count]
    labels = torch.arange(count) % 8
    return Objects("contract", boxes, labels, draw_boxes(3, image, "mixed", seed + 1), image)


@cache
def tied(kind: str) -> Objects:
    """Objects side by side on a grid, the same objects four times, or objects whose centres lie on those of anchors."""
    step = torch.arange(8.0, 200, 32)
    corner = torch.cartesian_prod(step + 24, step)  # (36, 2) x and y
    boxes = {
        "grid": torch.cat([corner, corner + 32], dim=1),
        "piled": torch.cat([corner - 56, corner + 88], dim=1)[::4],
        "duplicates": torch.cat([corner, corner + 48], dim=1)[:9].repeat(4, 1),
        "centered": torch.cat([corner - 24, corner + 24], dim=1).clamp(min=0),
    }[kind]
    return Objects(kind, boxes, torch.arange(len(boxes)) % 7, torch.zeros(0, 4), (240, 320), num_classes=7)


def equal_predictions(pred: InstanceData, objects: Objects) -> InstanceData:
    """Predictions without a difference but for their place: boxes around their priors, the same score everywhere.

    In the scene of that name the priors lie piled up on each other, at every 64 pixels.
    """
    pred = pred.clone()
    if objects.name == "piled" and "priors" in pred:
        are_points = len(pred) == len(points(objects))
        center = pred.priors[:, :2] if are_points else (pred.priors[:, :2] + pred.priors[:, 2:]) / 2
        move = (center / 64).floor() * 64 + 32 - center
        move = torch.cat([move, torch.zeros_like(move) if are_points else move], dim=1)
        pred.priors = pred.priors + move
        if "approxs" in pred:
            pred.approxs = pred.approxs + move[:, None]
    if "scores" in pred:
        pred.scores = torch.full((len(pred), objects.num_classes), 0.25)
    for field in ("bboxes", "decoder_priors"):
        if field in pred and len(pred) == len(points(objects)):
            pred.set_field(torch.cat([pred.priors[:, :2] - 24, pred.priors[:, :2] + 24], dim=1), field)
        elif field in pred and "priors" in pred:
            pred.set_field(pred.priors.clone(), field)
        elif field in pred:  # queries
            pred.set_field(anchors(objects)[0][: len(pred)].clone(), field)
    if "masks" in pred:
        pred.masks = pred.masks.round()
    return pred


def tensors_of_tied(
    name: str, kind: str, deterministic: bool | None = True, compile: bool = False
) -> list[torch.Tensor]:
    """All tensors of a result."""
    case, objects = CASES[name], tied(kind)
    assigner = case.build()
    assigner.deterministic, assigner.compile = deterministic, compile
    found = case.call(assigner, equal_predictions(case.pred(objects), objects), case.gt(objects), None, objects)
    tensors = [found.gt_inds, found.labels, found.max_overlaps, getattr(found, "assign_metrics", None)]
    tensors += [value for key, value in found.info.items() if key not in ("num_gts", "num_preds")]
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]


def all_equal(mine: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(mine, others, strict=True))


# Assigners outside the repository get the same tests: the variable names a file with CASES of its own.
if "VISDET_ASSIGNERS_CASES" in os.environ:
    CASES |= runpy.run_path(os.environ["VISDET_ASSIGNERS_CASES"])["CASES"]
