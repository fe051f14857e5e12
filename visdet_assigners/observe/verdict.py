"""Say in words what is wrong with how objects are assigned, and which knob or assigner to try."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from visdet_assigners.registry import REGISTERED

# Shares and factors from which a finding is told.  Below them every detector that trains well has some.
_WITHOUT = 0.02  # objects without a positive
_UNEVEN = 4.0  # positives of one size class over those of another
_FEW = 2.0  # positives of the median object of a size class
_POOR = 0.3  # quality of the median object
_CONTESTED = 0.75  # positives inside several objects; half of them in COCO
_IGNORED = 0.1  # priors left out
_UNSETTLED = 0.25  # objects whose query changes from layer to layer
_ENOUGH = 10  # objects of a kind, to speak of it

_LOST = 3  # objects of a class without a positive, to name the class
_ONE_TO_ONE = ("HungarianAssigner", "MaskHungarianAssigner", "TopkHungarianAssigner")


@dataclass(frozen=True)
class Finding:
    """One thing that stands out.

    Attributes:
        text: what it is, with numbers.
        advice: what to try; '' where there is nothing to do.
        wrong: whether it harms training, rather than being worth knowing.
    """

    text: str
    advice: str = ""
    wrong: bool = True


def findings(summary: Mapping[str, Any], assigner: str) -> list[Finding]:
    """Tell what stands out in the numbers of one assigner, what harms most first.

    Args:
        summary: of ``statistics.summarize``, perhaps with ``layer_changes``, ``reads_predictions``,
            ``random_weights``, and ``alternatives``, the assigners that its head can feed: no other is advised.
        assigner: class name.

    Returns:
        One finding at least.
    """
    if summary.get("random_weights") and summary["reads_predictions"]:
        return [Finding("the weights are random, so these numbers mean nothing", "give a CHECKPOINT")]
    if not summary["objects"]:
        return [Finding("there are no objects", "check the annotation file and the filters of the data set")]
    advice = getattr(REGISTERED.get(assigner), "knobs", "")
    if assigner == "MaxIoUAssigner" and _possible(summary, "ATSSAssigner"):
        advice += "; ATSSAssigner sets a threshold for each object"
    if assigner == "MaxIoUAssigner" and summary.get("reads_predictions"):
        advice = "lower pos_iou_thr; or more proposals (nms_pre and max_per_img of the proposal network)"
    found = [*_without(summary, advice), *_classes(summary)]
    if assigner not in _ONE_TO_ONE:
        found += [*_few(summary, advice), *_uneven(summary, assigner)]
    found += [*_quality(summary), *_priors(summary), *_levels(summary), *_layers(summary)]
    for earlier, later in itertools.combinations(range(len(found)), 2):
        if found[later].advice == found[earlier].advice:  # once is enough
            found[later] = replace(found[later], advice="")
    return found or [Finding("nothing stands out: objects of all sizes get positives", wrong=False)]


def _without(summary: Mapping[str, Any], advice: str) -> Iterator[Finding]:
    share = summary["without"]
    count = round(share * summary["objects"])
    if not count:
        return
    text = f"{_percent(share)} of the objects ({count} of {summary['objects']}) get no positive and so aren't learned"
    sizes = {name: row["without"] for name, row in _size_classes(summary) if row["without"]}
    if sizes:
        text += f" ({', '.join(f'{_percent(lost)} of the {name}' for name, lost in sizes.items())} ones)"
    yield Finding(text, advice, wrong=max(share, *sizes.values(), 0) >= _WITHOUT)


def _few(summary: Mapping[str, Any], advice: str) -> Iterator[Finding]:
    few = [(name, row["median_positives"]) for name, row in _size_classes(summary) if row["median_positives"] < _FEW]
    if few:
        text = ", ".join(f"{name} ones {count:g}" for name, count in few)
        yield Finding(f"objects get few positives in the median: {text}", advice)


def _uneven(summary: Mapping[str, Any], assigner: str) -> Iterator[Finding]:
    rows = [(row["median_positives"], name) for name, row in _size_classes(summary)]
    if len(rows) < 2:
        return
    (fewest, poor), (most, rich) = min(rows), max(rows)
    if most >= _UNEVEN * max(fewest, 1):
        possible = _possible(summary, "ATSSAssigner")
        advice = "ATSSAssigner gives objects of all sizes about the same number" if possible else ""
        if assigner == "ATSSAssigner":
            advice = "levels too few for the sizes: add a finer level" if poor == "small" else ""
        yield Finding(f"{rich} objects get {most:g} positives in the median, {poor} ones {fewest:g}", advice)


def _classes(summary: Mapping[str, Any]) -> Iterator[Finding]:
    usual = max(summary["without"], _WITHOUT)
    poor = [
        row
        for row in summary["by_class"]
        if row["without"] > 3 * usual and row["without"] * row["objects"] > _LOST - 0.5 and row["objects"] >= _ENOUGH
    ]
    if poor and len(summary["by_class"]) > 1:
        worst = sorted(poor, key=lambda row: -row["without"])[:3]
        names = ", ".join(f"{row['class']} ({_percent(row['without'])}, {row['median_size']:.0f} px)" for row in worst)
        yield Finding(f"some classes have far more objects without a positive than the others: {names}")


def _quality(summary: Mapping[str, Any]) -> Iterator[Finding]:
    quality = summary["quality"]["median"]
    if quality is not None and quality < _POOR:
        advice = "anchors with scales and ratios nearer to those of the objects"
        if summary.get("reads_predictions"):
            advice = "train on: predictions are still poor; or give boxes more weight in the cost"
        text = f"positives fit their objects badly: mean quality {quality:.2f} in the median object"
        yield Finding(text, advice, wrong=False)


def _priors(summary: Mapping[str, Any]) -> Iterator[Finding]:
    priors = summary["priors"]
    if priors["ignored"] > _IGNORED * priors["total"]:
        yield Finding(
            f"{_percent(priors['ignored'] / priors['total'])} of the priors are ignored",
            "check ignore_iof_thr, and whether the gap between the thresholds is meant",
        )
    if priors["contested"] > _CONTESTED * max(priors["positive"], 1):
        yield Finding(
            f"{_percent(priors['contested'] / priors['positive'])} of the positives lie inside several objects",
            f"a crowd: {_for_crowds(summary)}",
            wrong=False,
        )


def _for_crowds(summary: Mapping[str, Any]) -> str:
    """What tells neighbours apart better, of what the head can feed."""
    names = [name for name in ("SimOTAAssigner", "TaskAlignedAssigner") if _possible(summary, name)]
    if names:
        return f"assigners that look at predictions ({', '.join(names)}) tell neighbours apart better"
    return (
        "CrowdDet's head, with several objects for each proposal, or one of DETR's line tells neighbours apart better"
    )


def _possible(summary: Mapping[str, Any], name: str) -> bool:
    """Whether the head can feed an assigner of that name; unknown heads can."""
    alternatives = summary.get("alternatives")
    return alternatives is None or name in alternatives


def _levels(summary: Mapping[str, Any]) -> Iterator[Finding]:
    unused = [name for name, count in summary["by_level"].items() if not count]
    if unused and summary["objects"] >= 10 * _ENOUGH:
        yield Finding(
            f"no object has a positive at {', '.join(unused)}",
            "the objects are of other sizes: leave these levels out, or shift the strides",
            wrong=False,
        )


def _layers(summary: Mapping[str, Any]) -> Iterator[Finding]:
    changes = summary.get("layer_changes") or []
    if changes and max(changes) > _UNSETTLED:
        yield Finding(
            f"up to {_percent(max(changes))} of the objects change their query from one layer to the next",
            "unsettled matching learns slowly: train on, or look at denoising queries (DINO)",
            wrong=False,
        )


def _size_classes(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Size classes with enough objects to speak of them."""
    return [(name, row) for name, row in summary["by_size_class"].items() if row["objects"] >= _ENOUGH]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
