"""What happens when a device runs out of memory: smaller blocks, then the CPU, and a warning that says so."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from visdet_assigners.functional.blocks import limit_memory, memory_budget
from visdet_assigners.functional.inputs import called
from visdet_assigners.functional.tensors import full_precision
from visdet_assigners.functional.ties import order_ties

SMALLEST = 2**20
"""Bytes below which smaller blocks free nothing that matters."""

Method = TypeVar("Method", bound=Callable[..., Any])


def within_memory(assign: Method) -> Method:
    """Decorate a method of an assigner: its blocks keep to the assigner's budget, ties are ordered as it says, and it
    survives a full device.

    Around it, errors name the image, and autocast is off.

    On ``torch.cuda.OutOfMemoryError``, and on no other error, it is tried again with half the budget, and when blocks
    of a megabyte don't fit either, on the CPU.  The first time that an assigner had to, it warns.
    """

    @functools.wraps(assign)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        budget = first = self.memory_budget or memory_budget()
        sources = [kwargs.get("img_meta"), *args, *kwargs.values()]
        while budget >= min(SMALLEST, first):
            try:
                with _call_of(self, budget, sources):
                    result = assign(self, *args, **kwargs)
            except torch.cuda.OutOfMemoryError:
                pass  # tried again outside, where the error no longer holds what its frames hold
            else:
                if budget < first:
                    _warn_once(self, f"it worked in blocks of {budget} bytes instead of {first}")
                return result
            budget //= 2
        _warn_once(self, "it worked on the CPU")
        device = next(_tensors([args, kwargs])).device
        with _call_of(self, first, sources):
            return moved(assign(self, *moved(args, "cpu"), **moved(kwargs, "cpu")), device)

    return method  # type: ignore[return-value]


@contextmanager
def _call_of(assigner: Any, budget: int, sources: Sequence[Any]) -> Iterator[None]:
    """Inside the ``with`` block all is set as the assigner has it; the image is named in one of the sources."""
    who = type(assigner).__name__
    with limit_memory(budget), order_ties(assigner.deterministic), full_precision(), called(who, sources):
        yield


def _warn_once(assigner: Any, what: str) -> None:
    if not assigner.told_of_memory:
        assigner.told_of_memory = True
        warnings.warn(
            f"{type(assigner).__name__}: the GPU ran out of memory; {what}. A smaller budget, "
            "visdet_assigners.set_memory_budget(...) or memory_budget=..., avoids the attempts",
            stacklevel=3,
        )


def moved(value: Any, device: str | torch.device) -> Any:
    """Copy tensors, and whatever holds them, to a device; other values stay as they are."""
    if hasattr(value, "to"):  # tensors, mmdet's boxes and masks, InstanceData
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(moved(item, device) for item in value)
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    if hasattr(value, "__dict__") and not isinstance(value, type):
        value = copy.copy(value)
        vars(value).update(moved(vars(value), device))
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors that a value holds."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "tensor"):
        yield from _tensors(value.tensor)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from _tensors(vars(value))
