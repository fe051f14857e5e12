"""Compiled assignment: ``torch.compile`` around the pure functions, where that is asked for and a compiler is there."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from visdet_assigners.functional.select import ties_by_index
from visdet_assigners.settings import order_ties_of_trace

Result = TypeVar("Result")


@functools.cache
def compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function as one graph for any number of ground truths; compiled when first called.

    Where compiling fails, as without a C++ compiler or Triton, a warning says so once and the function itself is called
    from then on.
    """

    def traced(by_index: bool, *args: Any, **kwargs: Any) -> Result:
        order_ties_of_trace(by_index)
        return function(*args, **kwargs)

    faster = torch.compile(traced, fullgraph=True, dynamic=True)
    works = True

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Result:
        nonlocal works
        if works:
            try:
                return faster(ties_by_index(), *args, **kwargs)
            except torch._dynamo.exc.BackendCompilerFailed as error:
                works = False
                reason = " ".join(str(error).split("\n")[:2])  # the second line where a backend was named in the first
                warnings.warn(f"{function.__name__} goes on uncompiled, compiling it failed: {reason}", stacklevel=2)
        return function(*args, **kwargs)

    return call
