"""Fuzzing: whether our assigner decides as mmdet's on the same call.

A trial passes when ours decides as mmdet's does, or as mmdet's does on the call changed by the argued differences
that apply to it: a threshold a little above 0, a ground truth of no area left out.  Ties are checked apart, by index:
mmdet's with stable sorts in place of ``torch.topk``, ours with ``deterministic``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from mmdet.models.task_modules import assigners as theirs

from visdet_assigners.testing.differences import DIFFERENCES, LABELS, REGIONS, Difference, with_padding
from visdet_assigners.testing.oracle import Result, even_rounding, joined, run_mmdet, run_ours, stable_order
from visdet_assigners.testing.trials import Trial

TIES = "equally aligned predictions, in another order"
ROUNDING = "mmdet's rounding of the last entries"
OWN_ORDER = ("TaskAlignedAssigner",)
"""Those that choose among the pairs that overlap, so that ``torch.topk`` doesn't see what it sees in mmdet."""


class UnexplainedError(AssertionError):
    """Ours and mmdet's decide differently, and no argued difference says why."""


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
