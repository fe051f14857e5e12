#!/usr/bin/env python
"""Time one training iteration of several configs side by side: a step of each in turn, in one process.

The median over the turns is told, and its ratio to the first config's; ratios of runs side by side hold on a busy
machine too, where the times alone mean little.

    python tools/time_training.py CONFIG CONFIG ... --iterations 20
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from visdet_assigners.commands.config import read_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import ArgumentParser
from visdet_assigners.errors import UserError
from visdet_assigners.training.config_check import check_config
from visdet_assigners.training.running import build_runner


def prepare(cfg, name: str) -> tuple[Any, Any, Iterator[Any]]:
    """Build what one training step needs: model, optimiser wrapper, and batches without end."""
    cfg.visualizer = {"type": "mmengine.Visualizer", "name": f"time-{name}"}  # one that writes nothing
    cfg.log_level, cfg.launcher = "WARNING", "none"
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = build_runner(cfg)
    loop = runner.build_train_loop(cfg.train_cfg)
    runner.model.init_weights()
    return runner.model.train(), runner.build_optim_wrapper(cfg.optim_wrapper), _repeat(loop.dataloader)


def _repeat(dataloader: Any) -> Iterator[Any]:
    while True:
        yield from dataloader


def time_step(model: Any, optim_wrapper: Any, batch: Any) -> float:
    """Seconds of one step: forward, backward and update; loading the pictures is left out."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    model.train_step(batch, optim_wrapper)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def parse_args(argv: Sequence[str] | None):
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("configs", nargs="+", help="config files; the first is what the others are compared with")
    parser.add_argument("--iterations", type=int, default=20, help="turns, of which the first two don't count (20)")
    parser.add_argument("--threads", type=int, default=1, help="threads on CPU (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Time as the command line says."""
    with user_errors():
        args = parse_args(argv)
        if args.iterations < 3:
            raise UserError(f"--iterations is {args.iterations}; at least 3 are needed, the first two don't count")
        torch.set_num_threads(args.threads)
        steps = []
        for index, path in enumerate(args.configs):
            cfg = read_config(path)
            check_config(cfg, ["train"])
            steps.append(prepare(cfg, str(index)))
        seconds: list[list[float]] = [[] for _ in steps]
        for turn in tqdm(range(args.iterations), desc="turns"):
            for (model, optim_wrapper, batches), kept in zip(steps, seconds):
                taken = time_step(model, optim_wrapper, next(batches))
                if turn >= 2:
                    kept.append(taken)
        first = statistics.median(seconds[0])
        print("| config | ms an iteration | against the first |")
        print("| --- | ---: | ---: |")
        for path, kept in zip(args.configs, seconds):
            median = statistics.median(kept)
            print(f"| {Path(path).stem} | {1000 * median:.0f} | {median / first:.2f} |")


if __name__ == "__main__":
    main()
