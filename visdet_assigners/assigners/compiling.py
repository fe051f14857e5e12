"""Compiled assignment: ``torch.compile`` around the pure functions, where that is asked for and a compiler is there.

With ``compile='reduce-overhead'`` a device replays what it recorded once for each shape, a CUDA graph, instead of being
handed one kernel after another.  So that shapes are few, ground truths are padded to 8, 16, 32, ... by boxes that match
nothing, those that stand for dropped ones.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from visdet_assigners.assignment import Assignment
from visdet_assigners.functional.blocks import bucket
from visdet_assigners.functional.select import ties_by_index
from visdet_assigners.functional.validity import NOWHERE
from visdet_assigners.inputs import Inputs
from visdet_assigners.settings import order_ties_of_trace

Result = TypeVar("Result")
Mode = Literal["reduce-overhead"]
"""Modes of ``torch.compile`` besides its default."""


@functools.cache
def compiled(function: Callable[..., Result], mode: Mode | None = None) -> Callable[..., Result]:
    """The function as one graph for any number of ground truths; compiled when first called.

    Where compiling fails, as without a C++ compiler or Triton, a warning says so once and the function itself is called
    from then on.
    """

    def traced(by_index: bool, *args: Any, **kwargs: Any) -> Result:
        order_ties_of_trace(by_index)
        return function(*args, **kwargs)

    options = {} if mode is None else {"mode": mode}
    faster = torch.compile(traced, fullgraph=True, dynamic=True, **options)  # type: ignore[call-overload]
    works = True

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Result:
        nonlocal works
        if works:
            try:
                if mode is None:
                    return faster(ties_by_index(), *args, **kwargs)
                with numbers_as_constants():
                    return copied(faster(ties_by_index(), *args, **kwargs))
            except torch._dynamo.exc.BackendCompilerFailed as error:
                works = False
                reason = " ".join(str(error).split("\n")[:2])  # the second line where a backend was named in the first
                warnings.warn(f"{function.__name__} goes on uncompiled, compiling it failed: {reason}", stacklevel=2)
        return function(*args, **kwargs)

    return call


def numbers_as_constants() -> Any:
    """Trace thresholds as constants: as inputs they would lie on the CPU, which no CUDA graph takes."""
    config: Any = torch._dynamo.config
    return config.patch(specialize_float=True) if hasattr(config, "specialize_float") else nullcontext()


def copied(result: Any) -> Any:
    """A result that lasts: a replay overwrites what the one before it gave."""
    if isinstance(result, Tensor):
        return result.clone()
    if isinstance(result, tuple):
        return tuple(map(copied, result))
    if isinstance(result, Assignment):
        extras = {name: copied(value) for name, value in result.extras.items()}
        return Assignment(copied(result.gt_index), copied(result.quality), extras)
    return result


def in_bucket(image: Inputs) -> Inputs:
    """The image with as many ground truths as its bucket holds; those added match nothing.  With none it stays as is.

    What is done for each prior isn't changed by them, but ``torch.topk`` may choose other priors of equal ones, as it
    may wherever shapes change.
    """
    count = len(image.gts)
    more = bucket(count) - count if count else 0
    if more == 0 or image.forms.get("gts") is not None:  # boxes of another class answer for themselves
        return image
    image = copy.copy(image)
    image.gts, image.labels = F.pad(image.gts, (0, 0, 0, more), value=NOWHERE), F.pad(image.labels, (0, more))
    return image
