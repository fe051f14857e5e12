"""Memory, CUDA graphs and compiling: what a device with little memory does, and what is recorded and replayed."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from unittest.mock import patch

import torch

from visdet_assigners.assigners import compiling
from visdet_assigners.assigners.calling import to_device
from visdet_assigners.functional import overlaps
from visdet_assigners.registry import REGISTERED
from visdet_assigners.settings import DEFAULT_BUDGET, memory_budget
from visdet_assigners.testing.benchmarks import SCENES, drawn
from visdet_assigners.testing.gpu.cases import Case, assign, cases, scene, tensors_of, working_on
from visdet_assigners.testing.gpu.outcomes import FailedError, Numbers, Session, SkippedError, compare
from visdet_assigners.testing.measure import peak_memory, time_interleaved

MEGABYTE = 2**20
FREE = 384 * MEGABYTE
"""What is left of the device's memory when it is to run out."""
COMPILED = ("RPN", "ATSS", "TOOD", "YOLOX", "RTMDet")
"""Cases that are compiled: half a minute each."""
LONG = 60.0
"""Seconds that must be left for something to be compiled."""
Mode = bool | Literal["reduce-overhead"]


def run_limits(session: Session) -> None:
    """The checks of memory and of CUDA graphs."""
    session.check("memory", "running out of memory", runs_out_of_memory)
    for budget in (16 * MEGABYTE, DEFAULT_BUDGET):
        session.check("memory", f"a budget of {budget // MEGABYTE} MB", keeps_to_a_budget, budget)
    for case in cases():
        if case.dense:
            session.check("CUDA graphs", case.name, can_be_captured, case)


def run_compiling(session: Session) -> None:
    """The checks of compiling, the longest."""
    for case in cases():
        if case.name in (COMPILED[:1] if session.quick else COMPILED):
            for mode in (True, "reduce-overhead"):
                session.check("compiling", f"{case.name}, {mode}", compiles, case, mode)


def rpn(session: Session, count: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The assigner of an RPN, and its arguments for so many objects on the device."""
    found = SCENES["RPN"]
    image = (240, 320) if session.quick else found.image
    options = {name: value for name, value in found.config.items() if name != "type"}
    arguments = to_device(found.call(drawn(count, image)), session.device)
    return functools.partial(REGISTERED[found.config["type"]], **options), arguments


# ------------------------------------------------------------------------------------------------------------ memory


@contextmanager
def little_memory(session: Session) -> Iterator[None]:
    """Leave little of the device's memory; on a CPU, blocks of more than a megabyte are too large."""
    if not session.cuda:

        def small_only(*args: Any, **kwargs: Any) -> Any:
            if memory_budget() > MEGABYTE:
                raise torch.cuda.OutOfMemoryError("played")
            return split(*args, **kwargs)

        split = overlaps.split
        with patch.object(overlaps, "split", small_only):
            yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(session.device).total_memory
    allowed = torch.cuda.memory_reserved(session.device) + FREE
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), session.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, session.device)
        torch.cuda.empty_cache()


def runs_out_of_memory(session: Session) -> tuple[str, Numbers]:
    """Blocks of gigabytes don't fit; halved ones do, a warning says so once, and the result is the same."""
    make, arguments = rpn(session, 50 if session.quick else 600)
    with working_on(session.device):
        reference = tensors_of(make().assign(*arguments))
        assigner = make(memory_budget=2**34)
        with little_memory(session), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mine = tensors_of(assigner.assign(*arguments))
            assigner.assign(*arguments)
    told = [str(each.message) for each in caught if "ran out of memory" in str(each.message)]
    compare(mine, reference, "with room")
    if len(told) != 1:
        raise FailedError(f"{len(told)} warnings told of it", warnings=told)
    return told[0], {}


def keeps_to_a_budget(session: Session, budget: int) -> tuple[str, Numbers]:
    """The peak of an RPN with many objects, and the result, at a memory budget."""
    make, arguments = rpn(session, 50 if session.quick else 300)
    with working_on(session.device):
        reference = tensors_of(make().assign(*arguments))
        assigner = make(memory_budget=budget)
        compare(tensors_of(assigner.assign(*arguments)), reference, "at another")
        peak = peak_memory(lambda: assigner.assign(*arguments), session.device) if session.cuda else 0
    numbers = {"peak MB": round(peak / MEGABYTE, 1), "budget MB": budget // MEGABYTE}
    if peak > 1.25 * budget + 96 * MEGABYTE:  # what is there for each prior, and sizes that an allocator rounds up
        raise FailedError(f"the peak is {numbers['peak MB']} MB", **numbers)
    return f"the same result; {numbers['peak MB']} MB at the peak" if peak else "the same result", numbers


# ------------------------------------------------------------------------------------------------------- CUDA graphs


def can_be_captured(session: Session, case: Case) -> tuple[str, Numbers]:
    """An ``assign`` captured in a CUDA graph and replayed on other numbers of the same shapes."""
    if not session.cuda:
        raise SkippedError("a CUDA graph needs CUDA")
    first, second = (case.call(scene(12, seed)).on(session.device) for seed in (0, 21))
    if len(first.gt.labels) != len(second.gt.labels):
        raise SkippedError("the scenes have different numbers of objects")
    assigner = case.build()
    reference = tensors_of(assign(assigner, second))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            assign(assigner, first)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = assign(assigner, first)
    for name in ("pred", "gt", "ignore"):
        mine, other = getattr(first, name), getattr(second, name)
        for tensors in [] if mine is None else [(vars_of(mine), vars_of(other))]:
            for field, value in tensors[0].items():
                value.copy_(tensors[1][field])
    graph.replay()
    torch.cuda.synchronize()
    names = ("gt_inds", "labels", "max_overlaps")
    mine = {name: value for name, value in tensors_of(result).items() if name in names}
    text, numbers = compare(mine, {name: reference[name] for name in mine}, "without a graph")
    seconds = {}
    for name, call in (("replay", graph.replay), ("eager", lambda: assign(assigner, second))):
        seconds[name] = time_interleaved([call], rounds=20, warm_up=3)[0].median
    numbers |= {f"{name}, microseconds": round(1e6 * value, 1) for name, value in seconds.items()}
    return f"{text}; {1e6 * seconds['replay']:.0f} us, {1e6 * seconds['eager']:.0f} us eager", numbers


def vars_of(instances: Any) -> dict[str, torch.Tensor]:
    """The tensors that instances hold, by name."""
    items = instances.items() if hasattr(instances, "items") else vars(instances).items()
    return {name: value for name, value in items if isinstance(value, torch.Tensor)}


# --------------------------------------------------------------------------------------------------------- compiling


def compiles(session: Session, case: Case, mode: Mode) -> tuple[str, Numbers]:
    """Compiled work decides as eager work does, whatever the number of objects; and the times.

    Without a device the backend "eager" stands in for the compiler.
    """
    if session.cuda and session.left < LONG:
        raise SkippedError("no time was left")
    numbers: Numbers = {}
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiling.compiled.cache_clear()
    stand_in = torch.compile if session.cuda else _eager_backend()
    with patch.object(torch, "compile", stand_in), working_on(session.device):
        eager, faster = case.build(), case.build(compile=mode)
        start = time.monotonic()
        for _ in range(3):  # the first compiles, the second records, the third replays
            for count in (5, 12) if session.quick else (5, 12, 7, 30):
                call = case.call(scene(count)).on(session.device)
                found, expected = (tensors_of(assign(each, call)) for each in (faster, eager))
                numbers[f"{count} objects"] = compare(found, expected, "eager")[1]
        numbers["seconds of the first calls"] = round(time.monotonic() - start, 1)
        counters = torch._dynamo.utils.counters["inductor"]
        numbers["counters"] = {name: value for name, value in counters.items() if "cudagraph" in name}
        call = case.call(scene(7)).on(session.device)
        calls = [functools.partial(assign, each, call) for each in (faster, eager)]
        times = time_interleaved(calls, rounds=2 if session.quick else 30, warm_up=2)
        if session.cuda:
            numbers["launches"] = [launches(each) for each in calls]
    compiling.compiled.cache_clear()
    compiled, without = numbers["microseconds"] = [round(1e6 * each.median, 1) for each in times]
    return f"as eager; {compiled:.0f} us, {without:.0f} us eager", numbers


def _eager_backend() -> Callable[..., Any]:
    compile = torch.compile

    def traced(function: Any, mode: str | None = None, **options: Any) -> Any:
        return compile(function, backend="eager", **options)

    return traced


def launches(call: Callable[[], Any]) -> dict[str, int]:
    """How often a call launches a kernel, a graph or a copy, as CUDA's profiler counts; empty where it can't."""
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            call()
            torch.cuda.synchronize()
    except RuntimeError:
        return {}
    counted = {event.key: event.count for event in profile.key_averages()}
    return {name: count for name, count in counted.items() if "Launch" in name or "Memcpy" in name}
