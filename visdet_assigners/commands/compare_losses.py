"""The command ``compare-losses``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from tqdm import tqdm

from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.errors import UserError
from visdet_assigners.training.config_check import check_config
from visdet_assigners.training.running import build_runner


class EnoughError(Exception):
    """The iterations asked for are done."""


class RecordLosses(Hook):
    """Keeps every logged loss of each iteration and ends the training after so many.

    Args:
        iterations: when to end.
        name: of the run, for the progress bar.
    """

    priority = "LOWEST"

    def __init__(self, iterations: int, name: str) -> None:
        self.losses: list[dict[str, float]] = []
        self.iterations = iterations
        self.bar = tqdm(total=iterations, desc=name, unit="it")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Record the losses of one iteration."""
        self.losses.append({key: torch.as_tensor(value).item() for key, value in outputs.items()})
        self.bar.update()
        if len(self.losses) == self.iterations:
            self.bar.close()
            raise EnoughError


def record_losses(cfg: Config, iterations: int, name: str) -> list[dict[str, float]]:
    """Train from the config's seed and return the losses of each iteration; nothing is validated or kept.

    Args:
        cfg: with the assigners applied; changed in place.
        iterations: how many; more than an epoch goes on into the next.
        name: of the run, for the progress bar.
    """
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.default_hooks = {"checkpoint": None}
    cfg.visualizer = {"type": "mmengine.Visualizer", "name": f"compare-{name}"}  # one that writes nothing
    cfg.log_level = "WARNING"
    cfg.setdefault("randomness", {"seed": 0})
    recorder = RecordLosses(iterations, name)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = build_runner(cfg)
        runner.register_hook(recorder)
        try:
            runner.train()
        except EnoughError:
            return recorder.losses
    raise UserError(f"the config's schedule ends after {len(recorder.losses)} iterations; ask for fewer")


def first_difference(reference: Sequence[dict], mine: Sequence[dict]) -> str:
    """Say where two runs first differ, or nothing; NaN equals NaN."""
    for iteration, (expected, got) in enumerate(zip(reference, mine), start=1):
        for key in sorted(expected.keys() | got.keys()):
            a, b = expected.get(key, "absent"), got.get(key, "absent")
            if a != b and not (a != a and b != b):
                return f"iteration {iteration}, {key}: {a!r} with mmdet's assigners, {b!r} with ours"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the command line says; 0 where all losses are equal."""
    torch.set_num_threads(1)
    with user_errors():
        args = parsers.compare_losses().parse_args(argv)
        if args.iterations < 1:
            raise UserError(f"--iterations is {args.iterations}; at least 1 is needed")
        runs = {}
        for which in ("mmdet", "visdet"):
            args.assigners = which
            cfg = load_config(args)
            check_config(cfg, ["train"])
            runs[which] = record_losses(cfg, args.iterations, which)
    difference = first_difference(runs["mmdet"], runs["visdet"])
    if difference:
        print(f"different: {difference}")
        return 1
    first, last = runs["visdet"][0]["loss"], runs["visdet"][-1]["loss"]
    losses = len(runs["visdet"][0])
    if not math.isfinite(last):
        print(f"equal, but the loss is {last}: the training itself fails")
        return 1
    print(f"equal to the last bit: {losses} losses x {args.iterations} iterations; loss {first:.4f} -> {last:.4f}")
    return 0
