"""Leave the auxiliary modules behind: what remains is mmdet's plain detector, and predicts the same to the bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar, overload

from mmengine.config import ConfigDict
from torch import nn

from visdet_assigners.codetr.detectors import CollaborativeMixin
from visdet_assigners.registry import SCOPE, scope_and_name

AUXILIARY = "auxiliary."
ADDED_ARGUMENTS = ("aux_branches", "collab", "aux_adapter")

T = TypeVar("T")


@overload
def strip_auxiliary(model: nn.Module) -> nn.Module: ...
@overload
def strip_auxiliary(model: Mapping[str, T]) -> dict[str, T]: ...
def strip_auxiliary(model: Any) -> Any:
    """Take the auxiliary modules out of a detector, a state dictionary or a checkpoint.

    Args:
        model: a ``CoDeformableDETR`` or another of its kind; its state dictionary; or a checkpoint as mmengine writes
            it.  It is not changed.

    Returns:
        A detector of mmdet's plain class; a state dictionary that fits one; or a checkpoint with the weights, averaged
        weights and meta data, without the optimiser's state, which belongs to the parameters that are gone.

    Raises:
        TypeError: a module that has no auxiliary modules to take away.
    """
    if isinstance(model, nn.Module):
        return _strip_module(model)
    if "state_dict" in model:
        kept = {name: value for name, value in model.items() if name in ("meta", "message_hub")}
        for weights in ("state_dict", "ema_state_dict"):
            if weights in model:
                kept[weights] = _strip_state(model[weights])
        return kept
    return _strip_state(model)


def strip_config(model: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the ``model`` of a config into the plain detector's.

    Example:
        >>> strip_config(dict(type="visdet_assigners.CoDINO", num_queries=900, collab=dict(lambda2=1.0)))
        {'type': 'DINO', 'num_queries': 900}
    """
    plain = {name: copy.deepcopy(value) for name, value in model.items() if name not in ADDED_ARGUMENTS}
    kinds = {cls.__name__: cls.plain.__name__ for cls in CollaborativeMixin.__subclasses__()}
    scope, name = scope_and_name(plain["type"])
    if name not in kinds or scope not in ("", SCOPE):
        raise TypeError(f"{plain['type']} has no auxiliary modules; expected one of {', '.join(sorted(kinds))}")
    plain["type"] = kinds[name]
    return type(model)(plain) if isinstance(model, ConfigDict) else plain


def _strip_module(model: nn.Module) -> nn.Module:
    if not isinstance(model, CollaborativeMixin):
        raise TypeError(
            f"{type(model).__name__} has no auxiliary modules; expected a detector such as CoDeformableDETR"
        )
    memo: dict[int, Any] = {id(model.auxiliary): None}  # what is thrown away need not be copied first
    plain = copy.deepcopy(model, memo)
    # A detector does not keep the arguments that it was made with, so the copy itself becomes the plain one.
    for name in ("auxiliary", "collab"):
        delattr(plain, name)
    plain.__class__ = model.plain
    return plain


def _strip_state(state: Mapping[str, T]) -> dict[str, T]:
    """Drop the auxiliary entries; wrapped models put ``module.`` before the names."""
    return {name: value for name, value in state.items() if not name.removeprefix("module.").startswith(AUXILIARY)}
