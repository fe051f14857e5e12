"""Which of equals is taken: as torch's fastest way gives them, the default and mmdet's, or the one of lowest index.

By index where an assigner says so (``deterministic=``), else the package (`set_deterministic`), else the environment
variable ``VISDET_ASSIGNERS_DETERMINISTIC=1``.  Then ties are decided the same on every device, at every block size and
for any number of threads.  What they are between is decided before: values that are equal on one device and differ by a
rounding on another are no tie there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_of_package: bool | None = None
_of_call: ContextVar[bool | None] = ContextVar("ties_by_index", default=None)
_of_trace = False


def set_deterministic(deterministic: bool | None) -> None:
    """Set for all assigners whether ties are ordered by index; None returns to the default, which is off.

    Among equally good priors the one of lowest index is taken first.  Which ground truth wins a prior that is equally
    good for several is a part of each method and the same either way: the first, but for the steps in which a later one
    overrides an earlier (low-quality matches of MaxIoU, ApproxMaxIoU, AscendMaxIoU and Grid; Region; Uniform; in
    CenterRegion the last among boxes of equal area).  Hungarian matching is deterministic anyway: one algorithm on the
    host decides, scipy's.
    """
    global _of_package
    _of_package = deterministic


def ties_by_index() -> bool:
    """Whether ties are ordered by index now."""
    if torch.compiler.is_compiling():  # a compiler can't read context variables
        return _of_trace
    for decided in (_of_call.get(), _of_package):
        if decided is not None:
            return decided
    return os.environ.get("VISDET_ASSIGNERS_DETERMINISTIC") == "1"


@contextmanager
def order_ties(by_index: bool | None) -> Iterator[None]:
    """Order ties so inside the ``with`` block, in this thread; None leaves it to the package."""
    token = _of_call.set(by_index)
    try:
        yield
    finally:
        _of_call.reset(token)


def order_ties_of_trace(by_index: bool) -> None:
    """Order ties so in the graph that is being traced."""
    global _of_trace
    _of_trace = by_index
