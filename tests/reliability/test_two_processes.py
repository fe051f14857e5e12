"""Two processes of torchrun over gloo: the assignments of one process, and no hang where one of them is lost."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from toolbox import ROOT, load_tool

HOOKS = """
import json, os, signal, time
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from visdet_assigners.observe import record_assignments

@HOOKS.register_module()
class WriteAssignments(Hook):
    def before_train(self, runner):
        self.tap = record_assignments(getattr(runner.model, "module", runner.model))
        self.records = self.tap.__enter__()

    def after_train(self, runner):
        self.tap.__exit__(None, None, None)
        found = {f"{one.where} {one.repeat} {one.image.img_id}": one.gt_index.tolist() for one in self.records}
        with open(f"assignments{get_rank()}.json", "w") as file:
            json.dump(found, file)

@HOOKS.register_module()
class Fail(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with open(f"losses{get_rank()}.txt", "a") as file:
            print(runner.iter, outputs["loss"].item().hex(), file=file)
        if runner.iter == int(os.environ.get("FAIL_AT", -1)) and get_rank() == 1:
            if os.environ["FAIL"] == "hang":
                time.sleep(1000)
            if os.environ["FAIL"] == "error":
                raise ValueError("the second process has a bug")
            os.kill(os.getpid(), signal.SIGKILL)
"""
CONFIG = """
_base_ = {base!r}
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (64, 64)
{pipeline}
train_dataloader = dict(
    batch_size={batch}, num_workers={workers}, persistent_workers={workers} > 0, dataset=dict(pipeline=train_pipeline)
)
train_cfg = dict(max_epochs={epochs})
val_cfg = val_dataloader = val_evaluator = None
default_hooks = dict(checkpoint=dict(interval=1), logger=None)
custom_imports = dict(imports=["hooks_of_this_test"])
custom_hooks = [dict(type={hook!r})]
{more}
"""
STILL = "optim_wrapper = dict(optimizer=dict(lr=0.0))"
TOOD = "tood/tood_r18_fpn_12e_shapes.py"


class Place:
    """A folder with drawn shapes, and trainings in it."""

    def __init__(self, folder):
        self.folder = folder
        shapes = folder / "shapes"
        load_tool("make_shapes").main([str(shapes), "--train", "6", "--val", "1", "--size", "64", "64"])
        (folder / "hooks_of_this_test.py").write_text(HOOKS)
        path = os.pathsep.join([str(folder), str(ROOT)])
        self.environment = os.environ | dict(VISDET_SHAPES=str(shapes), PYTHONPATH=path, OMP_NUM_THREADS="1",
                                             CUDA_VISIBLE_DEVICES="", PYTHON=sys.executable)  # fmt: skip

    def config(self, base, hook, batch=1, workers=0, epochs=1, pipeline="", more=""):
        text = CONFIG.format(base=str(ROOT / "configs" / base), **{k: v for k, v in locals().items() if k != "base"})
        (self.folder / "config.py").write_text(text)

    def train(self, processes, name, *options, **more):
        (self.folder / name).mkdir(exist_ok=True)
        config = str(self.folder / "config.py")
        command = [sys.executable, str(ROOT / "tools/train.py"), config]
        if processes > 1:
            command = ["bash", str(ROOT / "tools/dist_train.sh"), config, str(processes)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            environment = self.environment | more | dict(PORT=str(free.getsockname()[1]))
        return subprocess.run([*command, "--work-dir", "work", *options], cwd=self.folder / name, env=environment,
                              capture_output=True, text=True, timeout=550)  # fmt: skip

    def read(self, name, pattern):
        return [path.read_text() for path in sorted((self.folder / name).glob(pattern))]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.slow(reason="three more processes")
@pytest.mark.parametrize(
    ("base", "more"),
    [(TOOD, "model = dict(train_cfg=dict(initial_epoch=0))"), ("detr/detr_r18_50e_shapes.py", "")],
)
def test_the_assignments_of_one(base, more, place):
    """From the same weights and the same images, without flips; assigners that read predictions are the harder case."""
    place.config(base, "WriteAssignments", pipeline="train_pipeline.pop(3)", more=f"{more}\n{STILL}")
    for processes in (1, 2):
        done = place.train(processes, str(processes))
        assert done.returncode == 0, done.stderr
    (one,) = map(json.loads, place.read("1", "assignments?.json"))
    first, second = map(json.loads, place.read("2", "assignments?.json"))
    assert len(first) == len(second) == len(one) / 2
    assert first | second == one
    assert sum(number >= 0 for found in one.values() for number in found) > 6


LONGER = [pytest.param(how, marks=pytest.mark.slow(reason="two more processes")) for how in ("hang", "error")]


@pytest.mark.parametrize("how", ["kill", *LONGER])
def test_one_is_lost(how, place):
    place.config(TOOD, "Fail", epochs=50)
    begun = time.monotonic()
    wait = ["--cfg-options", "env_cfg.dist_cfg.timeout=8"] if how == "hang" else []
    done = place.train(2, "lost", *wait, FAIL=how, FAIL_AT="3")
    seconds = time.monotonic() - begun
    assert done.returncode not in (0, 2)
    assert seconds < 500, seconds  # most of it is Python starting; a hang would last ten minutes
    (log,) = place.read("lost", "losses0.txt")
    assert len(log.splitlines()) <= 5  # the other one did not go on alone
    if how == "kill":
        assert "SIGKILL" in done.stderr
    elif how == "hang":
        assert "process 0 of 2 stops: another one is gone or hangs (" in done.stderr
        assert "go on with --resume" in done.stderr
    else:
        assert "ValueError: the second process has a bug" in done.stderr


@pytest.mark.slow(reason="three times two processes")
def test_both_are_resumed(place):
    """Each process and each worker of it goes on from its own random states."""
    place.config("faster_rcnn/faster-rcnn_r18_fpn_12e_shapes.py", "Fail", batch=2, workers=1, epochs=3)
    assert place.train(2, "whole").returncode == 0
    assert place.train(2, "parts", FAIL="kill", FAIL_AT="3").returncode != 0
    for rank in range(2):
        (place.folder / f"parts/losses{rank}.txt").unlink()
    done = place.train(2, "parts", "--resume")
    assert done.returncode == 0, done.stderr
    for whole, parts in zip(place.read("whole", "losses?.txt"), place.read("parts", "losses?.txt")):
        assert len(whole.splitlines()) == 6
        assert whole.splitlines()[2:] == parts.splitlines()
