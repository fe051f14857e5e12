"""The command ``summarize``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from visdet_assigners.commands import parsers
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.errors import UserError

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Curve = dict[int, float]


def read_curve(folder: str, metric: str) -> Curve:
    """Read the evaluations of the newest training in a work folder: value by training iteration.

    A resumed training has several logs: of an older one those evaluations count that lie before the newer one's start.
    """
    logs = sorted(Path(folder).glob("*/vis_data/scalars.json"))
    if not logs:
        raise UserError(f"{folder} holds no log of a training (TIMESTAMP/vis_data/scalars.json); give a --work-dir")
    curve, start = read_log(logs[-1], metric)
    for log in reversed(logs[:-1]):
        older, first = read_log(log, metric)
        curve = {iteration: value for iteration, value in older.items() if iteration < start} | curve
        start = min(start, first)
    if not curve:
        raise UserError(f"{logs[-1]} has no {metric}; choose another --metric, or train with an evaluation")
    return curve


def read_log(log: Path, metric: str) -> tuple[Curve, float]:
    """Read the evaluations of one log, and its first iteration, infinite where it has none."""
    curve, iteration, first = {}, 0, float("inf")
    for line in log.read_text().splitlines():
        values = json.loads(line)
        if metric in values:  # its own `step` is an epoch or an iteration, as the config has it
            curve[iteration] = values[metric]
        elif "loss" in values:
            iteration = values["step"]
            first = min(first, iteration)
    return curve, first


def make_table(runs: Mapping[str, Sequence[Curve]], scale: float) -> str:
    """Write a Markdown table: the mean over a run's seeds at each iteration, and each seed's value behind it."""
    iterations = sorted({iteration for curves in runs.values() for curve in curves for iteration in curve})
    head = "| | " + " | ".join(map(str, iterations)) + " |"
    lines = [head, "| --- |" + " ---: |" * len(iterations)]
    for name, curves in runs.items():
        cells = []
        for iteration in iterations:
            values = [scale * curve[iteration] for curve in curves if iteration in curve]
            seeds = f" ({' / '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{seeds}" if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_curves(runs: Mapping[str, Sequence[Curve]], metric: str, scale: float, path: str) -> None:
    """Draw the mean of each run, and a band from its lowest seed to its highest."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, curves in runs.items():
        iterations = sorted(set.intersection(*(set(curve) for curve in curves)))
        values = scale * np.array([[curve[iteration] for iteration in iterations] for curve in curves])
        (line,) = axes.plot(iterations, values.mean(axis=0), marker="o", markersize=3, label=name)
        axes.fill_between(iterations, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.15)
    axes.set(xlabel="iterations", ylabel=metric.replace("coco/bbox_mAP", "AP"), xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_last(runs: Mapping[str, Sequence[Curve]], metric: str, scale: float, path: str) -> None:
    """Draw the last evaluation of each seed as a dot, and their mean as a bar, the first run on top."""
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.3 * len(runs)), layout="constrained")
    for row, curves in enumerate(runs.values()):
        values = [scale * curve[max(curve)] for curve in curves]
        axes.scatter(values, [row] * len(values), s=18, alpha=0.6, color="tab:blue", linewidths=0)
        axes.scatter(np.mean(values), row, s=200, marker="|", color="black")
        axes.annotate(f"{np.mean(values):.1f}", (np.mean(values), row), (0, 6), textcoords="offset points", fontsize=8)
    axes.set_yticks(range(len(runs)), list(runs))
    axes.set(xlabel=metric.replace("coco/bbox_mAP", "AP"), ylim=(len(runs) - 0.5, -0.7))
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Summarize as the command line says."""
    with user_errors():
        args = parsers.summarize().parse_args(argv)
        runs = {}
        for name, *folders in args.run:
            if not folders:
                raise UserError(f"--run {name} names no work folder; write --run NAME DIR DIR ...")
            runs[name] = [read_curve(folder, args.metric) for folder in folders]
        print(make_table(runs, args.scale))
        for draw, path in ((draw_curves, args.out), (draw_last, args.last)):
            if path:
                draw(runs, args.metric, args.scale, path)
                print(path)
