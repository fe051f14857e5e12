"""A mistake of the user ends in one line, not in a traceback."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb

from visdet_assigners.errors import UserError
from visdet_assigners.training.checkpoints import CheckpointError
from visdet_assigners.training.images import ImageError
from visdet_assigners.training.resolving import constructors


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn mistakes of the user into one line and exit status 2; anything else keeps its traceback.

    Besides `UserError`, which our own checks raise, and a checkpoint or an image that is not read, these are the user's
    for certain: a ``type`` that no registry knows, an option that its class doesn't have, a package that is missing.
    """
    try:
        yield
    except (UserError, CheckpointError) as error:
        message: str | None = str(error)
    except ImageError as error:  # that of a worker ends with the message, after the worker's traceback
        message = str(error).strip().splitlines()[-1].removeprefix(f"{ImageError.__module__}.ImageError: ")
    except (KeyError, TypeError, ImportError, RuntimeError) as error:
        message = _unknown_type(error) or _unknown_option(error) or _missing_package(error)
        if message is None:
            raise
    else:
        return
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)


def _unknown_type(error: Exception) -> str | None:
    text = str(error.args[0]) if error.args else ""
    unknown = re.search(r"(\S+) is not in the (\S+ ?\S*) registry", text) if isinstance(error, KeyError) else None
    if unknown is None:
        return None
    package = unknown[1].partition(".")[0]
    advice = "check the spelling, or import its module with custom_imports in the config"
    if package and "." in unknown[1] and find_spec(package) is None:
        advice = f"the package {package} isn't installed here"
    return f"the config asks for the type {unknown[1]}, but the {unknown[2]} registry doesn't have it; {advice}"


def _unknown_option(error: Exception) -> str | None:
    """Say which option of a config a constructor doesn't take, or lacks, where mmengine has just called it."""
    found = re.search(r"got an unexpected keyword argument '(\w+)'|missing \d+ required .*", str(error))
    frames = [frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "build_from_cfg"]
    if not isinstance(error, TypeError) or found is None or not frames:
        return None
    options, cls = frames[-1].f_locals.get("args", {}), frames[-1].f_locals.get("obj_cls")
    innermost = list(walk_tb(error.__traceback__))[-1][0] is frames[-1]
    if cls is None or not (innermost or found[1] in options):
        return None
    name = getattr(cls, "__name__", str(cls))
    if not found[1]:
        return f"{name} of the config: it lacks options: {found[0]}"
    known = [one for parameters in constructors(cls) for one in parameters]
    near = difflib.get_close_matches(found[1], known, n=1)
    return f"{name} of the config has no option {found[1]}" + (f"; did you mean {near[0]}?" if near else "")


def _missing_package(error: Exception) -> str | None:
    """Say which package is missing, as Python, mmengine or mmdet's own messages name it."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        ours = package == __package__.partition(".")[0]
        return None if ours else f"the config needs the package {package}, which isn't installed: pip install {package}"
    text = str(error)
    named = re.search(r"not installed|(?i:please (install|run)).*pip install", text, re.DOTALL)
    return f"the config needs a package that is missing: {text}" if named else None
