"""Mistakes of the user, as the commands and what they check tell them."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path


class UserError(Exception):
    """A mistake of the user, told in one line: what was wrong and what to do."""


def check_file(path: str, what: str, advice: str) -> None:
    """Raise `UserError` where ``path``, called ``what``, is no file; addresses (``https://``) are left to mmengine."""
    if "://" not in path and not os.path.isfile(path):
        state = "is a folder" if os.path.isdir(path) else "doesn't exist"
        raise UserError(f"the {what} {path} {state}; {advice}")


def told(error: BaseException) -> str:
    """An error of somebody else's code in one line: what is missing where that is known, else what and where it was.

    With ``$VISDET_TRACEBACK`` set, the commands print the traceback before the line.
    """
    message = " ".join(str(error).split())
    operator = re.search(r"(\w+?)(_forward)?_impl: implementation for device (\w+) not found", message)
    if operator:
        return f"mmcv has no {operator[1]} for the device {operator[3]}; run this where there is a GPU"
    if is_missing_package(error):
        return f"a package is missing: {message}"
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    last = f"{'/'.join(Path(places[-1].filename).parts[-3:])}, line {places[-1].lineno}; " if places else ""
    return f"{type(error).__name__}: {message}".rstrip(": ") + f" ({last}VISDET_TRACEBACK=1 shows the way there)"


def is_missing_package(error: BaseException) -> bool:
    """Whether an error says that something has to be installed; mmdet's classes do so when they are built or called."""
    return isinstance(error, ModuleNotFoundError) or (
        isinstance(error, (ImportError, RuntimeError, NotImplementedError))
        and re.search(r"is not installed|[Pp]lease install|pip install", str(error)) is not None
    )
