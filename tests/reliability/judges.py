"""The oracles: what a right answer is.  Each looks at a trial and says what is wrong, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from references import plain_scale_range
from reliability.subjects import BOXES, CROWDS, OBJECTS, SUBJECTS, Scene, Subject, tokens
from scenes import STRIDES, Objects, anchors, draw_boxes, feature_sizes
from visdet_assigners.assigners.scale_range import RANGES
from visdet_assigners.testing.measure import peak_memory
from visdet_assigners.testing.plain import PLAIN
from visdet_assigners.testing.trial import Trial as Call

if TYPE_CHECKING:
    from reliability.faults import Spoil

BAD = 2
BUDGET = 2**30
"""Bytes that a call may take beyond its inputs."""


@dataclass(frozen=True)
class Trial:
    """A result with all that is needed to judge it.

    Attributes:
        subject: who gave it.
        scene: what it was given.
        result: what it gave.
        again: the same way of calling, for other scenes.
    """

    subject: Subject
    scene: Scene
    result: Any
    again: Callable[[Scene], Any]

    @property
    def num_priors(self) -> int:
        return len(next(iter(self.scene.pred.values())))

    def scene_with(self, spoil: Spoil) -> Scene:
        scene = self.subject.scene()
        spoil(self.subject, scene)
        return scene


Judge = Callable[[Trial], str]


def pairs(subject: Subject, result: Any) -> set[tuple[int, int]]:
    """The positives: (row, ground truth) from 0."""
    if subject.code == "MU":
        row, column = (result.labels == 1).nonzero().unbind(1)
        return set(zip(row.tolist(), result.gt_inds[row, column].tolist()))
    rows = (result.gt_inds > 0).nonzero()[:, 0]
    return set(zip(rows.tolist(), (result.gt_inds[rows] - 1).tolist()))


@cache
def positive_row(subject: Subject) -> int:
    """A row that is positive for another ground truth than the spoilt one in the clean scene."""
    found = pairs(subject, subject.assign(subject.scene()))
    return min(row for row, gt in found if gt not in (0, BAD))


def well_formed(trial: Trial) -> str:
    """Length, types, range of values, labels that agree, no gradient."""
    result, labels, size = trial.result, trial.scene.gt.get("labels"), trial.num_priors
    if trial.subject.code == "MU":
        regions = 0 if trial.scene.ignore is None else len(trial.scene.ignore["bboxes"])
        shape, count = (size + len(labels) + regions, 2), len(labels) + regions
        if result.num_gts != count or any(
            getattr(result, name).shape != shape for name in ("gt_inds", "labels", "max_overlaps")
        ):
            return f"shapes {result} for {size} priors and {count} boxes"
        return "" if not count or 0 <= result.gt_inds.min() <= result.gt_inds.max() < count else "indices out of range"
    if result.gt_inds.dtype != torch.long or result.labels.dtype != torch.long:
        return f"types {result.gt_inds.dtype}, {result.labels.dtype}"
    if result.gt_inds.shape != (size,) or result.labels.shape != (size,) or result.num_gts != len(labels):
        return f"shapes {result} for {size} priors and {len(labels)} ground truths"
    if size and not -1 <= result.gt_inds.min() <= result.gt_inds.max() <= len(labels):
        return "values out of range"
    positive = result.gt_inds > 0
    if not torch.equal(result.labels[positive], labels.flatten()[result.gt_inds[positive] - 1].long()):
        return "labels that are not those of the ground truths"
    if (result.labels[~positive] != -1).any():
        return "labels where nothing is matched"
    overlaps = result.max_overlaps
    if overlaps is not None:
        own = overlaps if trial.subject.code == "TH" else overlaps[positive]
        if not own.isfinite().all() or overlaps.requires_grad:
            return "overlaps that are not finite or carry a gradient"
    return ""


def compare(subject: Subject, mine: Any, other: Any, share: float = 0.0) -> str:
    """Two results must agree in all that heads read, up to a share of the positives."""
    if mine.gt_inds.shape != other.gt_inds.shape:
        return f"{tuple(mine.gt_inds.shape)} rows instead of {tuple(other.gt_inds.shape)}"
    here, there = pairs(subject, mine), pairs(subject, other)
    if len(here ^ there) > share * len(there):
        return f"{len(there - here)} positives lost, {len(here - there)} gained"
    if share == 0.0:
        if subject.code != "MU" and not torch.equal(mine.gt_inds, other.gt_inds):
            return f"{int((mine.gt_inds != other.gt_inds).sum())} priors change sides"
        positive = mine.labels >= 0
        if not torch.equal(mine.labels[positive], other.labels[positive]):
            return "other labels"
    return ""


def background(trial: Trial) -> str:
    """Everything is negative."""
    inds, labels = trial.result.gt_inds, trial.result.labels
    if trial.subject.code == "MU":
        return "" if (labels == 0).all() else "not all background"
    valid = trial.scene.pred.get("valid_flags")
    outside = torch.zeros_like(inds, dtype=torch.bool) if valid is None else inds == -1
    return "" if ((inds == 0) | outside).all() and (labels == -1).all() else "not all background"


def empty(trial: Trial) -> str:
    """Nothing in, nothing out; MultiInstance appends the boxes."""
    rows = len(trial.scene.gt["labels"]) if trial.subject.code == "MU" else 0
    return "" if len(trial.result.gt_inds) == rows else f"{len(trial.result.gt_inds)} rows"


def coincides(trial: Trial) -> str:
    """The first prediction is positive for the one ground truth, that it stands on."""
    rows = {pair for pair in pairs(trial.subject, trial.result) if pair[0] < trial.num_priors}
    return "" if (0, 0) in rows else f"positives {sorted(rows)}"


def crowded(trial: Trial) -> str:
    """Fewer predictions than ground truths: each is matched, or it is as in mmdet where mmdet copes."""
    if trial.subject.code in ("PT", "SR", "MI", "AM", "AS", "RK") or "Hungarian" in trial.subject.name:
        rows = pairs(trial.subject, trial.result)
        return "" if rows == {(0, 0), (1, 1)} else f"positives {sorted(rows)}"
    if trial.subject.code == "UN":  # the last of those who take both overlaps neither
        return "" if trial.result.gt_inds.tolist() == [-1, -1] else f"{trial.result.gt_inds.tolist()}"
    return like_mmdet(trial)


def same_as(spoil: Spoil) -> Judge:
    """Equal to the assignment of another scene."""
    return lambda trial: compare(trial.subject, trial.result, trial.again(trial.scene_with(spoil)))


def nearly_same_as(spoil: Spoil) -> Judge:
    """The same within 5 % of the positives, as far as float32 can see."""
    return lambda trial: compare(trial.subject, trial.result, trial.again(trial.scene_with(spoil)), share=0.05)


class PlainScaleRange:
    """FCOS's rule in plain loops, since mmdet has no assigner of it."""

    def assign(self, pred: Any, levels: Any, gt: Any, ignore: Any) -> Any:
        index = torch.tensor(plain_scale_range(pred.priors, gt.bboxes, levels, RANGES, STRIDES, 1.5))
        labels = torch.where(index >= 0, gt.labels[index.clamp(min=0)], -1)
        return SimpleNamespace(gt_inds=index + 1, labels=labels)


def like_mmdet(trial: Trial) -> str:
    """Equal to mmdet's."""
    if trial.subject.code == "SR":
        reference = PlainScaleRange().assign(
            SimpleNamespace(**trial.scene.pred), list(trial.scene.levels), SimpleNamespace(**trial.scene.gt), None
        )
    elif trial.subject.code == "SC":
        reference = SUBJECTS[2].assign(trial.scene, reference=True)
    elif trial.subject.name in PLAIN:
        fields = PLAIN[trial.subject.name](
            Call(trial.subject.name, {**trial.subject.options, **trial.scene.options}, trial.scene.pred, trial.scene.gt)
        )
        reference = SimpleNamespace(**fields)
    elif trial.subject.code == "MU" and len(trial.scene.gt["labels"]) < 2:  # mmdet fails or mixes up the proposals
        found = {gt for row, gt in pairs(trial.subject, trial.result) if row < trial.num_priors}
        return "" if found == {0} else "no positive for the ground truth"
    else:
        reference = trial.subject.assign(trial.scene, reference=True)
        if trial.subject.code == "RE":
            reference.labels = torch.where(reference.gt_inds > 0, reference.labels, -1)
    return compare(trial.subject, trial.result, reference)


def dropped(trial: Trial) -> str:
    """The bad ground truth gets nothing and the others what they get without it; one to one, each is matched once."""
    found = pairs(trial.subject, trial.result)
    if trial.subject.one_to_one:
        return matched_once(trial)
    if trial.subject.code == "TH":
        counts = [sum(gt == number for _, gt in found) for number in range(len(trial.scene.gt["labels"]))]
        return "" if counts == [4] * len(counts) else f"matched {counts} times"
    return others_undisturbed(trial, found)


def matched_once(trial: Trial) -> str:
    """Each ground truth has one prediction."""
    counts = [sum(gt == number for _, gt in pairs(trial.subject, trial.result)) for number in range(len(BOXES))]
    return "" if counts == [1] * len(BOXES) else f"matched {counts} times"


def replaced_truth(trial: Trial) -> str:
    """The bad ground truth gets nothing, also where matching is one to one."""
    return others_undisturbed(trial, pairs(trial.subject, trial.result))


def others_undisturbed(trial: Trial, found: set[tuple[int, int]]) -> str:
    rows = trial.num_priors
    if any(gt == BAD and row < rows for row, gt in found):
        return f"{sum(gt == BAD for _, gt in found)} positives for the bad ground truth"
    without = trial.scene.copy()
    kept = torch.arange(len(without.gt["labels"])) != BAD
    without.gt = {name: value[kept] for name, value in without.gt.items()}
    expected = {(row, gt + (gt >= BAD)) for row, gt in pairs(trial.subject, trial.again(without)) if row < rows}
    found = {(row, gt) for row, gt in found if row < rows}
    return "" if found == expected else f"{len(expected - found)} positives of others lost, {len(found - expected)} won"


def row_out(trial: Trial) -> str:
    """The bad candidate is not positive, and the others are what they are without it."""
    row, found = positive_row(trial.subject), pairs(trial.subject, trial.result)
    if any(each == row for each, _ in found):
        return "the bad candidate is positive"
    without = trial.scene.copy()
    kept = torch.arange(trial.num_priors) != row
    without.pred = {name: value[kept] for name, value in without.pred.items()}
    if without.levels:
        level = next(index for index in range(len(without.levels)) if sum(without.levels[: index + 1]) > row)
        without.levels = [size - (index == level) for index, size in enumerate(without.levels)]
    expected = {(each + (each >= row), gt) for each, gt in pairs(trial.subject, trial.again(without))}
    return "" if found == expected else f"{len(expected - found)} positives of others lost, {len(found - expected)} won"


def never_wins(trial: Trial) -> str:
    """An inverted prediction is not matched; where it counts by its place alone, as mmdet has it."""
    if trial.subject.code == "UN":
        return like_mmdet(trial)
    return row_out(trial)


def nothing_matched(trial: Trial) -> str:
    """All predictions are bad: nothing is positive."""
    return "positives among bad predictions" if pairs(trial.subject, trial.result) else ""


def region_ignored(trial: Trial) -> str:
    """The bad region counts for nothing, the other one still does."""
    assert trial.scene.ignore is not None
    without = trial.scene.copy()
    without.ignore = {name: value[:1] for name, value in without.ignore.items()}
    expected = trial.again(without)
    if trial.subject.code != "MU":
        return compare(trial.subject, trial.result, expected)
    rows = trial.num_priors + len(trial.scene.gt["labels"])
    here, there = ({each for each in pairs(trial.subject, one) if each[0] < rows} for one in (trial.result, expected))
    return "" if here == there else f"{len(there - here)} positives lost, {len(here - there)} gained"


def forced(trial: Trial) -> str:
    """As in mmdet, up to which of equally dear points the ground truth outside is forced upon."""
    reference = trial.subject.assign(trial.scene, reference=True)
    (mine, own), (other, theirs) = (
        ({pair for pair in found if pair[1] != BAD}, sum(gt == BAD for _, gt in found))
        for found in (pairs(trial.subject, trial.result), pairs(trial.subject, reference))
    )
    return "" if mine == other and own == theirs else f"{own} positives instead of {theirs}, or others disturbed"


def without_gradient(trial: Trial) -> str:
    """The result keeps no graph and is that of the clean call."""
    if trial.result.max_overlaps is not None and trial.result.max_overlaps.requires_grad:
        return "max_overlaps carries a gradient"
    return compare(trial.subject, trial.result, trial.again(trial.subject.scene()))


def not_negative_inside(trial: Trial) -> str:
    """No prior inside the crowd region is negative; or mmdet's result where the method has no ignore regions."""
    if trial.subject.code in ("MI", "AM", "AT", "AS", "RK", "HI", "SC"):
        x1, y1, x2, y2 = CROWDS[0]
        priors = trial.scene.pred["priors"]
        inside = (priors[:, :2] >= torch.stack([x1, y1])).all(1) & (priors[:, 2:] <= torch.stack([x2, y2])).all(1)
        if not inside.any() or (trial.result.gt_inds[inside] == 0).any():
            return "priors inside the region are negative"
        if trial.subject.name in PLAIN:  # whose loops know no regions
            return ""
    return like_mmdet(trial)


REPLACED: dict[str, Judge] = {
    "B01": replaced_truth,
    "B02": replaced_truth,
    "B03": row_out,
    "B04": row_out,
    "B05": row_out,
    "B06": row_out,
    "B07": row_out,
    "B09": nothing_matched,
    "B10": region_ignored,
    "B11": row_out,
    "C08": replaced_truth,
}
"""What ``on_nonfinite='replace'`` makes of the faults that are errors by default."""

KEPT: dict[str, Judge] = {"C05": forced}
"""How mmdet's documented behaviour is known where it is not by an equal result."""


# ------------------------------------------------------------------------------------------------------------ memory


def fill(subject: Subject, scene: Scene, count: int, image: tuple[int, int], ratios: int, queries: int) -> None:
    """Put a large scene in place of the small one."""
    boxes = draw_boxes(3 * count, image, "small", seed=0)[:count]
    assert len(boxes) == count
    objects = Objects("large", boxes, torch.arange(count) % 80, boxes[:0], image, num_classes=80)
    if subject.boxes is not None and not subject.priors:
        return fill_queries(subject, scene, objects, queries)
    shapes = (0.5, 1.0, 2.0)[:ratios] if ratios > 1 else (1.0,)
    priors, levels = anchors(objects, ratios=shapes)
    pred: dict[str, Tensor] = {"priors": priors}
    if "approxs" in subject.priors:
        pred["approxs"] = priors[:, None].repeat(1, 9, 1)
    if subject.code in ("SO", "DS", "PT", "PO"):
        stride = torch.cat([priors.new_full((size, 2), stride) for size, stride in zip(levels, STRIDES)])
        pred["priors"] = torch.cat([(priors[:, :2] + priors[:, 2:]) / 2, stride], dim=1)
    if subject.boxes:
        shift = torch.rand(priors.shape, generator=torch.Generator().manual_seed(1))
        pred[subject.boxes] = priors + shift * torch.tensor([-4.0, -4.0, 4.0, 4.0])
    if subject.scores:
        pred["scores"] = torch.rand(len(priors), 80, generator=torch.Generator().manual_seed(2))
    for flags in ("responsible_flags", "valid_flags"):
        if flags in scene.pred:
            pred[flags] = torch.ones(len(priors), dtype=torch.bool)
    scene.pred, scene.gt = pred, {"bboxes": objects.boxes, "labels": objects.labels}
    scene.levels, scene.feature_sizes = levels if subject.levels else (), feature_sizes(image, STRIDES)
    scene.meta = dict(img_shape=image, img_path="scene.png")


def fill_queries(subject: Subject, scene: Scene, objects: Objects, count: int) -> None:
    """Queries in place of priors."""
    g = torch.Generator().manual_seed(1)
    pred = {"scores": torch.rand(count, 80, generator=g)}
    if subject.boxes == "masks":
        pred["masks"] = torch.randn(count, 60, 80, generator=g)
        scene.gt = {"masks": torch.zeros(len(objects.boxes), 60, 80), "labels": objects.labels}
        scene.gt["masks"][:, 10:20, 20:40] = 1
    else:
        pred["bboxes"] = draw_boxes(2 * count, objects.image, "mixed", seed=2)[:count]
        scene.gt = {"bboxes": objects.boxes, "labels": objects.labels}
    scene.pred, scene.meta = pred, dict(img_shape=objects.image, img_path="scene.png")


def bounded(trial: Trial) -> str:
    """The call takes less than a gigabyte beyond its inputs."""
    taken = peak_memory(lambda: trial.again(trial.scene), torch.device("cpu"))
    return "" if taken < BUDGET else f"O: {taken / 2**20:.0f} MiB"


__all__ = ["OBJECTS", "SUBJECTS", "tokens"]
