"""Mistakes of the user, as the commands and what they check tell them."""

from __future__ import annotations

import os


class UserError(Exception):
    """A mistake of the user, told in one line: what was wrong and what to do."""


def check_file(path: str, what: str, advice: str) -> None:
    """Raise `UserError` where ``path``, called ``what``, is no file; addresses (``https://``) are left to mmengine."""
    if "://" not in path and not os.path.isfile(path):
        state = "is a folder" if os.path.isdir(path) else "doesn't exist"
        raise UserError(f"the {what} {path} {state}; {advice}")
