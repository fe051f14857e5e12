"""What comes in, looked at: bad numbers are named by field and place, or taken out so that they are never matched.

Which of the two it is to be, 'raise' or 'replace', an assigner says for itself (``on_nonfinite``), else the package
(`set_on_nonfinite`), else the environment variable ``VISDET_ASSIGNERS_ON_NONFINITE``.  Where nobody says, a CPU and the
Hungarian assigners raise, and on a device the others replace: a look at values would have to wait for it.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, NoReturn, get_args

import torch
from torch import Tensor

Policy = Literal["raise", "replace"]
Kind = Literal["boxes", "groups", "predicted", "points", "strided", "scores", "probabilities", "masks", "flags"]
"""What a field holds: upright boxes; groups of them, (N, A, 4); predicted boxes, which may be inverted; points with
their stride, or with one in x and one in y; scores; probabilities; masks, (N, ...); flags, (N,)."""

COLUMNS: dict[Kind, int] = {
    "boxes": 4, "groups": 4, "predicted": 4, "points": 3, "strided": 4, "scores": 1, "probabilities": 1
}  # fmt: skip
"""The least number of columns; of boxes, what is behind them is left out."""
UPRIGHT = ("boxes", "groups")
POINTS = ("points", "strided")
PLACES = (*UPRIGHT, "predicted", *POINTS)
LARGEST = 1e7
"""Pixels beyond which no coordinate of a box may lie: float32 can't tell neighbouring pixels there."""
AWAY = 1e30
"""Where boxes go that are to match nothing: they have no area, and no distance to them is finite once squared."""

_of_package: Policy | None = None
told: Counter[tuple[str, str]] = Counter()
"""How often each kind of warning came up, by assigner and kind; only the first time is told."""
_replaced: dict[tuple[str, str, torch.device], _Tally] = {}
"""What was taken out, by assigner, field and device."""


def set_on_nonfinite(policy: Policy | None) -> None:
    """Set what all assigners do with numbers that are not finite; None returns to the default.

    Args:
        policy: 'raise' names the field, the place and the image.  On a device that costs one wait for it a call.
            'replace' goes on: what is not finite is never matched, and nothing else changes.

    Raises:
        ValueError: another policy.
    """
    global _of_package
    _of_package = None if policy is None else checked_policy(policy)


class _Tally:
    """Counts rows that are not kept, on the device where that is known, adding up only now and then."""

    AT_ONCE = 32

    def __init__(self) -> None:
        self.rows = 0
        self.kept: Tensor | int = 0
        self.waiting: list[Tensor] = []

    def add(self, good: Tensor) -> None:
        """Count rows, (N,) bool, True for those that are kept; waits for nothing."""
        self.rows += len(good)
        self.waiting.append(good)
        if len(self.waiting) == self.AT_ONCE:
            self.add_up()

    def add_up(self) -> None:
        if self.waiting:
            self.kept = self.kept + torch.cat(self.waiting).sum()
            self.waiting.clear()

    def total(self) -> int:
        """Number of rows that were not kept; waits for the device."""
        self.add_up()
        return self.rows - int(self.kept)


def count_replaced(who: str, what: str, good: Tensor) -> None:
    """Count what an assigner takes out; waits for nothing.

    Args:
        who: name of the assigner.
        what: the field.
        good: (N,) bool, the rows that are kept; not to be changed afterwards.
    """
    _replaced.setdefault((who, what, good.device), _Tally()).add(good)


def replaced_counts() -> dict[tuple[str, str], int]:
    """Count what assigners have taken out in this process under the policy 'replace'; waits for the devices.

    Returns:
        Number of rows by name of the assigner and of the field, or of pairs for "costs" of the Hungarian ones; without
        those of which nothing was taken out.  Calls that a CUDA graph replays are not counted again.

    Example:
        >>> from types import SimpleNamespace as Instances
        >>> import visdet_assigners
        >>> assigner = visdet_assigners.MaxIoUAssigner(0.5, 0.4, on_nonfinite="replace")
        >>> gt = Instances(bboxes=torch.tensor([[0., 0., 9., float("nan")]]), labels=torch.tensor([0]))
        >>> result = assigner.assign(Instances(priors=torch.zeros(3, 4)), gt)
        >>> ("MaxIoUAssigner", "gt_instances.bboxes") in visdet_assigners.replaced_counts()
        True
    """
    counts: Counter[tuple[str, str]] = Counter()
    for (who, what, _), tally in _replaced.items():
        counts[who, what] += tally.total()
    return dict(+counts)


def checked_policy(policy: str) -> Policy:
    """The policy if it is one.

    Raises:
        ValueError: it is none.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"on_nonfinite is {policy!r}; choose 'raise' or 'replace'")
    return policy  # type: ignore[return-value]


def on_nonfinite() -> Policy | None:
    """What the package or the environment says, None if neither does."""
    policy = _of_package or os.environ.get("VISDET_ASSIGNERS_ON_NONFINITE")
    return checked_policy(policy) if policy else None


class AssignerInputError(ValueError):
    """An input can't be assigned.

    Attributes:
        assigner: name of the class.
        field: what was wrong, as ``gt_instances.bboxes``; empty where it is no field.
        index: of the first bad entry or row, empty where it is not one of them.
        value: that entry or row, None likewise.
        image: path or number of the image, None where it isn't known.
    """

    def __init__(
        self, assigner: str, text: str, field: str = "", index: Sequence[int] = (), value: Any = None, image: Any = None
    ) -> None:
        super().__init__(f"{assigner}: {text}" + ("" if image is None else f" (image {image})"))
        self.assigner = assigner
        self.field = field
        self.index = tuple(index)
        self.value = value
        self.image = image


@dataclass(frozen=True)
class Fault:
    """What is wrong with a field; the attributes are those of `AssignerInputError`."""

    text: str
    field: str
    index: tuple[int, ...] = ()
    value: Any = None


# ------------------------------------------------------------------------------------------------------- one call


class Handling(NamedTuple):
    """What becomes of values.

    Attributes:
        replaces: what is not finite is taken out.
        looks: values are looked at.
        on_device: a look has to wait.
    """

    replaces: bool
    looks: bool
    on_device: bool


@dataclass
class Call:
    """What is known while an assigner is called.

    Attributes:
        who: name of the assigner.
        sources: where the image may be named: meta data, or instances with meta data; the first that does counts.
        device: of the first field that was read, with its name.
        handling: what becomes of values in this call, None before that is asked.
        searching: whether it is known that something is wrong, but not yet what.
        pending: on a device, tests that nobody has waited for: whether something is wrong, what, and the sources.
    """

    who: str
    sources: Sequence[Any] = ()
    device: tuple[torch.device, str] | None = None
    handling: Handling | None = None
    searching: bool = False
    pending: list[tuple[Tensor, Callable[[], Fault | None], Sequence[Any]]] = field(default_factory=list)

    def fail(self, text: str, fault: Fault | None = None, sources: Sequence[Any] | None = None) -> NoReturn:
        """Raise with the names of the assigner and of the image."""
        image = image_of(self.sources if sources is None else sources)
        if fault is None:
            raise AssignerInputError(self.who, text, image=image)
        raise AssignerInputError(self.who, text, fault.field, fault.index, fault.value, image)

    def expect(self, suspicious: Tensor, look: Callable[[], Fault | None], wait: bool) -> None:
        """Raise if a test says so and a closer look confirms it; without ``wait``, when `settle` is called."""
        if not wait:
            self.pending.append((suspicious, look, self.sources))
        elif suspicious:
            self.confirm(look, self.sources)

    def search(self) -> None:
        """Look at all values from now on, since it is known that something is wrong."""
        self.searching = True
        self.handling = self.handling and self.handling._replace(looks=True)

    def confirm(self, look: Callable[[], Fault | None], sources: Sequence[Any]) -> None:
        """Raise if a close look finds something."""
        fault = look()
        if fault is not None:
            self.fail(fault.text, fault, sources)

    def settle(self) -> None:
        """Wait for the device once, if there are tests, and raise for the first that something is wrong with."""
        pending, self.pending = self.pending, []
        if pending and torch.stack([suspicious for suspicious, _, _ in pending]).any():
            for _, look, sources in pending:
                self.confirm(look, sources)

    def same_device(self, value: Tensor, name: str) -> None:
        """Raise if a field lies elsewhere than those before."""
        if self.device is None:
            self.device = value.device, name
        elif value.device != self.device[0]:
            device, first = self.device
            self.fail(f"{name} is on {value.device} but {first} is on {device}; move them to one device")


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """The call that is going on in this thread."""
    return _current.get()


@contextmanager
def called(who: str, sources: Sequence[Any]) -> Iterator[Call]:
    """Inside the ``with`` block, an assigner is being called; tests that are left are settled at its end."""
    call = Call(who, sources)
    token = _current.set(call)
    try:
        yield call
        call.settle()
    finally:
        _current.reset(token)


def image_of(sources: Sequence[Any]) -> Any:
    """Path of the image, or its number, from the first of the sources that tells one."""
    for source in sources:
        meta: Any = source if isinstance(source, Mapping) else getattr(source, "metainfo", None)
        for key in ("img_path", "img_id") if isinstance(meta, Mapping) else ():
            if meta.get(key) is not None:
                return meta[key]
    return None


def image_size(img_meta: Mapping[str, Any] | None, call: Call) -> tuple[int, int]:
    """Height and width of the image from its meta data; raises in the name of the call if they aren't there."""
    size = tuple((img_meta or {}).get("img_shape") or ())[:2]
    if len(size) != 2 or not all(side > 0 for side in size):
        call.fail(f"img_meta['img_shape'] must be (height, width), both positive, got {size or 'nothing'}")
    return size  # type: ignore[return-value]


def tell_once(who: str, kind: str, text: str) -> None:
    """Warn, once in a process for each assigner and kind."""
    told[who, kind] += 1
    if told[who, kind] == 1:
        warnings.warn(f"{who}: {text}", stacklevel=2)


# ------------------------------------------------------------------------------------- tests, quick ones and close ones


def suspicious(value: Tensor, kind: Kind) -> Tensor:
    """Whether something may be wrong with a field that isn't empty: () bool on its device."""
    if kind not in PLACES:
        doubt = ~value.sum().isfinite()  # a sum of finite entries may overflow, hence the close look
        if kind == "probabilities":
            low, high = value.aminmax()
            doubt = doubt | (low < 0) | (high > 1)
        return doubt
    low, high = value.aminmax()
    doubt = ~((low >= -LARGEST) & (high <= LARGEST))
    if kind in UPRIGHT:
        return doubt | ((value[..., 2:4] - value[..., :2]).amin() < 0)
    return doubt | (value[..., 2:].amin() <= 0) if kind in POINTS else doubt


def fault_in(value: Tensor, kind: Kind, name: str) -> Fault | None:
    """What is wrong with a field, None where nothing is; waits for a device."""
    bad = ~value.isfinite()
    if bad.any():
        rows = bad.flatten(1).any(dim=1) if bad.ndim > 1 else bad
        diverged = not name.startswith("gt") and len(rows) > 1 and bool(rows.all())
        ending = "; all rows: training has diverged" if diverged else ""
        return _entry(value, bad, name, f"; not finite: {int(bad.sum())} of {value.numel()} entries{ending}")
    if kind in PLACES and (value.abs() > LARGEST).any():
        return _entry(value, value.abs() > LARGEST, name, f", beyond {LARGEST:.0e} pixels")
    if kind in UPRIGHT and (value[..., 2:4] < value[..., :2]).any():
        return _row(value, (value[..., 2:4] < value[..., :2]).any(dim=-1), name, ", not x1 <= x2, y1 <= y2")
    if kind in POINTS and (value[:, 2:] <= 0).any():
        return _row(value, (value[:, 2:] <= 0).any(dim=1), name, "; the stride, behind x and y, must be positive")
    if kind == "probabilities" and ((value < 0) | (value > 1)).any():
        return _entry(value, (value < 0) | (value > 1), name, "; probabilities are expected, not logits")
    return None


def _entry(value: Tensor, bad: Tensor, name: str, ending: str) -> Fault:
    index = tuple(bad.nonzero()[0].tolist())
    entry = value[index].item()
    return Fault(f"{name}{list(index)} is {entry:.6g}{ending}", name, index, entry)


def _row(value: Tensor, bad: Tensor, name: str, ending: str) -> Fault:
    index = tuple(bad.nonzero()[0].tolist())
    row = [round(entry, 4) for entry in value[index].tolist()]
    count = f"; {int(bad.sum())} of {bad.numel()}" if bad.sum() > 1 else ""
    return Fault(f"{name}{list(index)} is {row}{ending}{count}", name, index, row)


def suspicious_labels(labels: Tensor, num_classes: int | None) -> Tensor:
    """Whether one of the labels, of which there is at least one, is no class: () bool; no upper end for None."""
    low, high = labels.aminmax()
    doubt = low < 0 if num_classes is None else (low < 0) | (high >= num_classes)
    return doubt | (labels != labels.floor()).any() if labels.is_floating_point() else doubt


def label_fault(labels: Tensor, num_classes: int | None, name: str) -> Fault | None:
    """Which label is no class from 0 to ``num_classes`` - 1; waits for a device."""
    reasons = [(labels < 0, "; classes are counted from 0"), (labels != labels.floor(), "; a whole number is expected")]
    if num_classes is not None:
        reasons.append((labels >= num_classes, f" but scores have {num_classes} classes; check num_classes"))
    return next((_entry(labels, bad, name, reason) for bad, reason in reasons if bad.any()), None)


# --------------------------------------------------------------------------------------------------------- replacing


def good_boxes(boxes: Tensor) -> Tensor:
    """Which ground truths nothing is wrong with: (M, 4) xyxy -> (M,) bool."""
    return (boxes.abs().amax(dim=1) <= LARGEST).logical_and_((boxes[:, 2:] - boxes[:, :2]).amin(dim=1) >= 0)


def good_rows(fields: Sequence[Tensor], kinds: Sequence[Kind]) -> Tensor:
    """Which rows are finite in all fields, and of points have a stride: (N, ...) each -> (N,) bool; flags are left out.

    Of numbers alone: boxes need not be upright to be compared with others.
    """
    sums = [value.flatten(1).sum(dim=1) for value, kind in zip(fields, kinds) if kind != "flags"]
    total = functools.reduce(torch.add, sums)
    good = (total - total) == 0
    if kinds[0] in POINTS:
        good &= fields[0][:, 2:].amin(dim=1) > 0
    return good


def without_rows(value: Tensor, kind: Kind, good: Tensor, away: float) -> Tensor:
    """Take the other rows out: boxes and points go to ``away``, scores become 0, flags stay.

    Args:
        value: (N, ...), N at least 1.
        kind: of field.
        good: (N,) bool.
        away: `AWAY` or less than 0 as much, so that predictions and ground truths don't meet there.
    """
    if kind == "flags":
        return value
    if kind not in POINTS:
        return value.where(good.view(-1, *[1] * (value.ndim - 1)), away if kind in PLACES else 0.0)
    # A stride tells the level of a point: one that is no stride becomes the least that is one.
    stride = value[:, 2:]
    usable = (stride > 0) & (stride <= LARGEST)
    stride = stride.where(usable, stride.where(usable, LARGEST).amin())
    return torch.cat([value[:, :2].where(good[:, None], away), stride], dim=1)


def taken_out(boxes: Tensor) -> Tensor:
    """Which boxes `without_rows` has taken out: (..., 4) -> (...) bool."""
    return boxes[..., 0].abs() >= AWAY
