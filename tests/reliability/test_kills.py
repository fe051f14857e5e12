"""Killed with -9 at random moments, or out of disk: no checkpoint is lost, and each start goes on from the newest."""

import multiprocessing
import os
import random
import resource
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.runner import Runner

from linear_training import train
from visdet_assigners.training.checkpoints import check_sums, checkpoints_of, read_checkpoint
from visdet_assigners.training.running import checkpoint_to_resume

WIDTH = 500_000  # a checkpoint of 12 MB: most of the time goes into writing


def keep_training(folder, begun, hook):
    """Resume, and train until the kill comes."""
    Runner._log_env = lambda *_: None  # asks compilers and git for their versions, which takes longer than the rest
    newest = checkpoint_to_resume(str(folder)) if hook.startswith("visdet") else None
    more = dict(load_from=newest, resume=newest is not None)
    more["optim_wrapper"] = dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9))
    more["custom_hooks"] = [Begun(begun)]
    train(folder, 10**6, hook, WIDTH, more, max_keep_ckpts=2)


class Begun(Hook):
    """Tells that training begins, from which epoch, and how many files are half written."""

    priority = "LOWEST"

    def __init__(self, pipe):
        self.pipe = pipe

    def before_train(self, runner):
        self.pipe.send((runner.epoch, len(list(Path(runner.work_dir).glob(".*.part")))))


def kill_many(folder, kills, hook="visdet_assigners.SafeCheckpointHook"):
    """Kill so many trainings in one folder; counts what is wrong after each."""
    rng = random.Random(0)
    context = multiprocessing.get_context("fork")  # a new interpreter would take seconds
    counts = dict(epochs=[], unreadable=0, empty_pointers=0, most_files=0, left_over=0)
    for _ in range(kills):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=keep_training, args=(folder, theirs, hook))
        newest = checkpoints_of(folder)[:1]
        child.start()
        assert ours.poll(60)
        epoch, parts = ours.recv()
        counts["epochs"].append((newest[0].stem if newest else "", epoch))
        counts["left_over"] += parts
        time.sleep(rng.uniform(0, 0.3))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        found = checkpoints_of(folder)
        counts["most_files"] = max(counts["most_files"], len(found))
        counts["unreadable"] += sum(not is_whole(path) for path in found)
        pointer = folder / "last_checkpoint"
        counts["empty_pointers"] += pointer.is_file() and not pointer.read_text()
    return counts


def is_whole(path):
    try:
        read_checkpoint(path)
        check_sums(path)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.slow(reason="two minutes or more"))])
def test_kills_lose_nothing(kills, tmp_path):
    """`python -m pytest tests/reliability/test_kills.py -m slow` kills 200 times."""
    counts = kill_many(tmp_path, kills)
    assert counts["unreadable"] == counts["empty_pointers"] == counts["left_over"] == 0, counts
    for newest, epoch in counts["epochs"]:
        assert newest == (f"epoch_{epoch}" if epoch else "")  # it goes on from the newest
    assert len({epoch for _, epoch in counts["epochs"]}) > kills / 4  # checkpoints were written between the kills
    print(counts)


def test_resume_skips_what_is_not_whole(tmp_path, capsys):
    """Files of another tool, or of a disk that lost power."""
    train(tmp_path, 4)
    newest, second, third, _ = checkpoints_of(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-1000])
    second.write_bytes(b"")
    assert checkpoint_to_resume(str(tmp_path)) == str(third)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    for line, path in zip(told, (newest, second)):
        assert line.startswith(f"not resumed from {path}: the checkpoint {path} ")
        assert "damaged" in line


# ---------------------------------------------------------------------------------------------------------- full disk


class FillDisk(Hook):
    """From the second epoch on, files of more than 2 kB can't be written: the system stops in the middle of them."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))


@contextmanager
def room_again():
    """Lift the limit behind the ``with`` block: pytest writes a file, too, where its output goes into one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("hook", ["visdet_assigners.SafeCheckpointHook", "CheckpointHook"])
def test_a_full_disk(hook, tmp_path):
    """The system itself stops the writing; mmengine has removed the older one by then, and leaves half of the newer."""
    with room_again(), pytest.raises(OSError, match="too large") as caught:
        train(tmp_path, 3, hook, more=dict(custom_hooks=[FillDisk()]), max_keep_ckpts=1)
    left = sorted(path.name for path in Path(tmp_path).iterdir() if "epoch" in path.name)
    if hook == "CheckpointHook":
        assert left == ["epoch_2.pth"]
        assert not is_whole(tmp_path / "epoch_2.pth")
    else:
        assert left == ["epoch_1.pth"]
        assert is_whole(tmp_path / "epoch_1.pth")
        assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_1.pth")
        assert "epoch_2.pth" in str(caught.value)
        assert "what had been written before is still there" in str(caught.value)
