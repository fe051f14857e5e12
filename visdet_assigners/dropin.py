"""Import me and the own names of mmdet, or of visdet, mean ours.

With ``custom_imports = dict(imports=['visdet_assigners.dropin'], allow_failed_imports=False)`` in a config, every
unmodified mmdet config that says ``ATSSAssigner`` or ``mmdet.ATSSAssigner`` gets the class of this package, and so do
the match costs and IoU calculators, and the types that mmdet's heads write in their code.  ``restore()`` gives mmdet
its classes back.

The same holds in every home that is listed in `registry.HOMES`: in those that are imported already, and in others as
soon as they are.  Where none is, the first that is installed is imported.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

import visdet_assigners.assigners  # noqa: F401  (registers what is to replace theirs)
from visdet_assigners.importing import when_imported
from visdet_assigners.registry import HOMES, REGISTERED, Home, is_ours

_replaced: dict[str, dict[str, type]] = {home.package: {} for home in HOMES}
"""Classes that ours stand in for, by package and name."""
_on = True


def enable() -> list[str]:
    """Put our classes in the place of the classes of the same names, in every home that is imported; again is harmless.

    Returns:
        The names replaced by this call; one log line for each home tells them.
    """
    global _on
    _on = True
    return sorted({name for home in HOMES if home.classes in sys.modules for name in _replace(home)})


def restore() -> list[str]:
    """Give the homes their own classes back.

    Returns:
        The names restored.
    """
    global _on
    _on = False
    restored: set[str] = set()
    for home in HOMES:
        theirs = _replaced[home.package]
        for name in theirs:
            _registry(home).register_module(name=name, module=theirs[name], force=True)
        if theirs:
            _tell(home, f"{home.package} has its own {', '.join(sorted(theirs))} back")
        restored |= theirs.keys()
        theirs.clear()
    return sorted(restored)


def _replace(home: Home) -> list[str]:
    """Put our classes in the place of those of one home, unless ``restore`` was the last word."""
    theirs, registry = _replaced[home.package], _registry(home)
    names = []
    for name, ours in REGISTERED.items() if _on else ():
        holder = registry.module_dict.get(name)
        if holder is None or is_ours(holder):
            continue
        theirs[name] = holder
        registry.register_module(name=name, module=ours, force=True)
        names.append(name)
    if names:
        _tell(home, f"visdet_assigners takes the place of {home.package}'s {', '.join(sorted(names))}")
    return names


def _registry(home: Home) -> Any:
    return importlib.import_module(home.detectors).TASK_UTILS


def _tell(home: Home, text: str) -> None:
    """Log a line where the home logs."""
    logs = importlib.import_module(f"{home.registries.rpartition('.')[0]}.logging")
    logs.print_log(text, "current", logging.INFO)


def _ensure_one() -> None:
    """Import the first home that is installed, where none is imported.

    Raises:
        ModuleNotFoundError: none is installed.
    """
    missing: list[ModuleNotFoundError] = []
    while not any(home.classes in sys.modules for home in HOMES):
        home = HOMES[len(missing)]
        try:
            importlib.import_module(home.classes)
        except ModuleNotFoundError as error:
            if error.name != home.package:  # it is there but broken: its user wants to know
                raise
            missing.append(error)
            if len(missing) == len(HOMES):
                raise missing[0] from None


# A home registers its own assigners when this module of it is imported.  They must come first: registering a name that
# is taken is an error in mmdet, and in visdet the last one has it.
_ensure_one()
for _home in HOMES:
    when_imported(_home.classes, lambda home=_home: _replace(home))  # type: ignore[misc]
