"""A checkpoint is there whole or not at all, and an older one is removed when the newer is there."""

import errno
import os
from pathlib import Path

import pytest
import torch
from mmengine.hooks import CheckpointHook

from linear_training import train
from visdet_assigners.training import checkpoints
from visdet_assigners.training.checkpoints import (
    BACKEND,
    SafeCheckpointHook,
    WholeFilesBackend,
    checkpoints_of,
    write_whole,
)


def names(folder):
    return sorted(path.name for path in Path(folder).glob("*.pth"))


@pytest.fixture
def full_disk(monkeypatch):
    """The disk is full from the second checkpoint on, in the middle of the file."""
    fsync, written = os.fsync, []

    def fail(file):
        written.append(file)
        if len(written) > 2:  # a checkpoint and the pointer to it
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(checkpoints.os, "fsync", fail)


def test_as_mmengine(tmp_path):
    for keep in (1, 2, -1):
        ours, theirs = tmp_path / f"ours{keep}", tmp_path / f"theirs{keep}"
        train(ours, 4, max_keep_ckpts=keep)
        train(theirs, 4, "CheckpointHook", max_keep_ckpts=keep)
        assert names(ours) == names(theirs)
        assert (ours / "last_checkpoint").read_text() == str(ours / "epoch_4.pth")
        assert torch.load(ours / "epoch_4.pth", weights_only=False)["meta"]["epoch"] == 4
        assert not list(ours.glob(".*"))


def test_a_full_disk_loses_no_older_checkpoint(tmp_path, full_disk):
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path, 3, max_keep_ckpts=1)
    assert names(tmp_path) == ["epoch_1.pth"]
    assert not list(tmp_path.glob(".*"))
    assert torch.load(tmp_path / "epoch_1.pth", weights_only=False)["meta"]["epoch"] == 1
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_1.pth")


def test_mmengine_loses_it(tmp_path, monkeypatch):
    """What this is for; where mmengine learns to write whole files, the hook may go."""
    put, written = checkpoints.LocalBackend.put, []

    def fail(self, obj, filepath):
        written.append(filepath)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, obj, filepath)

    monkeypatch.setattr(checkpoints.LocalBackend, "put", fail)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path, 3, "CheckpointHook", max_keep_ckpts=1)
    assert names(tmp_path) == []


def test_resumed_from_the_newest(tmp_path):
    train(tmp_path, 2)
    runner = train(tmp_path, 3)
    assert runner.epoch == 3
    assert [path.name for path in checkpoints_of(tmp_path)] == ["epoch_3.pth", "epoch_2.pth", "epoch_1.pth"]


def test_numbers_are_ordered_as_numbers(tmp_path):
    for name in ("epoch_9.pth", "epoch_10.pth", "best_coco_epoch_11.pth", "epoch_12.pth.part"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints_of(tmp_path)] == ["epoch_10.pth", "epoch_9.pth"]


def test_whole_files(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "a.bin"
    write_whole(path, b"one")
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"
    assert [one.name for one in path.parent.iterdir()] == ["a.bin"]


def test_a_file_written_again_is_not_removed(tmp_path):
    backend = WholeFilesBackend()
    for name in ("a", "b"):
        backend.put(b"", tmp_path / name)
        backend.remove(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"b"}  # a went when b was there
    backend.put(b"", tmp_path / "b")
    assert {path.name for path in tmp_path.iterdir()} == {"b"}


def test_other_storage_is_left_to_mmengine():
    assert SafeCheckpointHook(interval=1).backend_args == dict(backend=BACKEND)
    assert SafeCheckpointHook(interval=1, backend_args=dict(backend="petrel")).backend_args == dict(backend="petrel")
    assert issubclass(SafeCheckpointHook, CheckpointHook)
