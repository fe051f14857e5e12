"""Errors of mmengine and Python that are mistakes in a config, in one line each."""

from __future__ import annotations

import difflib
import re
import traceback
from importlib.util import find_spec
from pathlib import Path

from visdet_assigners.training.resolving import constructors


def explain(error: BaseException) -> str | None:
    """Say what is wrong with a config: a type that is unknown, an option, a missing package; None if none is."""
    return _unknown_type(error) or _unknown_option(error) or _missing_package(error)


def told(error: BaseException) -> str:
    """An error of somebody else's code in one line: what is missing where that is known, else what and where it was.

    With ``$VISDET_TRACEBACK`` set, the commands print the traceback before the line.
    """
    message = " ".join(str(error).split())
    operator = re.search(r"(\w+?)(_forward)?_impl: implementation for device (\w+) not found", message)
    if operator:
        return f"mmcv has no {operator[1]} for the device {operator[3]}; run this where there is a GPU"
    known = explain(error)
    if known is not None:
        return known
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    last = f"{'/'.join(Path(places[-1].filename).parts[-3:])}, line {places[-1].lineno}; " if places else ""
    return f"{type(error).__name__}: {message}".rstrip(": ") + f" ({last}VISDET_TRACEBACK=1 shows the way there)"


def _unknown_type(error: BaseException) -> str | None:
    text = str(error.args[0]) if error.args else ""
    unknown = re.search(r"(\S+) is not in the (\S+ ?\S*) registry", text) if isinstance(error, KeyError) else None
    if unknown is None:
        return None
    package = unknown[1].partition(".")[0]
    advice = "check the spelling, or import its module with custom_imports in the config"
    if package and "." in unknown[1] and find_spec(package) is None:
        advice = f"the package {package} isn't installed here"
    return f"the config asks for the type {unknown[1]}, but the {unknown[2]} registry doesn't have it; {advice}"


def _unknown_option(error: BaseException) -> str | None:
    """Say which option of a config a constructor doesn't take, or lacks, where mmengine has just called it."""
    found = re.search(r"got an unexpected keyword argument '(\w+)'|missing \d+ required .*", str(error))
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "build_from_cfg"]
    if not isinstance(error, TypeError) or found is None or not frames:
        return None
    options, cls = frames[-1].f_locals.get("args", {}), frames[-1].f_locals.get("obj_cls")
    innermost = list(traceback.walk_tb(error.__traceback__))[-1][0] is frames[-1]
    if cls is None or not (innermost or found[1] in options):
        return None
    name = getattr(cls, "__name__", str(cls))
    if not found[1]:
        return f"{name} of the config: it lacks options: {found[0]}"
    known = [one for parameters in constructors(cls) for one in parameters]
    near = difflib.get_close_matches(found[1], known, n=1)
    return f"{name} of the config has no option {found[1]}" + (f"; did you mean {near[0]}?" if near else "")


def _missing_package(error: BaseException) -> str | None:
    """Say which package is missing, as Python, mmengine or mmdet's own messages name it."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        ours = package == __package__.partition(".")[0]
        return None if ours else f"the config needs the package {package}, which isn't installed: pip install {package}"
    text = str(error)
    named = isinstance(error, (ImportError, RuntimeError, NotImplementedError)) and re.search(
        r"not installed|(?i:please (install|run)).*pip install", text, re.DOTALL
    )
    return f"the config needs a package that is missing: {text}" if named else None
