"""Checkpoints that survive a kill and a full disk, and that run no code when they are read.

mmengine writes a checkpoint in place, after it has removed the one that it replaces: a training that is killed in
between, or whose disk is full, is left with half a file and nothing else.  Here a file is there whole or not at all,
and an older one goes last.

A checkpoint is a pickle, which can call any function when it is read.  Here tensors, arrays and mmengine's own records
are read and nothing else, also where mmengine reads the file.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, ClassVar

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner import checkpoint as mmengine_checkpoint

from visdet_assigners.registry import HOOKS
from visdet_assigners.training.randomness import LoaderStates, State, random_state, set_random_state

BACKEND = "visdet_assigners.whole_files"
PART = ".part"
"""Ends the name of a file that is being written."""
STATES = "random_states"
"""Where a checkpoint keeps the random states of each process."""


class CheckpointError(Exception):
    """A checkpoint is not read; the message is one line with the file, the reason and what to do."""


# ---------------------------------------------------------------------------------------------------------- writing


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file under another name, wait until it is on the disk, and only then give it its own.

    Raises:
        OSError: it can't be written; nothing is left of it, and a file that had the name stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}{PART}")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}; what had been written before is still there",
                      str(path)) from error  # fmt: skip
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


class _PointingElsewhere:
    """A runner whose ``last_checkpoint`` mmengine writes into another folder: it empties the file before it writes."""

    def __init__(self, runner: Any, work_dir: str) -> None:
        self._runner = runner
        self.work_dir = work_dir

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` that writes whole files on a local disk and removes older ones afterwards.

    It also keeps the random states of each process and of its workers, so that a resumed training goes on with the very
    losses of an uninterrupted one: after the end of an epoch, or anywhere in a training that counts iterations, with as
    many processes and workers.  A validation leaves the random states as it found them, for it is not repeated.

    Args:
        *args: as in ``CheckpointHook``.
        **kwargs: likewise; with ``backend_args`` of another storage, files are written as mmengine does.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("backend_args") is None and kwargs.get("file_client_args") is None:
            kwargs["backend_args"] = dict(backend=BACKEND)
        super().__init__(*args, **kwargs)
        self._loader: LoaderStates | None = None
        self._resumed: Any = None
        self._gathered: Any = None
        self._before_val: State | None = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Remember the random states."""
        self._resumed = checkpoint.get(STATES)

    def before_train(self, runner: Any) -> None:
        """Go on from the random states of the checkpoint that is resumed; remove what a kill left half written."""
        super().before_train(runner)
        if self.backend_args == dict(backend=BACKEND) and is_main_process():
            for part in (*Path(self.out_dir).glob(f".*.pth{PART}"), Path(runner.work_dir, f".last_checkpoint{PART}")):
                part.unlink(missing_ok=True)
        loader = runner.train_dataloader
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        # Where the sampler can't be told to skip, mmengine loads what was trained on once more, from the seeds on.
        in_stream = by_iter and hasattr(loader.sampler, "skip")
        self._loader = LoaderStates(loader, runner.iter if in_stream else 0)
        if not runner.iter:
            return
        into_epoch = 0 if by_iter else runner.iter - runner.epoch * len(loader)
        if 0 < into_epoch <= len(loader):
            runner.logger.warning(
                f"the checkpoint was written {into_epoch} iterations into epoch {runner.epoch + 1}, which begins "
                "again: they are repeated, and schedules that count iterations are ahead by as many; with "
                "by_epoch=True in the checkpoint hook, checkpoints are written between epochs"
            )
        found = self._resumed[get_rank()] if self._resumed and len(self._resumed) == get_world_size() else None
        if found is None or len(found["workers"]) != loader.num_workers:
            runner.logger.warning("the checkpoint has no random states for this number of processes and workers: the "
                                  "losses will differ from those of an uninterrupted training")  # fmt: skip
            return
        lasting = loader.persistent_workers  # workers that outlive an epoch
        states = found["workers"] if in_stream or (lasting and not by_iter) else None
        self._loader.go_on(found["seeds"], states, quietly=by_iter or lasting)
        set_random_state(found["main"])

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Take the state of the worker out of the batch."""
        if self._loader is not None:
            self._loader.take(data_batch)

    def before_val(self, runner: Any) -> None:
        """Remember the random state of the training."""
        self._before_val = random_state()

    def after_val(self, runner: Any) -> None:
        """Go on with it."""
        if self._before_val is not None:
            set_random_state(self._before_val)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        if self._loader is not None:
            own = dict(main=random_state(), workers=self._loader.states, seeds=self._loader.seeds())
            self._gathered = all_gather_object(own)
        with TemporaryDirectory() as folder:
            super()._save_checkpoint_with_step(_PointingElsewhere(runner, folder), step, meta)
        self._gathered = None
        if is_main_process():
            write_whole(Path(runner.work_dir, "last_checkpoint"), str(self.last_ckpt).encode())

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add the random states of all processes to what is written."""
        if self._gathered is not None:
            checkpoint[STATES] = self._gathered


# ---------------------------------------------------------------------------------------------------------- reading


def read_checkpoint(file: str | Path | IO[bytes], map_location: Any = "cpu") -> Any:
    """Read a checkpoint without running any code that it might hold.

    Admitted are tensors, arrays, and mmengine's own record of the losses.

    Args:
        file: its path, or the file itself.
        map_location: the device of the tensors, as in ``torch.load``.

    Raises:
        CheckpointError: it is damaged, or holds something else.
    """
    try:
        with torch.serialization.safe_globals(_admitted()):
            return torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises errors of several kinds for damaged files
        raise CheckpointError(_refusal(str(file), error)) from error


def _refusal(name: str, error: Exception) -> str:
    found = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module)", str(error))
    reason = f"it holds {found[1]}, which could run code" if found else "it is damaged, or no checkpoint"
    return (
        f"the checkpoint {name} is not loaded: {reason}; if you trust it, save its tensors alone with "
        "torch.save(dict(state_dict=...)) first"
    )


def _admitted() -> list[Any]:
    """What a checkpoint may name besides tensors, for ``torch.serialization.safe_globals``."""
    # Arrays say by what they are built: where numpy keeps it depends on the version, and files outlive versions.
    built_by: list[Any] = [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]
    moved = [(one, f"numpy.{core}.multiarray.{one.__name__}") for one in built_by for core in ("core", "_core")]
    dtypes = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    return [HistoryBuffer, np.ndarray, np.dtype, *built_by, *moved, *dtypes, (_history_method, "builtins.getattr")]


def _history_method(owner: Any, name: str) -> Any:
    """Stand in for ``getattr``, by which a pickled ``HistoryBuffer`` names its own methods."""
    if owner is not HistoryBuffer and not isinstance(owner, HistoryBuffer):
        raise TypeError(f"a checkpoint asks for {name} of {owner!r}")
    return getattr(owner, name)


def guard_mmengine() -> None:
    """Make mmengine read checkpoints by `read_checkpoint` from now on, wherever they come from.

    Left alone, onedl-mmengine reads a file that holds more than weights once more, code and all, and reads what an
    address or a name like ``torchvision://resnet50`` stands for in that way to begin with.
    """
    loader = mmengine_checkpoint.CheckpointLoader
    loader.register_scheme(prefixes="", loader=load_from_local, force=True)
    for name, ours in (("_safe_torch_load", _for_mmengine), ("load_url", _download)):
        setattr(mmengine_checkpoint, name, ours)


def load_from_local(filename: str, map_location: Any) -> Any:
    """Read a local file for mmengine, which takes the name of this function for its log."""
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} doesn't exist")
    return _for_mmengine(path, map_location)


def _for_mmengine(file: Any, map_location: Any = None, weights_only: Any = None) -> Any:
    """Read for mmengine, whose ``resume`` would run the config that a checkpoint can hold as text, to count GPUs."""
    checkpoint = read_checkpoint(file, map_location)
    meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
    if isinstance(meta, dict):
        meta.pop("config", None)
    return checkpoint


def _download(url: str, **options: Any) -> Any:
    """Read what an address holds."""
    try:
        with torch.serialization.safe_globals(_admitted()):
            return torch.hub.load_state_dict_from_url(url, **options, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(_refusal(url, error)) from error


# --------------------------------------------------------------------------------------------------------- resuming


def checkpoints_of(folder: str | Path) -> list[Path]:
    """Return the checkpoints of a work folder that a training can be resumed from, the newest first."""
    numbered = [(found[1], path) for path in Path(folder).glob("*.pth") if (found := _NUMBER.fullmatch(path.name))]
    return [path for _, path in sorted(numbered, key=lambda one: int(one[0]), reverse=True)]


_NUMBER = re.compile(r"(?:epoch|iter)_(\d+)\.pth")


def check_sums(path: str | Path) -> None:
    """Compare what a checkpoint holds with the checksums that torch wrote beside it, which torch doesn't.

    Raises:
        CheckpointError: a bit is not what it was when the file was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {error}") from error
    if altered:
        raise CheckpointError(f"the checkpoint {path} is damaged: {altered} in it is not what was written")


def strays(folder: str | Path) -> str | None:
    """Return where ``last_checkpoint`` of a work folder points to, if that is outside the folder."""
    pointer = Path(folder, "last_checkpoint")
    target = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else ""
    if target and Path(target).resolve().parent != Path(folder).resolve():
        return target
    return None
