"""The assigners that a config names: whose they are, and whether each can be built."""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

import visdet_assigners.assigners  # noqa: F401  (registers our classes)
from visdet_assigners.errors import UserError
from visdet_assigners.registry import REGISTERED, SCOPE, is_ours, scope_and_name, typed_nodes


def apply_assigners(cfg: Config, which: str) -> None:
    """Make the assigners, match costs and IoU calculators of the config ours or mmdet's.

    Args:
        cfg: changed in place.
        which: ``'config'`` changes nothing; ``'visdet'`` gives mmdet's names our classes, also where a head writes
            the name in its code; ``'mmdet'`` undoes that, and asks mmdet for every type that is ours.
    """
    if which == "config":
        return
    from mmdet.registry import TASK_UTILS as MMDET

    MMDET.import_from_location()
    if which == "visdet":
        importlib.import_module(f"{SCOPE}.dropin").enable()
    elif f"{SCOPE}.dropin" in sys.modules:  # the config has imported it
        sys.modules[f"{SCOPE}.dropin"].restore()
    foreign, wanted = ("mmdet", SCOPE) if which == "visdet" else (SCOPE, "mmdet")
    for path, node in typed_nodes(cfg.get("model"), "model"):
        scope, name = scope_and_name(node["type"])
        if name not in REGISTERED or scope not in (foreign, "mmengine", ""):
            continue
        if which == "mmdet" and name not in MMDET.module_dict:
            raise UserError(f"--assigners mmdet: mmdet has no {name}, which the config names at {path}")
        # A class object reaches no registry, so it is replaced.  A name that the drop-in serves can stay, and a plain
        # one must: RepPointsHead asks whether its assigner's type reads PointAssigner, and trains otherwise if not.
        if (which == "mmdet" and scope) or not isinstance(node["type"], str):
            node["type"] = f"{wanted}.{name}"


def assigner_nodes(cfg: Config) -> Iterator[tuple[str, Any]]:
    """Yield ``(path, dict)`` for every assigner of the model."""
    for path, node in typed_nodes(cfg.get("model") or {}, "model"):
        if re.search(r"assigner(\.\d+)?$", path):
            yield path, node


def scope_of_model(cfg: Config) -> str:
    """Return the registry's scope in which mmengine looks up the types of a config's model."""
    return (cfg.get("model") or {}).get("_scope_") or cfg.get("default_scope") or "mmdet"


def check_assigners(cfg: Config) -> None:
    """Build each assigner of the model once, so that a wrong name or option is told before anything else is built.

    Raises:
        UserError: an assigner, a match cost or an IoU calculator that no registry has, or an argument or a value that
            its constructor refuses.
    """
    from mmdet.registry import TASK_UTILS

    with DefaultScope.overwrite_default_scope(scope_of_model(cfg)):
        for path, node in assigner_nodes(cfg):
            _check_types_and_options(path, node, TASK_UTILS)
            try:
                TASK_UTILS.build(copy.deepcopy(node))
            except (ValueError, AssertionError) as error:  # a value that the constructor refuses
                if not str(error):
                    raise
                raise UserError(f"{path}: {error}") from error


def _check_types_and_options(path: str, node: Mapping, registry: Any, inside_ours: bool = False) -> None:
    """Check ``node`` and the costs and calculators in it against the constructors of their classes.

    Our assigners take a cost or a calculator of ours where we have one of that name, with or without prefix.
    """
    options = {key: value for key, value in node.items() if key not in ("type", "_scope_")}
    with registry.switch_scope_and_registry(node.get("_scope_")) as scoped:
        kind = node["type"]
        if isinstance(kind, str):
            kind = (REGISTERED.get(kind) if inside_ours else None) or scoped.get(kind)
        if kind is None:
            raise UserError(f"{path}: there is no {node['type']} in the registry {scoped.scope}::{scoped.name}"
                            f"{_suggestion(node['type'], scoped)}")  # fmt: skip
        try:
            signature = inspect.signature(kind)
            signature.bind(**options)
        except TypeError as error:
            raise UserError(f"{path}: {kind.__name__}: {error}; its options are "
                            f"{', '.join(signature.parameters) or 'none'}") from error  # fmt: skip
        for key, value in options.items():
            for index, item in enumerate(value) if isinstance(value, (list, tuple)) else [("", value)]:
                if isinstance(item, Mapping) and "type" in item:
                    _check_types_and_options(f"{path}.{key}.{index}".rstrip("."), item, registry, is_ours(kind))


def _suggestion(kind: str, registry: Any) -> str:
    """The nearest names, with the scope that was asked for."""
    scope, name = scope_and_name(kind)
    known = REGISTERED if scope == SCOPE else {**registry.module_dict, **({} if scope else REGISTERED)}
    near = [f"{scope}.{other}".lstrip(".") for other in difflib.get_close_matches(name, known, n=3)]
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return "; check the spelling, or import its module with custom_imports in the config"
