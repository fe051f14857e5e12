"""Put another function in the place of an object's method for a while."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def shadow(owner: Any, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """Let ``owner.name`` mean ``replacement(method, *args, **kwargs)`` inside the block, on this one object alone.

    The object is as before when the block is left, also through an exception; blocks may be nested.

    Example:
        >>> class Adder:
        ...     def add(self, a, b):
        ...         return a + b
        >>> adder = Adder()
        >>> with shadow(adder, "add", lambda add, a, b: 10 * add(a, b)):
        ...     adder.add(1, 2)
        30
        >>> adder.add(1, 2)
        3
    """
    method = getattr(owner, name)
    before = vars(owner).get(name)
    vars(owner)[name] = functools.wraps(method)(functools.partial(replacement, method))
    try:
        yield
    finally:
        if before is None:
            vars(owner).pop(name, None)
        else:
            vars(owner)[name] = before


@contextmanager
def listen(owner: Any, name: str, hear: Callable[..., None]) -> Iterator[None]:
    """Call ``hear(result, *args, **kwargs)`` after each call of ``owner.name`` inside the block."""

    def call(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        hear(result, *args, **kwargs)
        return result

    with shadow(owner, name, call):
        yield
