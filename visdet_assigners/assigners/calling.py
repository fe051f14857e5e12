"""What surrounds every call of an assigner: its settings, full precision, and a device that runs out of memory."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from visdet_assigners.functional.tensors import full_precision
from visdet_assigners.settings import memory_budget, using

SMALLEST = 2**20
"""Bytes below which smaller blocks free nothing that matters."""

Method = TypeVar("Method", bound=Callable[..., Any])


def assigner_method(method: Method) -> Method:
    """Decorate a method of an assigner that heads call.

    Blocks keep to the assigner's memory budget, ties are ordered as it says, autocast is off, and no gradient is kept
    unless the assigner says so.

    On ``torch.cuda.OutOfMemoryError``, and on no other error, the method is tried again with half the budget, and when
    blocks of a megabyte don't fit either, on the CPU.  The first time that an assigner had to, it warns.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return _call(self, self.memory_budget, method, args, kwargs)
        except torch.cuda.OutOfMemoryError:
            pass  # retried behind this block: until it is left, the error keeps the tensors of its frames alive
        except TypeError as error:
            check_call(self, method, args, kwargs, error)
            raise
        return _call_with_less(self, method, args, kwargs)

    return call  # type: ignore[return-value]


def check_call(assigner: Any, method: Any, args: Any, kwargs: Any, error: TypeError) -> None:
    """Where an error is of arguments that don't fit, name the assigner and the heads that can feed it, too."""
    try:
        inspect.signature(method).bind(assigner, *args, **kwargs)
    except TypeError:
        text = f"{type(assigner).__name__}: {error}; heads that can feed it: {assigner.heads}"
        raise TypeError(text) from None


def _call(assigner: Any, budget: int | None, method: Any, args: Any, kwargs: Any) -> Any:
    """Call the method with the assigner's settings."""
    settings: dict[str, Any] = {"memory_budget": budget, "deterministic": assigner.deterministic}
    settings = {name: value for name, value in settings.items() if value is not None}
    with torch.set_grad_enabled(assigner.keeps_gradient and torch.is_grad_enabled()), full_precision():
        if not settings:
            return method(assigner, *args, **kwargs)
        with using(**settings):
            return method(assigner, *args, **kwargs)


def _call_with_less(assigner: Any, method: Any, args: Any, kwargs: Any) -> Any:
    """Call the method in smaller and smaller blocks, then on the CPU."""
    first = assigner.memory_budget or memory_budget()
    budget = first // 2
    while budget >= min(SMALLEST, first):
        try:
            result = _call(assigner, budget, method, args, kwargs)
        except torch.cuda.OutOfMemoryError:
            pass
        else:
            _warn_once(assigner, f"it worked in blocks of {budget} bytes instead of {first}")
            return result
        budget //= 2
    _warn_once(assigner, "it worked on the CPU")
    device = next(_tensors([args, kwargs])).device
    return to_device(_call(assigner, first, method, *to_device((args, kwargs), "cpu")), device)


def _warn_once(assigner: Any, what: str) -> None:
    if not assigner.warned_of_memory:
        assigner.warned_of_memory = True
        warnings.warn(
            f"{type(assigner).__name__}: the GPU ran out of memory; {what}. A smaller budget, "
            "visdet_assigners.set_memory_budget(...) or memory_budget=..., avoids the attempts",
            stacklevel=4,
        )


def to_device(value: Any, device: str | torch.device) -> Any:
    """Copy tensors, and whatever holds them, to a device; other values stay as they are."""
    if hasattr(value, "to"):  # tensors, mmdet's boxes and masks, InstanceData
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(item, device) for item in value)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if hasattr(value, "__dict__") and not isinstance(value, type):
        value = copy.copy(value)
        vars(value).update(to_device(vars(value), device))
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
