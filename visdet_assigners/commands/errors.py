"""A mistake of the user ends in one line, not in a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visdet_assigners.errors import UserError
from visdet_assigners.training.checkpoints import CheckpointError
from visdet_assigners.training.config_errors import explain
from visdet_assigners.training.images import ImageError


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
        if error.__cause__ is not None and os.environ.get("VISDET_TRACEBACK"):
            traceback.print_exc()
    except ImageError as error:  # that of a worker ends with the message, after the worker's traceback
        message = str(error).strip().splitlines()[-1].removeprefix(f"{ImageError.__module__}.ImageError: ")
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
    else:
        return
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)
