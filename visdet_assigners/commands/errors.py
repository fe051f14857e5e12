"""A mistake of the user ends in one line, not in a traceback."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visdet_assigners.errors import UserError, is_missing_package, told
from visdet_assigners.training.checkpoints import CheckpointError
from visdet_assigners.training.images import ImageError


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn mistakes of the user into one line and exit status 2; anything else keeps its traceback.

    Besides `UserError`, which our checks raise, and a checkpoint or an image that is not read, some errors of others
    are the user's for certain: a ``type`` that no registry knows, and a package that the config needs and that isn't
    there.
    """
    try:
        yield
    except (UserError, CheckpointError) as error:
        message = str(error)
        if error.__cause__ is not None and os.environ.get("VISDET_TRACEBACK"):
            traceback.print_exc()
    except ImageError as error:  # that of a worker ends with the message, after the worker's traceback
        message = str(error).strip().splitlines()[-1].removeprefix(f"{ImageError.__module__}.ImageError: ")
    except KeyError as error:
        message = str(error.args[0]) if error.args else ""
        unknown = re.search(r"(\S+) is not in the (\S+ ?\S*) registry", message)
        if unknown is None:
            raise
        message = (
            f"the config asks for the type {unknown[1]}, but the {unknown[2]} registry doesn't have it; "
            "check the spelling, or import its module with custom_imports in the config"
        )
    except Exception as error:
        if not is_missing_package(error):
            raise
        message = told(error)
    else:
        return
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
