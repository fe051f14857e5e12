"""One fault on one assigner: tried in several ways of calling, judged, and given a letter."""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from reliability.faults import Fault
from reliability.judges import KEPT, Trial, like_mmdet, positive_row, well_formed
from reliability.subjects import IMAGE, Scene, Subject
from reliability.ways import Way, ways_of
from visdet_assigners import inputs, settings

DEVICE_PATH = "VISDET_ASSIGNERS_DEVICE_PATH"


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: a letter as in mmdet's, or K for mmdet's documented behaviour, and why where it is bad."""

    letter: str
    why: str = ""

    @property
    def bad(self) -> bool:
        return self.letter in "XWO"


@contextmanager
def telling_again() -> Iterator[list[Any]]:
    """Collect warnings, also those that are given once."""
    inputs.warned.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


@contextmanager
def as_on_device(policy: str | None) -> Iterator[None]:
    """Take the way of a device, on the CPU, with this policy."""
    before = os.environ.get(DEVICE_PATH)
    os.environ[DEVICE_PATH] = "1"
    try:
        with under(policy):
            yield
    finally:
        os.environ.pop(DEVICE_PATH)
        if before is not None:
            os.environ[DEVICE_PATH] = before


@contextmanager
def under(policy: str | None) -> Iterator[None]:
    """The package's policy for what is not finite."""
    settings.set_on_nonfinite(policy)  # type: ignore[arg-type]
    try:
        yield
    finally:
        settings.set_on_nonfinite(None)


def worst_of_all_ways(fault: Fault, subject: Subject, policy: str | None = None) -> Outcome:
    """The worst of all ways of calling, on a CPU and as on a device; of memory, ``assign`` alone."""
    if fault.oversized:
        return try_out(fault, subject, ways_of(subject)[0])
    outcomes = []
    for way in ways_of(subject):
        if not way.applies(fault.number):
            continue
        with under(policy):
            outcomes.append(try_out(fault, subject, way))
        with as_on_device(policy or "raise"):
            outcomes.append(try_out(fault, subject, way, tells=False))
    return next((outcome for outcome in outcomes if outcome.bad), outcomes[0])


def try_out(fault: Fault, subject: Subject, way: Way, tells: bool = True) -> Outcome:
    """Spoil the clean scene, call, and judge.

    Args:
        fault: of the table.
        subject: to whom it applies.
        way: how the subject is called.
        tells: whether warnings can be expected, which need a look at values.
    """
    scene = subject.scene()
    fault.spoil(subject, scene)
    before = copy.deepcopy((scene.pred, scene.gt, scene.ignore)) if not fault.oversized else ({}, {}, None)
    with telling_again() as caught:
        try:
            result = way.call(scene) if not fault.oversized else None
        except Exception as error:
            return refusal(fault, subject, way, error)
    if fault.required(subject) == "E":
        return Outcome("W", "accepted")
    trial = Trial(subject, scene, result, way.call)
    assert fault.judge is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        complaint = "" if fault.oversized else well_formed(trial) or changed(before, scene)
        judge = fault.judge if fault.required(subject) == "R" else KEPT.get(fault.number, like_mmdet)
        complaint = complaint or judge(trial)
    if complaint:
        return Outcome("O", complaint[3:]) if complaint.startswith("O: ") else Outcome("W", complaint)
    wanted = fault.warns if (tells and way.warns) or fault.constructor else ""
    if (fault.keeps and subject.code not in fault.keeps.split()) or subject.truth == "masks":
        wanted = ""  # an empty mask may be one of a few points that were drawn
    told = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    if wanted and not (len(told) == 1 and re.search(wanted, told[0]) and way.who in told[0]):
        return Outcome("W", f"warnings: {told}")
    if not wanted and told and not fault.warns:
        return Outcome("W", f"warnings: {told}")
    return Outcome(fault.required(subject))


def refusal(fault: Fault, subject: Subject, way: Way, error: Exception) -> Outcome:
    """The letter of an error: E where it is right and names the assigner, the field, the image and the value."""
    text = f"{type(error).__name__}: {error}".split("\n")[0]
    if fault.required(subject) != "E":
        return Outcome("X", text)
    fields = dict(
        truth=subject.truth, boxes=subject.boxes, counts=subject.counts,
        row=positive_row(subject) if "{row}" in fault.names else None,
    )  # fmt: skip
    pattern = re.sub(r"\{(truth|boxes|counts|row)\}", lambda found: str(fields[found[1]]), way.pattern(fault.names))
    has_image = fault.constructor or not way.has_image or fault.number == "E20" or f"(image {IMAGE})" in str(error)
    named = len(re.findall(rf"\b{way.who}\b", text)) == 1 or (
        fault.number == "G05" and "Cost: " in text
    )  # a cost knows no assigner
    clear = isinstance(error, (ValueError, NotImplementedError)) and named
    return Outcome("E") if clear and has_image and re.search(pattern, str(error)) else Outcome("X", text)


def changed(before: tuple[Any, ...], scene: Scene) -> str:
    """Whether the call changed its inputs."""
    for old, new in zip(before, (scene.pred, scene.gt, scene.ignore)):
        for name, value in (old or {}).items():
            same = torch.equal(tensor(value), tensor(new[name])) or not torch.equal(tensor(value), tensor(value))
            if not same:
                return f"{name} was changed"
    return ""


def tensor(value: Any) -> torch.Tensor:
    return torch.as_tensor(getattr(value, "tensor", value)).detach()
