"""The oracle of fuzzing: mmdet's assigner on the same call, and the list of argued differences as changes of that call.

A trial passes when ours decides as mmdet's does, or as mmdet's does on the call changed by the differences that apply
to it: a threshold a little above 0, a ground truth of no area left out.  Ties are checked apart, by index: mmdet's with
stable sorts in place of ``torch.topk``, ours with ``deterministic``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.task_modules import assigners as theirs
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

import visdet_assigners as ours
from visdet_assigners.functional.tensors import evenly
from visdet_assigners.testing.trials import NUM_CLASSES, Trial

Result = dict[str, Tensor]
"""Fields of a result by name: ``gt_inds``, ``labels``, ``max_overlaps`` and extras; what is None is left out."""


PADDING = torch.tensor([-1354.0, -1344.0, -1354.0, -1344.0])
"""The box with which mmdet 2 pads a batch."""


class UnexplainedError(AssertionError):
    """Ours and mmdet's decide differently, and no argued difference says why."""


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


# ------------------------------------------------------------------------------------------------------------- calls


def call_of(assigner: Any, trial: Trial) -> list[Any]:
    """Call an assigner, ours or mmdet's, as its heads do: one result for each image."""
    pred, gt, ignore = trial.instances
    meta, rest = {"img_shape": trial.image, "img_path": "scene.png"}, trial.rest
    name = trial.name
    if name in ("ATSSAssigner", "ScaleRangeAssigner"):
        return [assigner.assign(pred, rest["levels"], gt, ignore)]
    if name == "TaskAlignedAssigner":
        return [assigner.assign(pred, gt, ignore, *rest["exponents"])]
    if name in ("HungarianAssigner", "MaskHungarianAssigner"):
        return [assigner.assign(pred, gt, img_meta=meta)]
    if name == "TopkHungarianAssigner":
        return [assigner.assign(pred.scores, pred.bboxes, gt.bboxes, gt.labels, meta)]
    if name == "RegionAssigner":
        priors = rest["priors"]
        levels = (priors.featmap_sizes, priors.sizes, priors.scale, priors.strides)
        return [assigner.assign(pred, gt, meta, *levels, None, rest["border"])]
    if name in ("MaxIoUAssigner", "ApproxMaxIoUAssigner", "CenterRegionAssigner", "MultiInstanceAssigner"):
        return [assigner.assign(pred, gt, ignore)]
    return [assigner.assign(pred, gt)]


def ascend_call(assigner: Any, trial: Trial) -> list[Any]:
    """Call our AscendMaxIoU in the form that the trial asks for."""
    images = [image.instances for image in trial.rest["images"]]
    if trial.rest["form"] == "one":
        return [assigner.assign(*images[0])]
    if trial.rest["form"] == "list":
        return assigner.assign(*map(list, zip(*images)))
    widest = max(len(pred) for pred, _, _ in images) + 1
    most = max(len(gt) for _, gt, _ in images) + 1
    priors, valid = torch.zeros(len(images), widest, 4), torch.zeros(len(images), widest)
    gts, labels = PADDING.repeat(len(images), most, 1), torch.zeros(len(images), most, dtype=torch.long)
    regions = torch.zeros(len(images), 2, 4)
    for row, (pred, gt, ignore) in enumerate(images):
        priors[row, : len(pred)], valid[row, : len(pred)] = pred.priors, 1
        gts[row, : len(gt)], labels[row, : len(gt)] = gt.bboxes, gt.labels.long()
        if ignore is not None:
            regions[row, : len(ignore)] = ignore.bboxes
    result = assigner.assign(priors, gts, regions, labels, valid)
    found = []
    for row, (pred, gt, _) in enumerate(images):
        own = slice(len(pred))
        positive, index = result.batch_pos_mask[row, own] == 1, result.batch_anchor_gt_indes[row, own] + 1
        gt_inds = torch.where(positive, index, torch.where(result.batch_neg_mask[row, own] == 1, 0, -1))
        own_labels = torch.where(positive, result.batch_anchor_gt_labels[row, own], -1)
        found.append(ours.AssignResult(len(gt), gt_inds, result.batch_max_overlaps[row, own], own_labels))
    return found


def fields_of(results: Sequence[Any]) -> Result:
    """The fields of results, those of several images one after another."""
    found: dict[str, list[Tensor]] = {}
    for result in results:
        fields = {name: getattr(result, name, None) for name in ("gt_inds", "labels", "max_overlaps", "assign_metrics")}
        fields |= {key: value for key, value in result.info.items() if key not in ("num_gts", "num_preds")}
        for name, value in fields.items():
            if isinstance(value, Tensor):
                found.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in found.items()}


def run_ours(trial: Trial, deterministic: bool = False, on_device: bool = False) -> Result:
    """Our result.

    Args:
        trial: what is called.
        deterministic: ties by index.
        on_device: take the way that a device takes.
    """
    before = os.environ.get("VISDET_ASSIGNERS_DEVICE_PATH", "0")
    os.environ["VISDET_ASSIGNERS_DEVICE_PATH"] = str(int(on_device))
    torch.manual_seed(0)  # perm_repeat_gt_cfg draws
    try:
        assigner = getattr(ours, trial.name)(**trial.config, deterministic=deterministic)
        if trial.name == "AscendMaxIoUAssigner":
            return fields_of(ascend_call(assigner, trial))
        if trial.name == "MaskHungarianAssigner" and trial.rest["tensors"]:
            pred, gt, _ = trial.instances
            return fields_of([assigner.assign(pred.get("scores"), pred.masks, gt.labels, gt.masks, {})])
        return fields_of(call_of(assigner, trial))
    finally:
        os.environ["VISDET_ASSIGNERS_DEVICE_PATH"] = before


def run_mmdet(trial: Trial) -> Result:
    """The result of mmdet's assigner, in the layout of ours where that differs whatever the values are."""
    torch.manual_seed(0)
    name, config = trial.name, dict(trial.config)
    if name == "MaskHungarianAssigner":  # mmdet 3 has the three costs, mmdet 2's class is gone
        costs = [config["cls_cost"]] if "scores" in trial.pred else []
        costs += [config["mask_cost"], config["dice_cost"]]
        name, config = "HungarianAssigner", {"match_costs": [cost for cost in costs if cost.get("weight", 1)]}
    if name == "ScaleRangeAssigner":
        return fcos_targets(trial)
    with DefaultScope.overwrite_default_scope("mmdet"):
        assigner = getattr(theirs, name)(**config)
    result = fields_of(call_of(assigner, trial))
    positive = result["gt_inds"] > 0
    if name in ("ATSSAssigner", "TaskAlignedAssigner", "SimOTAAssigner", "DynamicSoftLabelAssigner"):
        result["max_overlaps"] = torch.where(positive, result["max_overlaps"], 0)
    elif name == "RegionAssigner":
        result["labels"] = torch.where(positive, result["labels"], -1)
    elif name == "UniformAssigner":
        result["max_overlaps"] = best_overlaps(trial)
    elif name == "MultiInstanceAssigner":
        result["labels"] = result["labels"].long()
    return result


def fcos_targets(trial: Trial) -> Result:
    """What mmdet's FCOSHead assigns, which has no assigner: its targets where each object is a class of its own."""
    priors, gts, labels = trial.pred["priors"], trial.gt["bboxes"], trial.gt["labels"]
    sizes, ranges = trial.rest["levels"], trial.config["regress_ranges"]
    head = SimpleNamespace(
        num_classes=-1,
        center_sampling=trial.config.get("center_sampling", False),
        center_sample_radius=trial.config.get("center_sample_radius"),
        strides=trial.config.get("strides"),
    )
    gt_index, _ = FCOSHead._get_targets_single(
        head,
        InstanceData(bboxes=gts, labels=torch.arange(len(gts))),
        points=(priors[:, :2] + priors[:, 2:]) / 2,
        regress_ranges=torch.cat([torch.tensor([each]).expand(size, 2) for each, size in zip(ranges, sizes)]),
        num_points_per_lvl=sizes,
    )
    classes = torch.cat([labels, labels.new_full((1,), -1)])
    return {"gt_inds": gt_index + 1, "labels": classes[gt_index].long()}


def joined(results: Sequence[Result]) -> Result:
    """One result of those of several images."""
    return {name: torch.cat([result[name] for result in results]) for name in results[0]}


def best_overlaps(trial: Trial) -> Tensor:
    """The best IoU of each prior, by mmdet's calculator."""
    priors, gts = trial.pred["priors"], trial.gt["bboxes"]
    if not len(gts):
        return priors.new_zeros(len(priors))
    return theirs.BboxOverlaps2D()(priors, gts).amax(dim=1) if len(priors) else priors.new_zeros(0)


# ------------------------------------------------------------------------------------------------------- differences


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
    pred, gt, _ = trial.instances
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
    "UniformAssigner": (FEW_PRIORS,),
    "PointAssigner": (NO_AREA, FEW_POINTS),
    "MultiInstanceAssigner": (FEW_BOXES,),
    "TopkHungarianAssigner": (NO_PREDICTIONS, FEW_QUERIES),
}
"""Of each assigner; `LABELS` is everyone's."""
TIES = "equally aligned predictions, in another order"
ROUNDING = "mmdet's rounding of the last entries"
OWN_ORDER = ("TaskAlignedAssigner",)
"""Those that choose among the pairs that overlap, so that ``torch.topk`` doesn't see what it sees in mmdet."""


def changed_mmdet(trial: Trial, differences: Sequence[Difference]) -> Result:
    """The result of mmdet's assigner, changed by the differences that apply."""
    if not differences:
        if trial.name == "AscendMaxIoUAssigner":  # mmdet 2's class is gone; its rule is MaxIoU's, image by image
            padded = trial.rest["form"] == "padded"
            images = [with_padding(image) if padded else image for image in trial.rest["images"]]
            return joined([changed_mmdet(image, [REGIONS] * REGIONS.applies(image)) for image in images])
        return run_mmdet(trial)
    first = differences[0]
    return first.undo(trial, changed_mmdet(first.change(trial), differences[1:]))


# ------------------------------------------------------------------------------------------------------------- ties


@contextmanager
def stable_order() -> Iterator[None]:
    """Order ties by index in what is run inside: ``topk`` and ``sort`` are stable sorts."""
    sort, topk = torch.Tensor.sort, torch.topk

    def stable_sort(values: Tensor, dim: int = -1, descending: bool = False, **_: Any) -> Any:
        return sort(values, dim=dim, descending=descending, stable=True)

    def stable_topk(values: Tensor, k: int, dim: int = -1, largest: bool = True, **_: Any) -> tuple[Tensor, Tensor]:
        if k > values.shape[dim]:
            raise RuntimeError("selected index k out of range")
        ordered = sort(values, dim=dim, descending=largest, stable=True)
        return ordered.values.narrow(dim, 0, k), ordered.indices.narrow(dim, 0, k)

    torch.Tensor.sort, torch.Tensor.topk, torch.topk = stable_sort, stable_topk, stable_topk  # type: ignore
    try:
        yield
    finally:
        torch.topk = topk
        del torch.Tensor.sort, torch.Tensor.topk  # those of the base class show again


@contextmanager
def even_rounding() -> Iterator[None]:
    """Round equal entries equally, wherever they stand in memory, in what is run inside.

    mmdet's own results depend on the place of a pair: the last entries, which fill no register of the CPU, are worked
    on by other instructions.
    """
    power, sigmoid, power_of = torch.Tensor.__pow__, torch.Tensor.sigmoid, torch.pow

    def even_power(base: Tensor, exponent: Any) -> Tensor:
        return power(base, exponent) if isinstance(exponent, Tensor) else evenly(lambda x: power(x, exponent), base)

    def even_sigmoid(values: Tensor) -> Tensor:
        return evenly(sigmoid, values)

    def even_power_of(base: float, exponent: Tensor) -> Tensor:
        return evenly(lambda x: power_of(base, x), exponent)

    torch.Tensor.__pow__, torch.Tensor.sigmoid, torch.pow = even_power, even_sigmoid, even_power_of  # type: ignore
    try:
        yield
    finally:
        torch.Tensor.__pow__, torch.pow = power, power_of  # type: ignore
        del torch.Tensor.sigmoid


# ------------------------------------------------------------------------------------------------------- comparison


def same(mine: Result, reference: Result) -> bool:
    """Whether two results have the same fields, equal to the last bit."""
    return mine.keys() == reference.keys() and all(torch.equal(mine[name], reference[name]) for name in mine)


def difference_between(mine: Result, reference: Result) -> str:
    """Say in which fields two results differ."""
    lines = []
    for name in sorted(mine.keys() | reference.keys()):
        here, there = mine.get(name), reference.get(name)
        if here is None or there is None or not torch.equal(here, there):
            lines.append(f"{name}:\n  ours  {here}\n  mmdet {there}")
    return "\n".join(lines)


def equally_aligned(trial: Trial) -> bool:
    """Whether TaskAligned has to choose among predictions of equal alignment with an object, above 0."""
    alpha, beta = trial.rest["exponents"]
    scores, iou = trial.pred["scores"], theirs.BboxOverlaps2D()(trial.pred["bboxes"], trial.gt["bboxes"])
    topk = trial.config["topk"]
    with even_rounding():
        alignment = scores[:, trial.gt["labels"].long()] ** alpha * iou**beta  # (N, M)
    ranked = alignment.sort(dim=0, descending=True).values
    return len(ranked) > topk and bool(((ranked[topk - 1] == ranked[topk]) & (ranked[topk] > 0)).any())


def compare(trial: Trial, on_device: bool = False) -> list[str]:
    """Compare our assigner with mmdet's on one call.

    Args:
        trial: the call, valid input.
        on_device: whether ours takes the way of a device where ties are compared by index.

    Returns:
        Names of the argued differences without which they would not agree; mostly none.

    Raises:
        UnexplainedError: they don't agree with these either.
    """
    applying = [each for each in (*DIFFERENCES.get(trial.name, ()), LABELS) if each.applies(trial)]
    by_index = run_ours(trial, deterministic=True, on_device=on_device)
    with stable_order():
        agreed = explanation(trial, by_index, [applying])
    if agreed is None:
        raise UnexplainedError(f"{trial}\nties by index, on a device: {on_device}")
    mine = run_ours(trial)
    found = explanation(trial, mine, [[], *([each] for each in applying), applying])
    if found is None and trial.name in OWN_ORDER and equally_aligned(trial):
        return [*agreed, TIES]
    if found is None:
        raise UnexplainedError(f"{trial}\n{difference_between(mine, changed_mmdet(trial, applying))}")
    return found


def explanation(trial: Trial, mine: Result, choices: Sequence[list[Difference]]) -> list[str] | None:
    """Names of the first differences with which mmdet decides as ours does, None where none of the choices do."""
    for chosen in choices:
        for rounding, round_evenly in ((nullcontext, False), (even_rounding, True)):
            try:
                with rounding():
                    reference = changed_mmdet(trial, chosen)
            except (RuntimeError, IndexError, TypeError, AssertionError):  # what mmdet raises where it can't cope
                break
            if same(mine, reference):
                return [each.name for each in chosen] + [ROUNDING] * round_evenly
    return None
