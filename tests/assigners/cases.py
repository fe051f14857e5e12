"""One case for every registered assigner: how to build it, what to give it.  The contract tests walk this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.structures import InstanceData

import visdet_assigners as va
from scenes import Objects, anchors, logits, points, predicted_boxes, proposals


@dataclass(frozen=True)
class Case:
    """An assigner with its inputs.

    Attributes:
        build: makes the assigner.
        pred: makes the predictions for a scene.
        fields: floating fields of the predictions that it reads, those that may not hold NaN or inf.
        boxes: fields of the predictions that hold xyxy boxes, which may come in mmdet's containers.
        levels: whether ``num_level_priors`` is the second argument.
        meta: whether ``img_meta`` is the third.
        ignores: whether it honours ignore regions.
        per_object: whether the number of operators may grow with the number of distinct dynamic k.
        without_order: the same without the rule by which the last object wins, where it has one.
    """

    build: Callable[[], Any]
    pred: Callable[[Objects], InstanceData]
    fields: tuple[str, ...]
    boxes: tuple[str, ...]
    levels: bool = False
    meta: bool = False
    ignores: bool = False
    per_object: bool = False
    without_order: Callable[[], Any] | None = None

    def assign(self, objects: Objects, pred: InstanceData | None = None, gt: InstanceData | None = None, ignore=None):
        """Run the assigner as a head does."""
        pred = self.pred(objects) if pred is None else pred
        gt = self.gt(objects) if gt is None else gt
        assigner = self.build()
        if self.levels:
            sizes = anchors(objects)[1]
            return assigner.assign(pred, sizes if sum(sizes) == len(pred) else [len(pred)], gt, ignore)
        if self.meta:
            return assigner.assign(pred, gt, dict(img_shape=objects.image, img_path="scene.png"))
        return assigner.assign(pred, gt, ignore)

    @staticmethod
    def gt(objects: Objects) -> InstanceData:
        gt = objects.instances
        gt.masks = (torch.rand(len(gt), 6, 8, generator=torch.Generator().manual_seed(3)) < 0.4).float()
        return gt


def prior_boxes(objects: Objects) -> InstanceData:
    return InstanceData(priors=anchors(objects)[0])


def dense(objects: Objects) -> InstanceData:
    pred = prior_boxes(objects)
    pred.bboxes = predicted_boxes(pred.priors, objects, seed=1)
    pred.scores = logits(len(pred), objects, seed=2)
    return pred


def probable(objects: Objects) -> InstanceData:
    pred = dense(objects)
    pred.scores = pred.scores.sigmoid()
    return pred


def pointwise(objects: Objects) -> InstanceData:
    pred = InstanceData(priors=points(objects))
    reach = 2 * pred.priors[:, 2:]
    boxes = torch.cat([pred.priors[:, :2] - reach, pred.priors[:, :2] + reach], dim=1)
    pred.bboxes = predicted_boxes(boxes, objects, seed=1)
    pred.scores = logits(len(pred), objects, seed=2).sigmoid()
    return pred


def queries(objects: Objects) -> InstanceData:
    pred = InstanceData(bboxes=proposals(objects, 60, seed=8))
    pred.scores = logits(len(pred), objects, seed=9)
    pred.masks = torch.randn(len(pred), 6, 8, generator=torch.Generator().manual_seed(10))
    return pred


DINO = [
    dict(type="FocalLossCost", weight=2.0),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
]

CASES: dict[str, Case] = {
    "MaxIoUAssigner": Case(
        lambda: va.MaxIoUAssigner(0.5, 0.4, 0.2, ignore_iof_thr=0.5), prior_boxes, ("priors",), ("priors",),
        ignores=True,
        without_order=lambda: va.MaxIoUAssigner(0.5, 0.4, match_low_quality=False),
    ),
    "MaxIoUAssigner-first-of-equals": Case(
        lambda: va.MaxIoUAssigner(0.5, 0.4, gt_max_assign_all=False, ignore_iof_thr=0.5),
        prior_boxes, ("priors",), ("priors",),
        ignores=True,
        without_order=lambda: va.MaxIoUAssigner(0.5, 0.4, match_low_quality=False),
    ),
    "ATSSAssigner": Case(
        lambda: va.ATSSAssigner(9, ignore_iof_thr=0.5), prior_boxes, ("priors",), ("priors",), levels=True, ignores=True
    ),
    "ATSSAssigner-ddod": Case(
        lambda: va.ATSSAssigner(9, alpha=0.8), dense, ("priors", "bboxes", "scores"), ("priors", "bboxes"), levels=True
    ),
    "TaskAlignedAssigner": Case(
        lambda: va.TaskAlignedAssigner(13), probable, ("priors", "bboxes", "scores"), ("priors", "bboxes")
    ),
    "SimOTAAssigner": Case(
        lambda: va.SimOTAAssigner(), pointwise, ("priors", "bboxes", "scores"), ("bboxes",), per_object=True
    ),
    "HungarianAssigner": Case(
        lambda: va.HungarianAssigner(DINO), queries, ("bboxes", "scores"), ("bboxes",), meta=True
    ),
    "MaskHungarianAssigner": Case(
        lambda: va.MaskHungarianAssigner(dice_cost=dict(type="DiceCost", pred_act=True, eps=1.0)),
        queries, ("scores", "masks"), (), meta=True,
    ),
}  # fmt: skip
