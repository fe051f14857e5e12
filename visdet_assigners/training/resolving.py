"""The classes that the types of a config stand for, and what their constructors take; nothing is built."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

EMPTY = inspect.Parameter.empty


def class_of(registry: Any, node: Any) -> type | None:
    """Return the class that a config's ``type`` stands for, be it a text with or without scope, or the class itself.

    Args:
        registry: of mmengine; a text without scope is looked up in the default scope, as mmengine does.
        node: a dictionary with ``type``.

    Returns:
        The class; None where there is no ``type``, or nobody knows it.
    """
    kind = node.get("type") if isinstance(node, Mapping) else None
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(node.get("_scope_")) as scoped:
            try:
                kind = scoped.get(kind)
            except (RuntimeError, KeyError):  # mmengine's ways to say that it doesn't know
                kind = None
    return kind if inspect.isclass(kind) else None


def is_a(cls: type | None, *names: str) -> bool:
    """Whether a class, or one that it is made of, bears one of the names."""
    return any(base.__name__ in names for base in inspect.getmro(cls or object))


def constructors(cls: type) -> Iterator[dict[str, inspect.Parameter]]:
    """Yield the parameters of each constructor that an argument may reach, from the class up to where they end."""
    for base in inspect.getmro(cls):
        if "__init__" in vars(base) and base is not object:
            parameters = dict(list(inspect.signature(vars(base)["__init__"]).parameters.items())[1:])
            yield parameters
            if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
                return


def default_of(cls: type | None, option: str) -> Any:
    """Return the default of an option of a class, also where a constructor hands it on; None where there is none."""
    for parameters in constructors(cls) if cls else ():
        if option in parameters:
            default = parameters[option].default
            return None if default is EMPTY else default
    return None


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name of which another is a misspelling for certain; None where that can't be told.

    One letter too many, too few, wrong or out of its place, or capitals.  Short names differ by a letter on purpose, as
    do those that go on where a known one ends.

    Example:
        >>> known = ["assigner", "sampler", "beta"]
        >>> [closest(name, known) for name in ("asigner", "smapler", "Assigner", "assigners", "zeta", "max_size")]
        ['assigner', 'sampler', 'assigner', None, None, None]
    """
    for other in known:
        if len(name) >= 6 and not (name.startswith(other) or other.startswith(name)) and _one_off(name.lower(), other):
            return other
    return None


def _one_off(a: str, b: str) -> bool:
    """Whether two texts are equal, or one letter apart, or two neighbours are exchanged."""
    if len(a) > len(b):
        a, b = b, a
    if a == b:
        return True
    same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(a))
    if len(a) < len(b):
        return len(b) == len(a) + 1 and a[same:] == b[same + 1 :]
    swapped = a[same : same + 2] == b[same : same + 2][::-1] and a[same + 2 :] == b[same + 2 :]
    return swapped or a[same + 1 :] == b[same + 1 :]
