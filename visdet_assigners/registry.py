"""Where mmengine finds the package: a child registry of ``TASK_UTILS`` with a scope of its own, and the root.

``type='visdet_assigners.ATSSAssigner'`` makes mmengine import this module, then the child registry imports the
assigners; no ``custom_imports`` is needed.  The same classes stand in mmengine's root ``TASK_UTILS``, so that names
which mmdet lacks resolve without a prefix once the package is imported.  Without mmengine the classes still work,
built directly.
"""

from __future__ import annotations

import logging
import sys
from abc import ABCMeta
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

SCOPE = "visdet_assigners"
REGISTERED: dict[str, type] = {}
"""Every registered class of the package by name."""

TASK_UTILS: Any = None
"""The child registry; None where mmengine is not installed."""

MODELS: Any = None
"""The child registry of our heads, likewise; it imports them, and mmdet with them, when it is first asked for one."""

HOOKS: Any = None
"""The child registry of our hooks, likewise."""

TRANSFORMS: Any = None
"""The child registry of our transforms, likewise."""

try:
    from mmengine.registry import HOOKS as ROOT_HOOKS
    from mmengine.registry import MODELS as ROOT_MODELS
    from mmengine.registry import TASK_UTILS as ROOT
    from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
    from mmengine.registry import Registry
except ModuleNotFoundError as error:
    if error.name != "mmengine":  # mmengine is there but broken: its user wants to know
        raise
else:
    TASK_UTILS = Registry("task util", parent=ROOT, scope=SCOPE, locations=[SCOPE])
    MODELS = Registry("model", parent=ROOT_MODELS, scope=SCOPE, locations=[f"{SCOPE}.heads", f"{SCOPE}.codetr"])
    HOOKS = Registry(
        "hook", parent=ROOT_HOOKS, scope=SCOPE, locations=[f"{SCOPE}.observe.hook", f"{SCOPE}.training.checkpoints"]
    )
    TRANSFORMS = Registry(
        "transform",
        parent=ROOT_TRANSFORMS,
        scope=SCOPE,
        locations=[f"{SCOPE}.training.images", f"{SCOPE}.training.proposals"],
    )

T = TypeVar("T", bound=type)


def is_ours(cls: type) -> bool:
    """Whether a class comes from this package."""
    return cls.__module__.split(".")[0] == SCOPE


def register(cls: T) -> T:
    """Class decorator: make a class known to configs under its own name.

    Registering the same class again, as a reload does, replaces it.  A name that another plugin has put into mmengine's
    root stays theirs, with a line in the log; ours is then reached with the prefix ``visdet_assigners.`` alone.

    Raises:
        KeyError: another class of this package has the name.
    """
    name = cls.__name__
    known = REGISTERED.get(name)
    if known is not None and known.__module__ != cls.__module__:
        raise KeyError(f"{name} is registered by {known.__module__} already; {cls.__module__} must choose another name")
    REGISTERED[name] = cls
    if TASK_UTILS is not None:
        TASK_UTILS.register_module(name=name, module=cls, force=True)
        holder = ROOT.module_dict.get(name)
        if holder is None or is_ours(holder):
            ROOT.register_module(name=name, module=cls, force=True)
        else:
            logging.getLogger(SCOPE).warning(
                "%s in mmengine's root registry belongs to %s; write type='%s.%s' for ours",
                name, holder.__module__, SCOPE, name,
            )  # fmt: skip
    return cls


def adopt(cls: type) -> None:
    """Make a class count as mmdet's class of the same name in ``isinstance``, where mmdet's assigners are loaded.

    Cascade RPN asks for its ``RegionAssigner`` so.  mmdet is not imported for it: before it is, nobody can ask.
    """
    theirs = getattr(sys.modules.get("mmdet.models.task_modules.assigners"), cls.__name__, None)
    if isinstance(theirs, ABCMeta) and not issubclass(cls, theirs):
        theirs.register(cls)


def build(config: Any) -> Any:
    """Build a match cost or an IoU calculator that an assigner was given.

    Args:
        config: a dictionary with ``type`` (a name or a class), or a ready object, which is returned as it is.  A name
            of this package means ours, with or without prefix; others are looked up as mmengine does, in the default
            scope first.

    Raises:
        KeyError: nobody knows the name, or a package does whose scope must stand in front of it.
        TypeError: the dictionary has no ``type``.
    """
    if not isinstance(config, Mapping):
        return config
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if kind is None:
        raise TypeError(f"{arguments} has no 'type'; write for instance dict(type='BboxOverlaps2D')")
    if isinstance(kind, str):
        name = kind.removeprefix(f"{SCOPE}.")
        if name not in REGISTERED:
            if TASK_UTILS is None:
                raise KeyError(f"{kind!r} is not one of ours and mmengine isn't installed; ours: {sorted(REGISTERED)}")
            try:
                return TASK_UTILS.build(config)
            except KeyError as error:
                if f"{kind} is not in" not in str(error):
                    raise
                raise KeyError(f"{kind!r} is none of ours, {where_it_is(kind)}") from error
        kind = REGISTERED[name]
    arguments.pop("_scope_", None)
    return kind(**arguments)


def where_it_is(name: str) -> str:
    """How a config reaches a task util that the scope at hand doesn't have: by its package's scope in front of it."""
    own = name.rpartition(".")[2]
    homes = {scope: registry.module_dict for scope, registry in ROOT.children.items() if scope != SCOPE}
    scopes = sorted(scope for scope, known in homes.items() if own in known)
    if scopes:
        return "and not in the scope at hand; write " + " or ".join(f"type='{scope}.{own}'" for scope in scopes)
    return "and no package that is loaded has it; write its package's scope in front of it and import that package"


def typed_nodes(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield ``(path, dict)`` for every dict with a ``type`` at or below ``value``."""
    if isinstance(value, Mapping):
        if "type" in value:
            yield path, value
        for key in value:
            yield from typed_nodes(value[key], f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from typed_nodes(item, f"{path}.{index}")


def scope_and_name(kind: Any) -> tuple[str, str]:
    """Split ``'mmdet.X'`` or a class into the package and the name of the class."""
    if isinstance(kind, str):
        scope, _, name = kind.rpartition(".")
        return scope, name
    return getattr(kind, "__module__", "").partition(".")[0], getattr(kind, "__name__", "")
