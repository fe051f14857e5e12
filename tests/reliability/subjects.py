"""What the faults are tried on: every assigner with a scene as its head makes it, and every match cost in one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from mmdet.models.task_modules import assigners as theirs
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import visdet_assigners as va
from scenes import STRIDES, Objects, anchors, feature_sizes
from visdet_assigners.testing.feeds import (
    approximated,
    decoded,
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

BOXES = torch.tensor(
    [
        [20.3, 31.2, 84.7, 97.9], [120.6, 40.1, 180.2, 130.8], [200.9, 20.4, 300.3, 90.6],
        [30.2, 130.5, 110.7, 220.1], [140.4, 150.9, 230.8, 210.2], [240.1, 120.7, 310.6, 228.3],
    ]
)  # fmt: skip
CROWDS = torch.tensor([[100.0, 60.0, 220.0, 200.0]])
OBJECTS = Objects("faults", BOXES, torch.arange(len(BOXES)), CROWDS, (240, 320))
IMAGE = "scene.png"

Fields = dict[str, Any]


@dataclass
class Scene:
    """One call: fields of the predictions and ground truths, and what else the assigner is told."""

    pred: Fields
    gt: Fields
    ignore: Fields | None = None
    meta: Mapping[str, Any] | None = field(default_factory=lambda: meta(OBJECTS))
    levels: Sequence[int] = ()
    feature_sizes: Sequence[tuple[int, int]] = ()
    strides: Sequence[float] = ()
    options: Fields = field(default_factory=dict)
    context: Callable[[], Any] = nullcontext

    def copy(self, **changes: Any) -> Scene:
        """The same with fields of its own."""
        fields = {name: clone(getattr(self, name)) for name in ("pred", "gt", "ignore")}
        return replace(self, **{**fields, "levels": list(self.levels), "options": dict(self.options), **changes})


def clone(fields: Fields | None) -> Fields | None:
    """The fields with tensors of their own; what is no tensor is copied, too."""
    return None if fields is None else {name: copy.deepcopy(value) for name, value in fields.items()}


def instances(fields: Fields | None) -> Any:
    """As heads hand them over; where mmengine refuses the lengths, a plain object, as from a head of one's own."""
    if fields is None:
        return None
    try:
        made = InstanceData()
        for name, value in fields.items():
            setattr(made, name, value)
        return made
    except (AssertionError, TypeError):
        return SimpleNamespace(**fields)


def plainly(assigner: Any, scene: Scene, pred: Any, gt: Any, ignore: Any, told: Fields) -> Any:
    return assigner.assign(pred, gt, ignore, **told)


def with_levels(assigner: Any, scene: Scene, pred: Any, gt: Any, ignore: Any, told: Fields) -> Any:
    return assigner.assign(pred, list(scene.levels), gt, ignore, **told)


def with_meta(assigner: Any, scene: Scene, pred: Any, gt: Any, ignore: Any, told: Fields) -> Any:
    return assigner.assign(pred, gt, scene.meta)


def as_cascade_rpn(assigner: Any, scene: Scene, pred: Any, gt: Any, ignore: Any, told: Fields) -> Any:
    return assigner.assign(
        pred, gt, scene.meta, list(scene.feature_sizes), list(scene.levels), 8, list(scene.strides), ignore
    )


def as_tensors(assigner: Any, scene: Scene, pred: Any, gt: Any, ignore: Any, told: Fields) -> Any:
    tensors = [getattr(pred, name, None) for name in ("scores", "bboxes")]
    tensors += [getattr(gt, name, None) for name in ("bboxes", "labels")]
    return assigner.assign(*tensors, scene.meta)


@dataclass(frozen=True, eq=False)
class Subject:
    """An assigner under test.

    Attributes:
        code: two letters in the tables.
        name: of the class.
        pred: fields of the predictions for a scene of objects.
        options: of the constructor.
        call: hands the scene over as mmdet's heads do.
        priors: fields of the priors, the first the one that is spoilt.
        boxes: the predicted boxes or masks.
        scores: the class scores.
        truth: what the ground truths are known by: "bboxes", "masks", "positive_maps" (of words), or "labels" alone.
        counts: the option that counts candidates.
        weight: the option that weighs a cost.
        levels: whether the levels count.
        one_to_one: whether each ground truth has one prediction.
        reference: mmdet's class and options, None where mmdet 3 has no such class.
    """

    code: str
    name: str
    pred: Callable[[Objects], InstanceData]
    options: Fields
    call: Callable[..., Any] = plainly
    priors: tuple[str, ...] = ("priors",)
    boxes: str | None = None
    scores: str | None = None
    truth: str = "bboxes"
    counts: str | None = None
    weight: Callable[[float], Fields] | None = None
    levels: bool = False
    one_to_one: bool = False
    reference: tuple[str, Fields] | None = None

    def build(self, **options: Any) -> Any:
        return getattr(va, self.name)(**{**self.options, **options})

    def build_reference(self, **options: Any) -> Any:
        name, own = self.reference or (self.name, self.options)
        with DefaultScope.overwrite_default_scope("mmdet"):
            return getattr(theirs, name)(**{**own, **options})

    @property
    def has_reference(self) -> bool:
        return self.reference is not None or hasattr(theirs, self.name)

    def scene(self) -> Scene:
        return self._scene().copy()

    @cache  # noqa: B019  (one for each entry of the tables)
    def _scene(self) -> Scene:
        gt = dict(ground_truths(OBJECTS).items())
        if self.truth == "bboxes":
            del gt["masks"]
        elif self.truth == "masks":
            del gt["bboxes"]
        else:
            named = tokens(len(gt["labels"])) if self.truth == "positive_maps" else {}
            gt = {"labels": gt["labels"], **named}
        sizes = feature_sizes(OBJECTS.image, STRIDES)
        fields = {*self.priors, self.boxes, self.scores, "responsible_flags", "valid_flags"}
        pred = {name: value for name, value in self.pred(OBJECTS).items() if name in fields}
        levels = anchors(OBJECTS)[1] if self.levels else ()
        return Scene(pred, gt, levels=levels, feature_sizes=sizes, strides=STRIDES)

    def assign(self, scene: Scene, reference: bool = False) -> Any:
        """One image by ``assign``."""
        assigner = (self.build_reference if reference else self.build)(**scene.options)
        takes_meta = not reference and self.call in (plainly, with_levels)
        told = {"img_meta": scene.meta} if takes_meta else {}
        with scene.context():
            return self.call(assigner, scene, *map(instances, (scene.pred, scene.gt, scene.ignore)), told)

    def assign_batch(self, scene: Scene) -> Any:
        """The same image between two others by ``assign_batch``."""
        assigner, clean = self.build(**scene.options), self.scene()
        pred, gt, ignore = map(instances, (scene.pred, scene.gt, scene.ignore))
        other = [instances(fields) for fields in (clean.pred, clean.gt)]
        if scene.levels != clean.levels or not all(map(len, scene.pred.values())):
            batch = [[pred], [gt], [ignore], [scene.meta]]
        else:
            batch = [[other[0], pred], [other[1], gt], [None, ignore], [clean.meta, scene.meta]]
        shared: Fields = {"num_level_priors": list(scene.levels)} if self.levels else {}
        if self.call is as_cascade_rpn:
            shared = dict(
                featmap_sizes=list(scene.feature_sizes), num_level_anchors=list(scene.levels), anchor_scale=8,
                anchor_strides=list(scene.strides),
            )  # fmt: skip
        with scene.context():
            return assigner.assign_batch(*batch, **shared)[-1]


def tokens(count: int) -> Fields:
    """The words of a text, and those that name each object."""
    positive = torch.zeros(count, OBJECTS.num_classes)
    positive[torch.arange(count), torch.arange(count)] = 1.0
    return dict(
        text_token_mask=(torch.arange(OBJECTS.num_classes) < OBJECTS.num_classes - 2).repeat(count, 1),
        positive_maps=positive,
    )


def logit_points(objects: Objects) -> InstanceData:
    """Points with predicted boxes and class logits."""
    pred = pointwise(objects)
    pred.scores = pred.scores.logit()
    return pred


def costs_with(entries: Sequence[Fields], names: Sequence[str]) -> Callable[[float], Fields]:
    """Options in which the first of some costs has another weight."""

    def weigh(weight: float) -> Fields:
        made = [dict(entries[0], weight=weight), *entries[1:]]
        return {"match_costs": made} if names == ["match_costs"] else dict(zip(names, made))

    return weigh


DINO = [
    dict(type="FocalLossCost", weight=2.0),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
]
MASK2FORMER = [
    dict(type="ClassificationCost", weight=2.0),
    dict(type="CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
    dict(type="DiceCost", weight=5.0, pred_act=True, eps=1.0),
]
DDQ = [dict(type="FocalLossCost", weight=2.0), dict(type="BBoxL1Cost", weight=5.0), dict(type="IoUCost", weight=2.0)]
OLD_FORM = ["cls_cost", "reg_cost", "iou_cost"]
MASK_FORM = ["cls_cost", "mask_cost", "dice_cost"]
RETINANET = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0, ignore_iof_thr=0.5)

SCHEDULE = [dict(type="ATSSAssigner", topk=9, ignore_iof_thr=0.5), dict(type="MaxIoUAssigner", **RETINANET)]

SUBJECTS = (
    Subject("MI", "MaxIoUAssigner", prior_boxes, RETINANET),
    Subject("AM", "ApproxMaxIoUAssigner", approximated, RETINANET, priors=("priors", "approxs")),
    Subject(
        "AT", "ATSSAssigner", prior_boxes, dict(topk=9, ignore_iof_thr=0.5), with_levels, counts="topk", levels=True
    ),
    Subject("TA", "TaskAlignedAssigner", probable, dict(topk=13), boxes="bboxes", scores="scores", counts="topk"),
    Subject(
        "HU", "HungarianAssigner", queries, dict(match_costs=DINO), with_meta, (), "bboxes", "scores",
        weight=costs_with(DINO, ["match_costs"]), one_to_one=True,
    ),
    Subject(
        "MH", "MaskHungarianAssigner", queries, dict(zip(MASK_FORM, MASK2FORMER)), with_meta, (), "masks", "scores",
        "masks", weight=costs_with(MASK2FORMER, MASK_FORM), one_to_one=True,
        reference=("HungarianAssigner", dict(match_costs=MASK2FORMER)),
    ),
    Subject(
        "SO", "SimOTAAssigner", pointwise, {}, boxes="bboxes", scores="scores", counts="candidate_topk",
        weight=lambda weight: dict(cls_weight=weight),
    ),
    Subject("GR", "GridAssigner", flagged, dict(pos_iou_thr=0.5, neg_iou_thr=0.5)),
    Subject(
        "UN", "UniformAssigner", decoded, dict(pos_ignore_thr=0.15, neg_ignore_thr=0.7), boxes="decoder_priors",
        counts="match_times",
    ),
    Subject("RE", "RegionAssigner", validated, {}, as_cascade_rpn, levels=True),
    Subject("CR", "CenterRegionAssigner", prior_boxes, dict(pos_scale=0.3, neg_scale=0.6)),
    Subject("PT", "PointAssigner", pointwise, {}, counts="pos_num"),
    Subject("AS", "AscendMaxIoUAssigner", prior_boxes, RETINANET, reference=("MaxIoUAssigner", RETINANET)),
    Subject(
        "DS", "DynamicSoftLabelAssigner", logit_points, {}, boxes="bboxes", scores="scores", counts="topk",
        weight=lambda weight: dict(iou_weight=weight),
    ),
    Subject(
        "TH", "TopkHungarianAssigner", likely_queries, dict(topk=4, **dict(zip(OLD_FORM, DDQ))), as_tensors, (),
        "bboxes", "scores", counts="topk", weight=costs_with(DDQ, OLD_FORM),
    ),
    Subject(
        "MU", "MultiInstanceAssigner", prior_boxes, dict(num_instance=2, pos_iou_thr=0.5, neg_iou_thr=0.5),
        counts="num_instance",
    ),
    Subject("SR", "ScaleRangeAssigner", prior_boxes, dict(center_sampling=True), with_levels, levels=True),
    Subject("RK", "RankingAssigner", prior_boxes, dict(topk=2, ignore_iof_thr=0.5), counts="topk"),
    Subject("HI", "HierarchicalAssigner", prior_boxes, dict(ignore_iof_thr=0.5), counts="topk"),
    Subject("PO", "POTOAssigner", pointwise, dict(score_form="probabilities"), boxes="bboxes", scores="scores"),
    Subject("SC", "ScheduledAssigner", prior_boxes, dict(assigners=SCHEDULE, milestones=[10**9]), with_levels,
            levels=True),
)  # fmt: skip


def of_cost(code: str, truth: str, config: Fields, boxes: str | None = None, scores: str | None = None) -> Subject:
    """A cost alone in a Hungarian assigner."""
    return Subject(
        code, "HungarianAssigner", queries, dict(match_costs=[config]), with_meta, (), boxes, scores, truth,
        weight=costs_with([config], ["match_costs"]), one_to_one=True,
    )  # fmt: skip


COSTS = (
    of_cost("CC", "labels", dict(type="ClassificationCost"), scores="scores"),
    of_cost("FL", "labels", dict(type="FocalLossCost"), scores="scores"),
    of_cost("FM", "masks", dict(type="FocalLossCost", binary_input=True), boxes="masks"),
    of_cost("BF", "positive_maps", dict(type="BinaryFocalLossCost"), scores="scores"),
    of_cost("L1", "bboxes", dict(type="BBoxL1Cost"), boxes="bboxes"),
    of_cost("IU", "bboxes", dict(type="IoUCost"), boxes="bboxes"),
    of_cost("HO", "bboxes", dict(type="HighOrderCost"), boxes="bboxes", scores="scores"),
    of_cost("PM", "bboxes", dict(type="PositionModulatedCost"), boxes="bboxes", scores="scores"),
    of_cost("DC", "masks", dict(type="DiceCost", pred_act=True, eps=1.0), boxes="masks"),
    of_cost("CE", "masks", dict(type="CrossEntropyLossCost"), boxes="masks"),
)
