"""How assigners work unless they say otherwise: memory, the order of ties, numbers that are not finite.

A setting is looked up in this order: the assigner that is being called (`using`), the package (``set_...``), the
environment, the default.  This is the only state that functions of ``functional/`` read.

| setting | environment | default |
|---|---|---|
| ``set_memory_budget`` | ``VISDET_ASSIGNERS_MEMORY_BUDGET`` | 256 MiB |
| ``set_deterministic`` | ``VISDET_ASSIGNERS_DETERMINISTIC=1`` | off |
| ``set_on_nonfinite`` | ``VISDET_ASSIGNERS_ON_NONFINITE`` | 'raise' on a CPU, 'replace' on a device |
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Policy = Literal["raise", "replace"]
"""What becomes of numbers that are not finite."""
DEFAULT_BUDGET = 256 * 1024**2
"""Bytes."""


@dataclass(frozen=True)
class Settings:
    """Settings of one call, or of the package; None leaves a setting to whoever comes next.

    Attributes:
        memory_budget: bytes that the temporaries of one block may take.
        deterministic: whether ties are ordered by index.
        on_nonfinite: 'raise' names the field, the place and the image; 'replace' never matches what is not finite.
    """

    memory_budget: int | None = None
    deterministic: bool | None = None
    on_nonfinite: Policy | None = None


_UNSET = Settings()
_of_package = _UNSET
_of_call: ContextVar[Settings] = ContextVar("visdet_assigners_settings", default=_UNSET)
_ties_of_trace = False


@contextmanager
def using(**changes: Any) -> Iterator[None]:
    """Use other settings inside the ``with`` block, in this thread; names as in `Settings`.

    Example:
        >>> with using(memory_budget=250):
        ...     memory_budget()
        250
    """
    token = _of_call.set(replace(_of_call.get(), **changes))
    try:
        yield
    finally:
        _of_call.reset(token)


def _set_for_package(**changes: Any) -> None:
    global _of_package
    _of_package = replace(_of_package, **changes)


# ----------------------------------------------------------------------------------------------------------- memory


def set_memory_budget(budget: int | None) -> None:
    """Set the bytes that the temporaries of one block may take, for all assigners; None returns to the default.

    Raises:
        ValueError: ``budget`` isn't positive.
    """
    _set_for_package(memory_budget=None if budget is None else checked_budget(budget))


def checked_budget(budget: int | str) -> int:
    """Return the budget as a positive int.

    Raises:
        ValueError: it isn't one.
    """
    try:
        number = int(budget)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"the memory budget is {budget!r}; give a positive number of bytes, as {DEFAULT_BUDGET}")
    return number


def memory_budget() -> int:
    """Bytes that the temporaries of one block may take now."""
    decided = _of_call.get().memory_budget or _of_package.memory_budget
    decided = decided or os.environ.get("VISDET_ASSIGNERS_MEMORY_BUDGET")  # type: ignore[assignment]
    return checked_budget(decided) if decided else DEFAULT_BUDGET


# ------------------------------------------------------------------------------------------------------------- ties


def set_deterministic(deterministic: bool | None) -> None:
    """Set for all assigners whether ties are ordered by index; None returns to the default, which is off.

    Among equally good priors the one of lowest index is taken first: the same on every device, at every block size and
    for any number of threads.  Values that are equal on one device and differ by a rounding on another are no tie
    there.

    Which ground truth wins a prior that is equally good for several is a part of each method and the same either way:
    the first, but for the steps in which a later one overrides an earlier (low-quality matches of MaxIoU, ApproxMaxIoU,
    AscendMaxIoU and Grid; Region; Uniform; in CenterRegion the last among boxes of equal area).  Hungarian matching is
    deterministic anyway: one algorithm on the host decides, scipy's.
    """
    _set_for_package(deterministic=deterministic)


def ties_by_index() -> bool:
    """Whether ties are ordered by index now."""
    decided = _of_call.get().deterministic
    decided = _of_package.deterministic if decided is None else decided
    return os.environ.get("VISDET_ASSIGNERS_DETERMINISTIC") == "1" if decided is None else decided


def order_ties_of_trace(by_index: bool) -> None:
    """Order ties so in the graph that is being traced: a compiler can't read context variables."""
    global _ties_of_trace
    _ties_of_trace = by_index


def ties_of_trace() -> bool:
    """Whether ties are ordered by index in the graph that is being traced."""
    return _ties_of_trace


# ------------------------------------------------------------------------------------------------------- not finite


def set_on_nonfinite(policy: Policy | None) -> None:
    """Set what all assigners do with numbers that are not finite; None returns to the default.

    Args:
        policy: 'raise' names the field, the place and the image.  On a device that costs one synchronisation a call.
            'replace' goes on: what is not finite is never matched, and nothing else changes.

    Raises:
        ValueError: another policy.
    """
    _set_for_package(on_nonfinite=None if policy is None else checked_policy(policy))


def checked_policy(policy: str) -> Policy:
    """Return the policy if it is one.

    Raises:
        ValueError: it isn't.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"on_nonfinite is {policy!r}; choose 'raise' or 'replace'")
    return policy  # type: ignore[return-value]


def on_nonfinite() -> Policy | None:
    """What the call, the package or the environment says; None if none of them does."""
    decided = _of_call.get().on_nonfinite or _of_package.on_nonfinite
    if decided is None and (decided := os.environ.get("VISDET_ASSIGNERS_ON_NONFINITE")):  # type: ignore[assignment]
        return checked_policy(decided)
    return decided
