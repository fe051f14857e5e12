"""Ours and mmdet's assigners called alike on a trial, and how mmdet's are made to order ties by index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.task_modules import assigners as theirs
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

import visdet_assigners as ours
from visdet_assigners.functional.tensors import evenly
from visdet_assigners.testing.plain import PLAIN
from visdet_assigners.testing.trial import Trial

Result = dict[str, Tensor]
"""Fields of a result by name: ``gt_inds``, ``labels``, ``max_overlaps`` and extras; what is None is left out."""
PADDING = torch.tensor([-1354.0, -1344.0, -1354.0, -1344.0])
"""The box with which mmdet 2 pads a batch."""


def call_of(assigner: Any, trial: Trial) -> list[Any]:
    """Call an assigner, ours or mmdet's, as its heads do: one result for each image."""
    pred, gt, ignore = trial.instances
    meta, rest = {"img_shape": trial.image, "img_path": "scene.png"}, trial.rest
    name = trial.name
    if name in ("ATSSAssigner", "ScaleRangeAssigner", "ScheduledAssigner"):
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
    if trial.name in PLAIN:  # mmdet has no such class
        return PLAIN[trial.name](trial)
    if trial.name == "ScheduledAssigner":
        (first, *_), trial = trial.config["assigners"], replace(trial, name="ATSSAssigner")
        trial = replace(trial, config={key: value for key, value in first.items() if key != "type"})
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
