"""The points in which ours is meant to differ from mmdet's, each as a change of the call that mmdet's is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmdet.models.task_modules import assigners as theirs
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmengine.registry import DefaultScope
from torch import Tensor

from visdet_assigners.functional.boxes import common_origin
from visdet_assigners.testing.drawing import NUM_CLASSES
from visdet_assigners.testing.oracle import PADDING, Result, fields_of
from visdet_assigners.testing.trials import Trial


@dataclass(frozen=True)
class Difference:
    """A point in which ours is meant to differ.

    Attributes:
        name: what the tables call it.
        applies: whether a trial is touched by it.
        change: the trial that mmdet's assigner is given in its place.
        undo: makes of mmdet's result for the changed trial the one for the trial itself, both given.
    """

    name: str
    applies: Callable[[Trial], bool]
    change: Callable[[Trial], Trial] = lambda trial: trial
    undo: Callable[[Trial, Result], Result] = lambda trial, result: result


def ignored_priors(trial: Trial) -> Tensor:
    """Which priors lie in ignore regions, by mmdet's calculator: (N,) bool."""
    priors, regions = trial.pred["priors"], (trial.ignore or {}).get("bboxes")
    threshold = trial.config.get("ignore_iof_thr", -1)
    if regions is None or not len(regions) or not len(priors) or threshold <= 0:
        return torch.zeros(len(priors), dtype=torch.bool)
    if trial.config.get("ignore_wrt_candidates", True):
        covered = theirs.BboxOverlaps2D()(priors, regions, mode="iof").amax(dim=1)
    else:
        covered = theirs.BboxOverlaps2D()(regions, priors, mode="iof").amax(dim=0)
    return covered > threshold


def ignore_without_objects(trial: Trial, result: Result) -> Result:
    """Mark the ignored priors of an image without objects."""
    ignored = ignored_priors(trial)
    unmatched = 0 if trial.name == "ATSSAssigner" else -1
    return {
        **result,
        "gt_inds": result["gt_inds"].masked_fill(ignored, -1),
        "max_overlaps": result["max_overlaps"].masked_fill(ignored, unmatched),
    }


def has_area(trial: Trial) -> Tensor:
    """Which ground truths have an area, (M,) bool."""
    gts = trial.gt["bboxes"]
    return (gts[:, 2] - gts[:, 0]) * (gts[:, 3] - gts[:, 1]) > 0


def only_with_area(trial: Trial) -> Trial:
    """The trial without ground truths of no area."""
    kept = has_area(trial)
    return replace(trial, gt={name: value[kept] for name, value in trial.gt.items()})


def count_all(trial: Trial, result: Result) -> Result:
    """Number ground truths as they are before those of no area are left out."""
    number = torch.cat([torch.tensor([-1, 0]), has_area(trial).nonzero()[:, 0] + 1])
    return {**result, "gt_inds": number[result["gt_inds"] + 1]}


def count_all_inside(trial: Trial, result: Result) -> Result:
    """As `count_all`; anchors outside are ignored even where no object with an area is left, as with other objects."""
    result = count_all(trial, result)
    if has_area(trial).any() or not len(result["gt_inds"]):
        return result
    anchors, valid, border = trial.pred["priors"], trial.pred["valid_flags"], trial.rest["border"]
    inside = anchor_inside_flags(anchors, valid, trial.image, border)
    return {"gt_inds": torch.where(inside, 0, -1), "labels": result["labels"]}


def small_levels(trial: Trial) -> list[tuple[int, int]]:
    """Strides of the levels, missing ones too, that have fewer points than Point takes, and how many they lack."""
    levels = trial.pred["priors"][:, 2].log2().int()
    if not len(levels):
        return []
    counts = {2**level: int((levels == level).sum()) for level in range(int(levels.min()), int(levels.max()) + 1)}
    wanted = trial.config["pos_num"]
    return [(stride, wanted - count) for stride, count in counts.items() if count < wanted]


def with_far_points(trial: Trial) -> Trial:
    """Fill up the levels that have too few points, from far away."""
    far = [[1e12, 1e12, stride] for stride, lacking in small_levels(trial) for _ in range(lacking)]
    return replace(trial, pred={"priors": torch.cat([trial.pred["priors"], torch.tensor(far)])})


def without_far_points(trial: Trial, result: Result) -> Result:
    """Cut the far points off."""
    return {name: value[: len(trial.pred["priors"])] for name, value in result.items()}


def boxes_of(trial: Trial) -> int:
    """How many ground truths and ignore boxes there are."""
    return len(trial.gt["bboxes"]) + len((trial.ignore or {}).get("bboxes", ()))


def with_far_boxes(trial: Trial) -> Trial:
    """Give MultiInstance as many boxes as instances, from far away."""
    lacking = max(0, trial.config["num_instance"] - boxes_of(trial))
    far = torch.tensor([[-9e6, -9e6, -8e6, -8e6]]).expand(lacking, 4)
    ignore = {} if trial.ignore is None else trial.ignore
    labels = ignore.get("labels", torch.full((len(ignore.get("bboxes", ())),), -1))
    boxes = torch.cat([ignore.get("bboxes", torch.zeros(0, 4)), far])
    return replace(trial, ignore={"bboxes": boxes, "labels": torch.cat([labels, labels.new_zeros(lacking)])})


def without_far_boxes(trial: Trial, result: Result) -> Result:
    """Cut the far boxes off: their rows, and the instances that only they could be."""
    boxes = boxes_of(trial)
    rows = {name: value[: len(trial.pred["priors"]) + boxes].clone() for name, value in result.items()}
    for value in rows.values():
        value[:, boxes:] = 0
    return rows


def clip_match_times(trial: Trial) -> Trial:
    """Let Uniform match as often as there are priors."""
    return replace(trial, config={**trial.config, "match_times": len(trial.pred["priors"])})


def origin_of(trial: Trial) -> Tensor:
    """What Uniform takes off coordinates that are all far from 0, (4,)."""
    return common_origin(trial.gt["bboxes"]) if len(trial.gt["bboxes"]) else torch.zeros(4)


def near_zero(trial: Trial) -> Trial:
    """The trial where float32 tells places better; `drawing.from_afar` makes scenes whose numbers stay exact."""
    origin = origin_of(trial)
    pred = {name: value - origin for name, value in trial.pred.items()}
    return replace(trial, pred=pred, gt={**trial.gt, "bboxes": trial.gt["bboxes"] - origin})


def where_it_was(trial: Trial, result: Result) -> Result:
    """The boxes of the result moved back."""
    back = {name: result[name] + origin_of(trial) for name in ("pos_predicted_boxes", "target_boxes")}
    return {**result, **back}


def a_little_above_zero(trial: Trial) -> Trial:
    """Ask for an overlap above 0 of low-quality matches."""
    least = max(trial.config.get("min_pos_iou", 0.0), 1e-30)
    return with_config(trial, min_pos_iou=least)


def with_config(trial: Trial, **config: Any) -> Trial:
    """The trial with other options, of all its images."""
    rest = dict(trial.rest)
    if "images" in rest:
        rest["images"] = [with_config(image, **config) for image in rest["images"]]
    return replace(trial, config={**trial.config, **config}, rest=rest)


def with_padding(trial: Trial) -> Trial:
    """The trial with the box that padded tensors have where there is no object: behind the others, far outside."""
    boxes, labels = trial.gt["bboxes"], trial.gt["labels"]
    return replace(
        trial, gt={"bboxes": torch.cat([boxes, PADDING[None]]), "labels": torch.cat([labels, labels.new_zeros(1)])}
    )


def whole_labels(trial: Trial) -> Trial:
    """The trial with labels as int64."""
    rest = dict(trial.rest)
    if "images" in rest:
        rest["images"] = [whole_labels(image) for image in rest["images"]]
    return replace(trial, gt={**trial.gt, "labels": trial.gt["labels"].long()}, rest=rest)


def equal_queries(count: int) -> dict[str, Tensor]:
    """Predictions without a difference."""
    return {"scores": torch.full((count, NUM_CLASSES), 0.5), "bboxes": torch.zeros(count, 4)}


def candidates_of(trial: Trial) -> int:
    """How many candidates each ground truth has in ATSS."""
    return sum(min(trial.config["topk"], size) for size in trial.rest["levels"])


def with_every_prior_twice(trial: Trial) -> Trial:
    """Give ATSS the only candidate a second time, on a level of its own: two that are equal don't deviate."""
    pred = {name: torch.cat([value, value]) for name, value in trial.pred.items()}
    levels = [*trial.rest["levels"], len(trial.pred["priors"])]
    return replace(trial, pred=pred, rest={**trial.rest, "levels": levels})


def once(trial: Trial, result: Result) -> Result:
    """Cut the second of each prior off."""
    return {name: value[: len(trial.pred["priors"])] for name, value in result.items()}


def match_every_query(trial: Trial, result: Result) -> Result:
    """What mmdet's HungarianAssigner decides by the costs of TopkHungarian, which itself matches nothing."""
    pred, gt, _ = whole_labels(trial).instances
    costs = [("FocalLossCost", 2.0), ("BBoxL1Cost", 5.0), ("IoUCost", 2.0)]
    with DefaultScope.overwrite_default_scope("mmdet"):
        assigner = theirs.HungarianAssigner([dict(type=kind, weight=weight) for kind, weight in costs])
    found = fields_of([assigner.assign(pred, gt, img_meta={"img_shape": trial.image})])
    rows = torch.arange(len(pred))
    iou = theirs.BboxOverlaps2D()(pred.bboxes, gt.bboxes)[rows, found["gt_inds"] - 1]
    return {**found, "max_overlaps": iou, "assign_metrics": pred.scores[rows, found["labels"]] * iou**6}


def images_of(trial: Trial) -> list[Trial]:
    """The trial, or the images of a batch."""
    return trial.rest.get("images", [trial])


NO_OVERLAP = Difference(
    "a: an object that overlaps no prior takes none",
    lambda trial: trial.config.get("min_pos_iou", 0.0) <= 0,
    a_little_above_zero,
)
LABELS = Difference(
    "labels of other types",
    lambda trial: any(image.gt["labels"].dtype != torch.int64 for image in images_of(trial)),
    whole_labels,
)
REGIONS = Difference(
    "b: ignore regions without objects",
    lambda trial: not len(trial.gt["bboxes"]) and bool(ignored_priors(trial).any()),
    undo=ignore_without_objects,
)
NO_AREA = Difference(
    "l: an object of no area takes nothing", lambda trial: not bool(has_area(trial).all()), only_with_area, count_all
)
FEW_POINTS = Difference(
    "e: fewer points than wanted", lambda trial: bool(small_levels(trial)), with_far_points, without_far_points
)
FEW_PRIORS = Difference(
    "e: fewer priors than wanted",
    lambda trial: 0 < len(trial.pred["priors"]) < trial.config["match_times"],
    clip_match_times,
)
FROM_AFAR = Difference(
    "all objects are far from 0", lambda trial: bool(origin_of(trial).any()), near_zero, where_it_was
)
FEW_BOXES = Difference(
    "fewer boxes than instances",
    lambda trial: boxes_of(trial) < trial.config["num_instance"],
    with_far_boxes,
    without_far_boxes,
)
NO_PREDICTIONS = Difference(
    "no predictions",
    lambda trial: not len(trial.pred["bboxes"]),
    lambda trial: replace(trial, pred=equal_queries(max(1, len(trial.gt["bboxes"])))),
    lambda trial, result: {name: value[:0] for name, value in result.items()},
)
FEW_QUERIES = Difference(
    "every prediction is matched where there are more objects",
    lambda trial: 0 < len(trial.pred["bboxes"]) < len(trial.gt["bboxes"]),
    undo=match_every_query,
)
ONE_CANDIDATE = Difference(
    "a single candidate deviates from nothing",
    lambda trial: candidates_of(trial) == 1,
    with_every_prior_twice,
    once,
)
DIFFERENCES: dict[str, tuple[Difference, ...]] = {
    "MaxIoUAssigner": (NO_OVERLAP, REGIONS),
    "ApproxMaxIoUAssigner": (NO_OVERLAP, REGIONS),
    "AscendMaxIoUAssigner": (NO_OVERLAP,),
    "ATSSAssigner": (REGIONS, ONE_CANDIDATE),
    "SimOTAAssigner": (NO_AREA,),
    "DynamicSoftLabelAssigner": (NO_AREA,),
    "RegionAssigner": (replace(NO_AREA, undo=count_all_inside),),
    "UniformAssigner": (FROM_AFAR, FEW_PRIORS),
    "PointAssigner": (NO_AREA, FEW_POINTS),
    "MultiInstanceAssigner": (FEW_BOXES,),
    "TopkHungarianAssigner": (NO_PREDICTIONS, FEW_QUERIES),
}
"""Of each assigner; `LABELS` is everyone's."""
