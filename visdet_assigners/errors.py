"""Mistakes of the user, as the commands and what they check tell them."""

from __future__ import annotations

import os
from dataclasses import dataclass


class UserError(Exception):
    """A mistake of the user, told in one line: what was wrong and what to do."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a config or its data; as text, one line.

    Attributes:
        where: path in the config, such as ``model.bbox_head``, or a file; may be empty.
        what: is wrong, and what to do.
        fatal: whether it stops a training or makes it wrong; otherwise it is to be known.
    """

    where: str
    what: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def check_file(path: str, what: str, advice: str) -> None:
    """Raise `UserError` where ``path``, called ``what``, is no file; addresses (``https://``) are left to mmengine."""
    if "://" not in path and not os.path.isfile(path):
        state = "is a folder" if os.path.isdir(path) else "doesn't exist"
        raise UserError(f"the {what} {path} {state}; {advice}")
