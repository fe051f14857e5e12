"""Checks of the functions that decide, for callers who give them tensors: the same as the classes', written once.

A function says with `checked` what its arguments hold.  Called by its name it checks them; a class, which has read and
checked its inputs by then, calls what is below (``BaseAssigner.run``).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args

import torch

from visdet_assigners.functional.geometry import UPRIGHT
from visdet_assigners.functional.tensors import full_precision
from visdet_assigners.functional.validity import JUDGED, Kind
from visdet_assigners.inputs import Inputs
from visdet_assigners.options import OptionError, check_names

Role = Literal["truths", "labels", "levels", "optional levels", "marks"]
"""What an argument is besides a field of the priors: boxes of the ground truths (M, 4), their labels (M,), the sizes of
the levels, or the same or None, or marks (N,) bool of priors, which may be None."""
Option = Callable[[str, str, Any], Any]
"""Checks an option: name of the function, name and value of the option."""
Function = TypeVar("Function", bound=Callable[..., Any])

_KINDS = get_args(Kind)


def checked(
    options: Mapping[str, Option] | None = None, keeps_gradient: bool = False, **holds: Kind | Role
) -> Callable[[Function], Function]:
    """Decorate a function on the tensors of one image, so that its arguments are checked and named in errors.

    Args:
        options: how further arguments are checked, by their names.
        keeps_gradient: whether results carry gradients of the arguments.
        **holds: what each tensor holds, by its name; those of a `Kind` have a row for each prior, N.

    The checks are those of the classes: shapes, types and devices always; values on a CPU, and on a device where
    ``set_on_nonfinite('raise')`` says so.  Tensors reach the function in float32, labels in int64.  In a graph that is
    being compiled nothing is checked.  Where an argument ``geometry`` says that boxes aren't upright, they may have any
    columns.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                return function(*args, **kwargs)
            who = function.__name__
            check_names(who, kwargs, signature.parameters)
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError as error:  # too many of them, or one is missing
                raise OptionError(who, f"{error}; it takes {', '.join(signature.parameters)}") from None
            for name, check in (options or {}).items():
                if name in given.arguments:
                    given.arguments[name] = check(who, name, given.arguments[name])
            with torch.set_grad_enabled(keeps_gradient and torch.is_grad_enabled()), full_precision():
                _read(Inputs(who), given.arguments, holds).settle()
                return function(*given.args, **given.kwargs)

        return call  # type: ignore[return-value]

    return decorate


def _read(inputs: Inputs, arguments: dict[str, Any], holds: Mapping[str, Kind | Role]) -> Inputs:
    """Fetch the tensors among the arguments, in place of what was given."""
    turned = arguments.get("geometry", UPRIGHT) is not UPRIGHT
    judged: Mapping[Any, Any] = JUDGED if turned else {}
    kinds = {name: judged.get(kind, kind) for name, kind in holds.items()}
    of_priors = {name: (arguments[name], kind) for name, kind in kinds.items() if kind in _KINDS and name in arguments}
    rows = inputs.rows(of_priors) if of_priors else []  # type: ignore[arg-type]
    arguments.update(zip(of_priors, rows))
    fields = dict(zip(of_priors, rows))
    for name, role in holds.items():
        if role == "truths":
            kind: Kind = "shapes" if turned else "boxes"
            inputs.gts = arguments[name] = inputs.read_boxes(arguments[name], name, kind)
        elif role == "labels":
            num_classes = next((fields[each].shape[1] for each in ("scores", "logits") if each in fields), None)
            inputs.labels = arguments[name] = inputs.read_labels(arguments[name], name, num_classes)
            if len(inputs.gts) != len(inputs.labels):
                inputs.fail(f"there are {len(inputs.gts)} gts and {len(inputs.labels)} {name}")
        elif role == "levels" or (role == "optional levels" and arguments.get(name) is not None):
            inputs.read_levels(arguments[name], len(rows[0]), name=name)
        elif role == "marks" and arguments.get(name) is not None:
            marks = inputs.field(arguments[name], name, "flags")
            if marks.shape != rows[0].shape[:1]:
                inputs.fail(f"{name} must have shape ({len(rows[0])},), one for each prior, got {tuple(marks.shape)}")
            arguments[name] = marks
    return inputs
