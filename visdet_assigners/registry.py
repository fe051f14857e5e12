"""Where configs find the package: in each home, a child registry with a scope of its own, and the root.

``type='visdet_assigners.ATSSAssigner'`` makes mmengine import this module, then the child registry imports the
assigners; no ``custom_imports`` is needed.  The same classes stand in mmengine's root ``TASK_UTILS``, so that names
which mmdet lacks resolve without a prefix once the package is imported.  visdet, which has registries of its own, is a
home as well, whichever of the two is imported first; it is never imported from here.  Without any home the classes
still work, built directly.
"""

from __future__ import annotations

import importlib
import logging
import sys
from abc import ABCMeta
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from visdet_assigners.importing import when_imported

SCOPE = "visdet_assigners"
ADAPTING = f"{SCOPE}.adapting"
REGISTERED: dict[str, type] = {}
"""Every registered class of the package by name."""

T = TypeVar("T", bound=type)


def is_ours(cls: type) -> bool:
    """Whether a class comes from this package."""
    return cls.__module__.split(".")[0] == SCOPE


@dataclass
class Home:
    """A framework whose configs find our classes.

    Attributes:
        package: whose detectors ours serve.
        registries: module with ``Registry`` and the root ``TASK_UTILS``.
        detectors: module with the ``TASK_UTILS`` in which the package's detectors look.
        classes: module whose import registers the package's own assigners.
        root: the root registry, None until the home is open.
        child: ours below it, likewise.
    """

    package: str
    registries: str
    detectors: str
    classes: str
    root: Any = None
    child: Any = None

    def open(self) -> None:
        """Register everything that the package has, and from now on what it gets."""
        module = importlib.import_module(self.registries)
        self.root = module.TASK_UTILS
        self.child = module.Registry("task util", parent=self.root, scope=SCOPE, locations=[SCOPE])
        for cls in REGISTERED.values():
            self.take(cls)

    def open_later(self) -> None:
        """Open after somebody's import, which goes on whatever is amiss here."""
        try:
            self.open()
        except (ImportError, AttributeError) as error:
            told = "%s has no registry that we know (%s): its configs find ours by their import path alone"
            logging.getLogger(SCOPE).warning(told, self.package, error)

    def take(self, cls: type) -> None:
        """Register a class, in the root unless its name is taken there."""
        name = cls.__name__
        self.child.register_module(name=name, module=cls, force=True)
        holder = self.root.module_dict.get(name)
        if holder is None or is_ours(holder):
            self.root.register_module(name=name, module=cls, force=True)
        elif holder.__module__.split(".")[0] != self.package:  # its own classes are `dropin`'s business
            logging.getLogger(SCOPE).warning(
                "%s in %s's root registry belongs to %s; write type='%s.%s' for ours",
                name, self.registries.rpartition(".")[0], holder.__module__, SCOPE, name,
            )  # fmt: skip

    def knows(self, kind: str) -> bool:
        """Whether a type's name leads to something here."""
        try:
            return self.child.get(kind) is not None
        except (ImportError, KeyError, RuntimeError):
            return False


HOMES = (
    Home("mmdet", "mmengine.registry", "mmdet.registry", "mmdet.models.task_modules"),
    Home("visdet", "visdet.engine.registry", "visdet.registry", "visdet.models.task_modules"),
)
"""The list of homes.  The first is entered now, where mmengine is installed; another when it has been imported."""

TASK_UTILS: Any = None
"""The child registry in mmengine; None where that is not installed."""

MODELS: Any = None
"""The child registry of our heads, likewise; it imports them, and mmdet with them, when it is first asked for one."""

HOOKS: Any = None
"""The child registry of our hooks, likewise."""

TRANSFORMS: Any = None
"""The child registry of our transforms, likewise."""

try:
    from mmengine.registry import HOOKS as ROOT_HOOKS
    from mmengine.registry import MODELS as ROOT_MODELS
    from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
    from mmengine.registry import Registry
except ModuleNotFoundError as error:
    if error.name != "mmengine":  # mmengine is there but broken: its user wants to know
        raise
else:
    HOMES[0].open()
    TASK_UTILS = HOMES[0].child
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

for later in HOMES[1:]:
    when_imported(later.classes, later.open_later)


def register(cls: T) -> T:
    """Class decorator: make a class known to configs under its own name.

    Registering the same class again, as a reload does, replaces it.  A name that another plugin has put into a home's
    root stays theirs, with a line in the log; ours is then reached with the prefix ``visdet_assigners.`` alone.

    Raises:
        KeyError: another class of this package has the name.
    """
    name = cls.__name__
    known = REGISTERED.get(name)
    if known is not None and known.__module__ != cls.__module__:
        raise KeyError(f"{name} is registered by {known.__module__} already; {cls.__module__} must choose another name")
    REGISTERED[name] = cls
    for home in HOMES:
        if home.child is not None:
            home.take(cls)
    return cls


def adopt(cls: type) -> None:
    """Make a class count as a home's class of the same name in ``isinstance``, where the home's assigners are loaded.

    Cascade RPN asks for its ``RegionAssigner`` so.  Nothing is imported for it: before it is, nobody can ask.
    """
    for home in HOMES:
        theirs = getattr(sys.modules.get(f"{home.classes}.assigners"), cls.__name__, None)
        if isinstance(theirs, ABCMeta) and not issubclass(cls, theirs):
            theirs.register(cls)


def adapt_heads() -> None:
    """Let mmdet's dense heads feed assigners that they were not written for, where they are loaded.

    Called when an assigner is built: heads build theirs, so they are loaded before, whole.
    """
    if "mmdet.models.detectors" in sys.modules and ADAPTING not in sys.modules:
        importlib.import_module(ADAPTING)


def build(config: Any) -> Any:
    """Build a match cost or an IoU calculator that an assigner was given.

    Args:
        config: a dictionary with ``type`` (a name or a class), or a ready object, which is returned as it is.  A name
            of this package means ours, with or without prefix; others are looked up as mmengine does, in the default
            scope first, or in the first home that knows them.

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
            homes = [home for home in HOMES if home.child is not None]
            if not homes:
                raise KeyError(f"{kind!r} is not one of ours and mmengine isn't installed; ours: {sorted(REGISTERED)}")
            known = next((home for home in homes if home.knows(kind)), homes[0]) if len(homes) > 1 else homes[0]
            try:
                return known.child.build(config)
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
    children = [child for home in HOMES if home.root is not None for child in home.root.children.items()]
    scopes = sorted(scope for scope, registry in children if scope != SCOPE and own in registry.module_dict)
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
