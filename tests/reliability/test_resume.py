"""A training that is interrupted and resumed goes on with the losses of an uninterrupted one, to the bit."""

import functools
import os
import random
import signal
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner, loops

from toolbox import ROOT, load_tool
from visdet_assigners.training.checkpoints import STATES, checkpoints_of, read_checkpoint
from visdet_assigners.training.randomness import KEY, LoaderStates

OURS = "visdet_assigners.SafeCheckpointHook"


class Noise(torch.utils.data.Dataset):
    """Images that are drawn by all three libraries, and that say which they are."""

    metainfo: ClassVar = dict(classes=("a",))

    def __len__(self):
        return 11  # four batches of three, the last of two

    def __getitem__(self, index):
        return dict(x=torch.tensor([float(index), random.random(), np.random.rand(), torch.rand(()).item()]))


class Noisy(torch.nn.Module):
    """Drops, and draws from all three libraries, in training and in validation."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.norm = torch.nn.BatchNorm1d(1)

    def loss(self, data):
        x = torch.stack(data["x"])
        noise = random.random() + np.random.rand() + torch.rand(())
        return (self.norm(self.layer(torch.nn.functional.dropout(x))) - noise).square().mean()

    def train_step(self, data, optim_wrapper):
        loss = self.loss(data)
        optim_wrapper.update_params(loss)
        return dict(loss=loss)

    def val_step(self, data):
        random.random(), np.random.rand(), torch.rand(3)
        return [None]


class Record(Hook):
    """Keeps the losses, and stops the training where it is told to."""

    def __init__(self, stop=None):
        self.stop, self.losses = stop, {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses[runner.iter] = outputs["loss"].item()
        if runner.iter == self.stop:
            raise KeyboardInterrupt


class Nothing(BaseMetric):
    """Evaluates nothing."""

    default_prefix = "nothing"

    def process(self, data_batch, data_samples):
        pass

    def compute_metrics(self, results):
        return {}


def build(
    folder,
    record,
    loader,
    by_epoch,
    hook="visdet_assigners.SafeCheckpointHook",
    seed=3,
    resume=False,
    ema=False,
    every=None,
    amp=False,
):
    """A runner; checkpoints after each epoch or five iterations, or after as many iterations as ``every`` says."""
    sampler = dict(type="DefaultSampler", shuffle=True)
    if not by_epoch and loader.get("infinite", True):
        sampler = dict(type="InfiniteSampler", shuffle=True)
    loader = {key: value for key, value in loader.items() if key != "infinite"}
    torch.manual_seed(0)  # the model's weights
    interval = dict(interval=every or (1 if by_epoch else 5), by_epoch=by_epoch and every is None)
    plan = dict(by_epoch=True, max_epochs=4) if by_epoch else dict(by_epoch=False, max_iters=16, val_interval=3)
    return Runner(
        Noisy(),
        str(folder),
        train_dataloader=dict(dataset=Noise(), sampler=sampler, batch_size=3, **loader),
        val_dataloader=dict(dataset=Noise(), sampler=dict(type="DefaultSampler", shuffle=False), batch_size=5),
        val_cfg=dict(),
        val_evaluator=Evaluator(Nothing()),
        train_cfg=plan,
        optim_wrapper=dict(type="AmpOptimWrapper" if amp else "OptimWrapper", optimizer=dict(type="AdamW", lr=0.01)),
        param_scheduler=dict(type="CosineAnnealingLR", by_epoch=False, T_max=16),
        default_hooks=dict(checkpoint=dict(type=hook, **interval), logger=None),
        custom_hooks=[record, *([dict(type="EMAHook", momentum=0.1)] if ema else [])],
        randomness=dict(seed=seed),
        resume=resume,
        experiment_name=f"{folder.name}-{id(record)}",
        log_level="ERROR",
    )


def end_workers(runner):
    """Don't leave it to the garbage collector, which takes seconds, and would do it in workers of the next training."""
    loop = runner.train_loop
    iterator = getattr(loop.dataloader, "_iterator", None) or getattr(loop, "dataloader_iterator", loop)
    iterator = getattr(iterator, "_iterator", iterator)
    if hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()


def losses(folder, loader, by_epoch, stops=(), **options):
    """Losses by iteration; interrupted after each of the stops, and resumed."""
    found = {}
    for number, stop in enumerate([*stops, None]):
        record = Record(stop)
        runner = build(folder, record, loader, by_epoch, resume=number > 0, **options)
        if stop is None:
            runner.train()
        else:
            with pytest.raises(KeyboardInterrupt):
                runner.train()
        end_workers(runner)
        found.update(record.losses)
        random.seed(number), np.random.seed(number), torch.manual_seed(number)  # a new process knows nothing
    assert sorted(found) == list(range(16))
    return found, runner


LOADERS = {
    "no workers": dict(num_workers=0),
    "one worker": dict(num_workers=1, persistent_workers=True),
    "three workers": dict(num_workers=3, persistent_workers=True),
    "workers of an epoch": dict(num_workers=2, persistent_workers=False),
}
CASES = [(name, by_epoch) for name in LOADERS for by_epoch in (True, False)]


@pytest.mark.parametrize(("name", "by_epoch"), CASES, ids=[f"{n}-{'epochs' if e else 'iterations'}" for n, e in CASES])
def test_resumed_as_uninterrupted(name, by_epoch, tmp_path):
    loader = LOADERS[name]
    whole, _ = losses(tmp_path / "whole", loader, by_epoch, ema=True)
    parts, _ = losses(tmp_path / "parts", loader, by_epoch, stops=(6, 13), ema=True)
    assert parts == whole
    first, second = (checkpoints_of(tmp_path / one)[0] for one in ("whole", "parts"))
    first, second = read_checkpoint(first), read_checkpoint(second)
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(first[part][key], second[part][key]) for key in first[part])
    assert first["param_schedulers"] == second["param_schedulers"]


@pytest.mark.parametrize("loader", [dict(num_workers=0), dict(num_workers=2, persistent_workers=True)], ids=["0", "2"])
def test_a_sampler_that_cannot_skip(loader, tmp_path, monkeypatch):
    """mmengine then loads again what was trained on, so that workers get to where they were by themselves."""
    monkeypatch.setattr(loops.time, "sleep", lambda _: None)  # two seconds after each pass through the data
    loader = dict(loader, infinite=False)
    whole, _ = losses(tmp_path / "whole", loader, False)
    assert losses(tmp_path / "parts", loader, False, stops=(6, 13))[0] == whole


def test_without_a_seed(tmp_path):
    """mmengine draws one, and forgets it for the sampler and the workers when it resumes."""
    loader = LOADERS["one worker"]
    torch.manual_seed(1)
    runs = [losses(tmp_path / name, loader, True, stops, seed=None) for name, stops in (("a", ()), ("b", (6,)))]
    seeds = [read_checkpoint(checkpoints_of(tmp_path / name)[-1])["meta"]["seed"] for name in "ab"]
    assert seeds[0] != seeds[1]
    whole, _ = losses(tmp_path / "c", loader, True, seed=seeds[1])
    assert runs[1][0] == whole


@pytest.mark.parametrize("by_epoch", [True, False])
def test_mmengine_alone_goes_another_way(by_epoch, tmp_path):
    """What this is for; where mmengine learns it, the hook may go."""
    loader = LOADERS["one worker"]
    whole, _ = losses(tmp_path / "whole", loader, by_epoch, hook="CheckpointHook")
    parts, _ = losses(tmp_path / "parts", loader, by_epoch, stops=(6,), hook="CheckpointHook")
    last = 4 if by_epoch else 5  # before the checkpoint
    assert {key: parts[key] for key in range(last)} == {key: whole[key] for key in range(last)}
    assert all(parts[key] != whole[key] for key in range(last, 16))


def test_an_uninterrupted_training_is_as_mmengines(tmp_path):
    """The hook takes nothing from the random numbers, apart from what validation draws between the epochs."""
    for loader in LOADERS.values():
        ours, theirs = (
            losses(tmp_path / f"{hook}{id(loader)}", loader, False, hook=hook)[0]
            for hook in ("visdet_assigners.SafeCheckpointHook", "CheckpointHook")
        )
        assert {key: ours[key] for key in range(3)} == {key: theirs[key] for key in range(3)}


def test_other_workers_are_told(tmp_path, monkeypatch):
    runner = build(tmp_path, Record(6), LOADERS["one worker"], True)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    end_workers(runner)
    runner = build(tmp_path, Record(), LOADERS["three workers"], True, resume=True)
    said = []
    monkeypatch.setattr(runner.logger, "warning", said.append)
    runner.train()
    end_workers(runner)
    assert any("random states for this number of processes and workers" in line for line in said)
    assert len(read_checkpoint(checkpoints_of(tmp_path)[0])[STATES][0]["workers"]) == 3


@pytest.mark.parametrize(
    ("every", "said"),
    [
        (6, ["written 2 iterations into epoch 2, which begins again"]),
        (4, ["written 4 iterations into epoch 1, which begins again"]),  # mmengine counts it as done by_epoch alone
        (None, []),
    ],
)
def test_the_middle_of_an_epoch_is_told(every, said, tmp_path, monkeypatch):
    """Epochs have four iterations."""
    runner = build(tmp_path, Record(6), LOADERS["no workers"], True, every=every)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    runner = build(tmp_path, Record(), LOADERS["no workers"], True, every=every, resume=True)
    heard = []
    monkeypatch.setattr(runner.logger, "warning", heard.append)
    runner.train()
    heard = [line for line in heard if line.startswith("the checkpoint was")]
    assert len(heard) == len(said)
    assert all(words in line for words, line in zip(said, heard))


class Scale(Hook):
    """Keeps the scale of the loss after each iteration."""

    def __init__(self):
        self.found = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.found[runner.iter] = runner.optim_wrapper.loss_scaler.get_scale()


def test_the_loss_scale_goes_on(tmp_path, monkeypatch):
    """It grows threefold after every seven iterations without an overflow, of which the checkpoint comes after five."""
    scaler = functools.partial(torch.amp.GradScaler, "cpu", init_scale=2.0, growth_factor=3.0, growth_interval=7)
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, "GradScaler", scaler)
    found = []
    for name, stops in (("whole", [None]), ("parts", [6, 13, None])):
        scales = Scale()
        for number, stop in enumerate(stops):
            record = Record(stop)
            runner = build(tmp_path / name, record, LOADERS["no workers"], False, resume=number > 0, amp=True)
            runner.register_hook(scales, "HIGHEST")
            if stop is None:
                runner.train()
            else:
                with pytest.raises(KeyboardInterrupt):
                    runner.train()
        found.append((scales.found, record.losses[15]))
    assert found[0] == found[1]
    assert set(found[0][0].values()) == {2.0, 6.0, 18.0}


def test_a_state_takes_little_of_the_pipe_to_the_training():
    """A worker whose pipe is full doesn't notice that the training was killed, and stays for ever."""
    loader = torch.utils.data.DataLoader(Noise(), batch_size=3, num_workers=1)
    LoaderStates(loader)
    for batch in loader:
        assert len(ForkingPickler.dumps(batch[KEY])) < 1000  # a pipe holds 64 kB, for two workers some five batches
        assert len(batch[KEY][1]) > 10_000


# ------------------------------------------------------------------------------------------------- killed, by the tool

CONFIG = """
_base_ = {base!r}
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (64, 64)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (64, 64)
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=None)
custom_imports = dict(imports=["killing_hook"])
custom_hooks = [dict(type="KillingHook"), dict(type="EMAHook", momentum=0.1)]
"""
HOOK = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class KillingHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with open("losses.txt", "a") as file:
            print(runner.iter, *(f"{name} {value.sum().item().hex()}" for name, value in outputs.items()), file=file)
        if runner.iter == int(os.environ.get("KILL_AT", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow(reason="five processes of their own")
def test_killed_by_the_system(tmp_path, monkeypatch):
    """Faster R-CNN samples its anchors at random, and flips its images in two workers; its weights are averaged too."""
    folder = tmp_path / "shapes"
    load_tool("make_shapes").main([str(folder), "--train", "8", "--val", "2", "--size", "64", "64"])
    (tmp_path / "killing_hook.py").write_text(HOOK)
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(base=str(ROOT / "configs/faster_rcnn/faster-rcnn_r18_fpn_12e_shapes.py")))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = os.environ | dict(VISDET_SHAPES=str(folder), PYTHONPATH=path, OMP_NUM_THREADS="1")

    def run(name, *options, **more):
        (tmp_path / name).mkdir(exist_ok=True)
        command = [sys.executable, ROOT / "tools/train.py", config, "--work-dir", "work", *options]
        done = subprocess.run(
            command, cwd=tmp_path / name, env=environment | more, capture_output=True, text=True, timeout=300
        )
        lines = (tmp_path / name / "losses.txt").read_text().splitlines()
        return done.returncode, lines, done.stdout + done.stderr

    status, whole, log = run("whole")
    assert status == 0, log
    assert [line.split()[0] for line in whole] == [str(number) for number in range(12)]
    status, parts, log = run("parts", KILL_AT="5")
    assert status == -signal.SIGKILL, log
    assert parts == whole[:6]
    status, parts, log = run("parts", "--resume")
    assert status == 0, log
    assert "epoch_1.pth" in log
    assert parts[6:] == whole[4:]  # again from the end of the first epoch
