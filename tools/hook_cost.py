#!/usr/bin/env python
"""Measure what AssignmentHook costs: CPU time of its own code, against that of the training iterations it sees.

    python tools/hook_cost.py configs/atss/atss_r18_fpn_12e_bccd.py

Counted are the hook's methods and the tap on each call of an assigner.  CPU time of one thread, so that other processes
don't count; iterations with and without the hook differ by less than they differ among themselves.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from torch import nn
from tqdm import trange

from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import ArgumentParser, add_config_arguments
from visdet_assigners.errors import UserError
from visdet_assigners.observe.hook import AssignmentHook
from visdet_assigners.observe.records import AssignmentCall
from visdet_assigners.observe.tap import watch
from visdet_assigners.training.config_check import check_config
from visdet_assigners.training.running import build_runner


class TimedHook(AssignmentHook):
    """The hook, with the CPU seconds that its methods take and the calls of assigners that it sees."""

    seconds = 0.0
    calls = 0

    def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Time the method."""
        self._time(super().before_train_iter, *args, **kwargs)

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Time the method."""
        self._time(super().after_train_iter, *args, **kwargs)

    def _see(self, call: AssignmentCall) -> None:
        self.calls += 1
        self._time(super()._see, call)

    def _time(self, method: Any, *args: Any, **kwargs: Any) -> None:
        begin = time.process_time()
        method(*args, **kwargs)
        self.seconds += time.process_time() - begin


def seconds_of_a_tapped_call(calls: int = 2000) -> float:
    """CPU seconds that the tap itself adds to a call of an assigner."""

    class Nothing:
        def assign(self, pred_instances: Any, gt_instances: Any, gt_instances_ignore: Any = None) -> SimpleNamespace:
            return SimpleNamespace(gt_inds=0)

    part = nn.Module()
    part.assigner = Nothing()

    def measure() -> float:
        begin = time.process_time()
        for _ in range(calls):
            part.assigner.assign(None, gt_instances=None)
        return (time.process_time() - begin) / calls

    plain = measure()
    with watch(part, lambda call: None):
        return measure() - plain


def measure(cfg: Config, iterations: int) -> tuple[float, TimedHook]:
    """CPU seconds of all iterations, and the hook that saw them."""
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        cfg.log_level = "WARNING"
        runner = build_runner(cfg)
        runner.optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.model.init_weights()  # some parameters, as level_embed of Deformable DETR, are memory as it was before
        runner.model.train()
        hook = TimedHook()
        hook.before_train(runner)
        begin = time.process_time()
        batches = iter(runner.train_dataloader)
        for index in trange(iterations, desc="training", unit="it"):
            try:
                batch = next(batches)
            except StopIteration:
                batches = iter(runner.train_dataloader)
                batch = next(batches)
            hook.before_train_iter(runner, index, batch)
            runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
            hook.after_train_iter(runner, index, batch)
            runner.train_loop._iter += 1
        seconds = time.process_time() - begin
        hook.after_train(runner)
    return seconds, hook


def main(argv: Sequence[str] | None = None) -> int:
    """Measure as the command line says."""
    with user_errors():
        parser = ArgumentParser(description=__doc__.split("\n")[0])
        add_config_arguments(parser)
        parser.add_argument("--iterations", type=int, default=40, help="how many to train (default: 40)")
        args = parser.parse_args(argv)
        if args.iterations < 1:
            raise UserError(f"--iterations is {args.iterations}; at least 1 is needed")
        cfg = load_config(args)
        check_config(cfg, ["train"])
        torch.set_num_threads(1)
        seconds, hook = measure(cfg, args.iterations)
    tapped = seconds_of_a_tapped_call()
    own = hook.seconds + hook.calls * tapped
    print(f"the tap adds {1e6 * tapped:.1f} us to a call of an assigner")
    print(
        f"{1000 * own / args.iterations:.2f} ms of an iteration of {1000 * seconds / args.iterations:.0f} ms, "
        f"{own / seconds:.2%}, for {hook.calls / args.iterations:g} assignments in each"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
