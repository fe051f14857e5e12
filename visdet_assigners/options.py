"""Options of assigners and of their functions, checked where they are given: named in errors, not failing later."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, get_args

from visdet_assigners.errors import AssignerInputError


class OptionError(AssignerInputError, TypeError):
    """There is no such option, or it has a value of another type."""


def whole_number(who: str, name: str, value: Any, least: int = 1) -> int:
    """Return a whole number, also one of numpy's.

    Raises:
        OptionError: it is no int: 9.0 isn't, nor is '9'.
        AssignerInputError: it is less than ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise OptionError(who, f"{name} is {value!r}; a whole number is expected, as {max(least, 1)}")
    if number < least:
        raise AssignerInputError(who, f"{name} is {number}; at least {least} is needed")
    return number


def number(
    who: str,
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    finite: bool = True,
) -> Any:
    """Return a number as it is.

    Args:
        who: name of the assigner or function.
        name: of the option.
        value: int or float, also one of numpy's.
        least: smallest value that it may have.
        most: largest.
        above: what it must exceed.
        finite: whether it must be finite; NaN never passes.

    Raises:
        OptionError: it is no number.
        AssignerInputError: it is out of range.
    """
    try:
        plain = None if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):  # of no number, and of tensors with more than one
        plain = None
    if plain is None:
        raise OptionError(who, f"{name} is {value!r}; a number is expected")
    if math.isnan(plain) or (finite and math.isinf(plain)):
        raise AssignerInputError(who, f"{name} is {plain}; a finite number is needed")
    if not (least <= plain <= most and plain > above):
        lower = f"above {above:g}" if above > -math.inf else f"at least {least:g}" if least > -math.inf else ""
        upper = f"at most {most:g}" if most < math.inf else ""
        raise AssignerInputError(who, f"{name} is {plain:g}; it must be {' and '.join(filter(None, (lower, upper)))}")
    return value


not_negative = functools.partial(number, least=0)
"""Return a number of at least 0, see `number`."""
positive = functools.partial(number, above=0)
"""Return a number above 0, see `number`."""


def one_of(who: str, name: str, value: Any, literal: Any) -> Any:
    """Return one of the values of a ``Literal``.

    Raises:
        AssignerInputError: it is none of them.
    """
    known = get_args(literal)
    if value not in known:
        raise AssignerInputError(who, f"{name} is {value!r}; choose one of {', '.join(map(str, known))}")
    return value


def literal(known: Any) -> Callable[[str, str, Any], Any]:
    """A check that a value is one of a ``Literal``, see `one_of`."""
    return functools.partial(one_of, literal=known)


def threshold_band(who: str, name: str, value: Any, most: float = math.inf) -> float | Sequence[float]:
    """Return a threshold: one number, or (low, high), also as a list.

    Raises:
        OptionError: it is neither.
        AssignerInputError: a number is below 0 or above ``most``.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise AssignerInputError(who, f"{name} is {value!r}; one number or (low, high) is expected")
        for each in value:
            number(who, name, each, least=0, most=most)
        return value
    return number(who, name, value, least=0, most=most)


def check_names(who: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise for the first name that is no option, and suggest the nearest that is.

    Raises:
        OptionError: there is one.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise OptionError(who, f"there is no option {name!r}; {hint}the options are {', '.join(known)}")


def signature_of_init(cls: type) -> inspect.Signature:
    """The signature of a class by its own ``__init__``, without self."""
    signature = inspect.signature(vars(cls)["__init__"])
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def signature_with(own: inspect.Signature, inherited: inspect.Signature) -> inspect.Signature:
    """The signature in which the options of another take the place of ``**common``."""
    parameters = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
    names = {one.name for one in parameters}
    more = [
        one.replace(kind=one.KEYWORD_ONLY)
        for one in inherited.parameters.values()
        if one.name not in names and one.kind is not one.VAR_KEYWORD
    ]
    return own.replace(parameters=[*parameters, *more])
