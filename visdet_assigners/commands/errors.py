"""A mistake of the user, and Ctrl-C, end in one line, not in a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from visdet_assigners.errors import UserError
from visdet_assigners.training.checkpoints import CheckpointError
from visdet_assigners.training.config_errors import explain
from visdet_assigners.training.images import ImageError

Item = TypeVar("Item")
INTERRUPTED = 130
"""Exit status of what Ctrl-C has ended, as shells give it."""


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
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
    else:
        return
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)


class UntilInterrupted(Generic[Item]):
    """Some items, until Ctrl-C: it ends with the one at work, so that what is done can be kept; a second, at once.

    Attributes:
        done: how many items were worked on, whole.
        interrupted: whether Ctrl-C was pressed.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self.items = items
        self.done = 0
        self.interrupted = False

    def __iter__(self) -> Iterator[Item]:
        listening = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, self._note) if listening else None
        try:
            for item in self.items:
                if self.interrupted:
                    return
                yield item
                self.done += 1
                if self.interrupted:
                    return
        finally:
            if listening:
                signal.signal(signal.SIGINT, before)

    def _note(self, *_: Any) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
