"""Checkpoints that survive a kill and a full disk: a file is there whole or not at all, and an older one goes last.

mmengine writes a checkpoint in place, after it has removed the one that it replaces: a training that is killed in
between, or whose disk is full, is left with half a file and nothing else.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook

from visdet_assigners.registry import HOOKS

BACKEND = "visdet_assigners.whole_files"


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file under another name, wait until it is on the disk, and only then give it its own.

    Raises:
        OSError: it can't be written; nothing is left of it, and a file that had the name stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class WholeFilesBackend(LocalBackend):
    """The local file system, where what is to be removed is removed once the next file is there whole."""

    outdated: ClassVar[set[str]] = set()
    """Files to remove; mmengine makes a new backend for each call, so all of them share it."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file whole, then remove the outdated ones."""
        write_whole(filepath, obj)
        for path in list(self.outdated - {str(filepath)}):
            super().remove(path)
        self.outdated.clear()

    def remove(self, filepath: str | Path) -> None:
        """Remember to remove a file."""
        self.outdated.add(str(filepath))


register_backend(BACKEND, WholeFilesBackend, force=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` that writes whole files on a local disk and removes older ones afterwards.

    Args:
        *args: as in ``CheckpointHook``.
        **kwargs: likewise; with ``backend_args`` of another storage it is mmengine's hook unchanged.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("backend_args") is None and kwargs.get("file_client_args") is None:
            kwargs["backend_args"] = dict(backend=BACKEND)
        super().__init__(*args, **kwargs)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        pointer = Path(runner.work_dir, "last_checkpoint")
        if pointer.is_file() and self.backend_args == dict(backend=BACKEND):
            write_whole(pointer, str(self.last_ckpt).encode())


def checkpoints_of(folder: str | Path) -> list[Path]:
    """Return the checkpoints of a work folder that a training can be resumed from, the newest first."""
    numbered = [(found[1], path) for path in Path(folder).glob("*.pth") if (found := _NUMBER.fullmatch(path.name))]
    return [path for _, path in sorted(numbered, key=lambda one: int(one[0]), reverse=True)]


_NUMBER = re.compile(r"(?:epoch|iter)_(\d+)\.pth")
