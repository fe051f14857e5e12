"""Import me and mmdet's own names mean ours.

With ``custom_imports = dict(imports=['visdet_assigners.dropin'], allow_failed_imports=False)`` in a config, every
unmodified mmdet config that says ``ATSSAssigner`` or ``mmdet.ATSSAssigner`` gets the class of this package, and so do
the match costs and IoU calculators, and the types that mmdet's heads write in their code.  ``restore`` gives mmdet its
classes back.
"""

from __future__ import annotations

import importlib
import logging

from mmengine.logging import print_log

import visdet_assigners.assigners  # noqa: F401  (registers what is to replace mmdet's)
from visdet_assigners.registry import REGISTERED, is_ours

# mmdet registers its assigners when this module is imported.  It must come first: registering a name that is taken is
# an error there.
importlib.import_module("mmdet.models.task_modules")
MMDET = importlib.import_module("mmdet.registry").TASK_UTILS

_replaced: dict[str, type] = {}


def enable() -> list[str]:
    """Put our classes in the place of mmdet's classes of the same names; again is harmless.

    Returns:
        The names replaced by this call; one log line tells them.
    """
    names = []
    for name, ours in REGISTERED.items():
        theirs = MMDET.module_dict.get(name)
        if theirs is None or is_ours(theirs):
            continue
        _replaced[name] = theirs
        MMDET.register_module(name=name, module=ours, force=True)
        names.append(name)
    if names:
        print_log(f"visdet_assigners takes the place of mmdet's {', '.join(sorted(names))}", "current", logging.INFO)
    return sorted(names)


def restore() -> list[str]:
    """Give mmdet its own classes back.

    Returns:
        The names restored.
    """
    names = sorted(_replaced)
    for name in names:
        MMDET.register_module(name=name, module=_replaced.pop(name), force=True)
    if names:
        print_log(f"mmdet has its own {', '.join(names)} back", "current", logging.INFO)
    return names


enable()
