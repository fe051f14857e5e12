"""Whether a device decides as the CPU does: assigners, costs, calculators, precision, numbers that are not finite."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

import visdet_assigners
from visdet_assigners import iou_calculators
from visdet_assigners.assigners.calling import to_device
from visdet_assigners.errors import AssignerInputError
from visdet_assigners.match_costs import BaseMatchCost
from visdet_assigners.registry import REGISTERED
from visdet_assigners.testing.feeds import ground_truths, meta, proposals, queries
from visdet_assigners.testing.gpu.cases import Call, Case, assign, assign_batch, cases, scene, tensors_of, working_on
from visdet_assigners.testing.gpu.outcomes import FailedError, Numbers, Session, SkippedError, compare
from visdet_assigners.testing.measure import OperatorCounter
from visdet_assigners.testing.scenes import Objects, generator

HALVES = (torch.float16, torch.bfloat16)
MOST_WAITS = 4
"""Synchronisations that matching on the host may take, whatever the number of images: a copy there, one back, and for
tests of what was copied."""


def scenes(session: Session) -> list[Objects]:
    """Scenes without objects, with few and many, of all sizes."""
    few = [scene(12), scene(0)]
    return few if session.quick else [*few, scene(3, 5), scene(40, 7, "small"), scene(50, 9), scene(1, 11)]


def run_parity(session: Session) -> None:
    """All checks of this file."""
    for case in cases():
        session.check("decisions", case.name, decides_as_the_cpu, case)
    for name, cls in sorted(REGISTERED.items()):
        if issubclass(cls, BaseMatchCost) and not inspect.isabstract(cls):
            session.check("costs", name, costs_as_on_the_cpu, cls)
        elif cls.__module__ == iou_calculators.__name__:
            session.check("costs", name, overlaps_as_on_the_cpu, cls)
    for case in cases():
        session.check("waits", case.name, does_not_wait, case)
    for case in cases():
        session.check("half precision", case.name, half_precision_decides_alike, case)
    for case in cases():
        session.check("not finite", case.name, bad_numbers_are_told_or_left_out, case)


# --------------------------------------------------------------------------------------------------------- decisions


def decides_as_the_cpu(session: Session, case: Case) -> tuple[str, Numbers]:
    """One by one and in a batch, ties by index."""
    calls, worst, count = [case.call(objects) for objects in scenes(session)], "", 0
    expected = [tensors_of(assign(case.build(deterministic=True), call)) for call in calls]
    numbers: Numbers = {}
    with working_on(session.device):
        there = [call.on(session.device) for call in calls]
        single = [assign(case.build(deterministic=True), call) for call in there]
        batch = assign_batch(case.build(deterministic=True), there)
    for mine in (single, batch):
        for result, reference in zip(mine, expected, strict=True):
            if result.gt_inds.device.type != session.device.type:
                raise FailedError(f"the result is on {result.gt_inds.device}")
            worst, found = compare(tensors_of(result), reference)
            numbers |= {name: max(value, numbers.get(name, 0)) for name, value in found.items()}
            count += 1
    return f"{count} results {worst.partition(';')[0]}", numbers


def close(mine: torch.Tensor, reference: torch.Tensor) -> tuple[str, Numbers]:
    """Compare costs or overlaps."""
    equal = int((mine.cpu() == reference).sum())
    text, numbers = compare({"values": mine.cpu()}, {"values": reference})
    return f"{text}; {equal} of {reference.numel()} to the last bit", {**numbers, "equal": equal}


def costs_as_on_the_cpu(session: Session, cls: type[BaseMatchCost]) -> tuple[str, Numbers]:
    """A match cost with its defaults, of every pair."""
    objects = scene(12)
    pred, gt = queries(objects), ground_truths(objects)
    gt.text_token_mask = (torch.arange(objects.num_classes) < objects.num_classes - 2).repeat(len(gt), 1)
    gt.positive_maps = (torch.rand(len(gt), objects.num_classes, generator=generator(11)) < 0.3).float()
    try:
        cost: Any = cls()
    except TypeError as error:
        raise SkippedError(f"it has no defaults: {error}") from None
    reference = cost(pred, gt, meta(objects))
    with working_on(session.device):
        return close(cost(to_device(pred, session.device), to_device(gt, session.device), meta(objects)), reference)


def overlaps_as_on_the_cpu(session: Session, cls: Callable[..., Any]) -> tuple[str, Numbers]:
    """An IoU calculator, pairwise and pair by pair."""
    objects = scene(12)
    boxes, calculator = proposals(objects, 60, seed=3), cls()
    pairs = [(boxes, objects.boxes, "iou", False), (boxes, boxes.flip(0), "iou", True)]
    reference = torch.cat([calculator(*pair).flatten() for pair in pairs])
    with working_on(session.device):
        found = [calculator(*(to_device(each, session.device) for each in pair)) for pair in pairs]
    return close(torch.cat([each.flatten() for each in found]), reference)


# ------------------------------------------------------------------------------------------------------------- waits


@contextmanager
def counting_waits(device: torch.device, forbid: bool) -> Iterator[list[str]]:
    """Note what synchronises with the device inside; where it is forbidden, CUDA makes an error of it.

    On a CPU operators are counted that would.
    """
    waits: list[str] = []
    if device.type != "cuda":
        with OperatorCounter() as counter:
            yield waits
        waits += counter.waits.elements()
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error" if forbid else "warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield waits
        waits += [str(each.message) for each in caught if "synchroniz" in str(each.message)]
    finally:
        torch.cuda.set_sync_debug_mode(before)


def does_not_wait(session: Session, case: Case) -> tuple[str, Numbers]:
    """One image and three: dense assigners never wait, matching as often for three images as for one."""
    objects = [scene(12), scene(5, 3), scene(30, 5)]
    assigner, numbers = case.build(), {}
    with working_on(session.device):
        calls = [case.call(each).on(session.device) for each in objects]
        for name, call in (
            ("one image", lambda: assign(assigner, calls[0])),
            ("three images", lambda: assign_batch(assigner, calls)),
        ):
            call()  # what is done once, as loading kernels
            with counting_waits(session.device, forbid=case.dense) as waits:
                call()
            numbers[f"waits for {name}"] = len(waits)
    most = 0 if case.dense else MOST_WAITS
    if max(numbers.values()) > most:
        raise FailedError(f"waited {numbers}, {most} are allowed", **numbers)
    return "no wait" if case.dense else f"{numbers['waits for one image']} waits, for three images as well", numbers


# --------------------------------------------------------------------------------------- precision, and what is finite


def half_precision_decides_alike(session: Session, case: Case) -> tuple[str, Numbers]:
    """Inputs in half precision give what the same numbers in float32 give; autocast changes nothing."""
    call = case.call(scene(12)).on(session.device)
    kind, numbers = session.device.type, {}
    with working_on(session.device):
        for dtype in HALVES:
            narrow = call.cast(dtype)
            mine = tensors_of(assign(case.build(), narrow))
            reference = tensors_of(assign(case.build(), narrow.cast(torch.float32)))
            # What is handed through, as predicted boxes, keeps its precision.
            mine = {name: each.to(reference[name].dtype) for name, each in mine.items()}
            numbers[str(dtype)] = compare(mine, reference, "float32's")[1]
        reference = tensors_of(assign(case.build(), call))
        for dtype in HALVES:
            with torch.autocast(kind, dtype=dtype):
                numbers[f"autocast {dtype}"] = compare(tensors_of(assign(case.build(), call)), reference, "without")[1]
    return "float16, bfloat16 and autocast decide as float32 does", numbers


def spoilt(case: Case, call: Call) -> Call:
    """NaN in the first row of a field of the predictions that is read, and in the second box of the ground truths."""
    call = call.cast(torch.float32)
    field = next(iter(case.cls.reads)) if case.dense else "scores"
    for instances, name, row in ((call.pred, field, 0), (call.gt, "bboxes", 1)):
        value = getattr(instances, name).clone()
        value[row] = float("nan")
        setattr(instances, name, value)
    return call


def bad_numbers_are_told_or_left_out(session: Session, case: Case) -> tuple[str, Numbers]:
    """NaN raises a named error where that is asked for, and is left out, as on the CPU, where that is."""
    call = spoilt(case, case.call(scene(12)))
    reference = tensors_of(assign(case.build(on_nonfinite="replace", deterministic=True), call))
    there = call.on(session.device)
    visdet_assigners.set_on_nonfinite(None)
    with working_on(session.device):
        try:
            assign(case.build(on_nonfinite="raise"), there)
        except AssignerInputError as error:
            told = str(error)
        else:
            raise FailedError("NaN raised nothing under on_nonfinite='raise'")
        mine = tensors_of(assign(case.build(on_nonfinite="replace", deterministic=True), there))
        if case.dense:
            assign(case.build(), there)  # the default of a device: nothing is raised
    text, numbers = compare(mine, reference)
    return f"replaced: {text}; raised: {told}", numbers
