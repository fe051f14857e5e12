#!/usr/bin/env python
"""Explain task-aligned assignment by numbers: which candidates of one object are chosen, and what they should score.

    python tools/explain_alignment.py --candidates .95,.20 .60,.70 .80,.55 .30,.85 --topk 2 --out targets.png

A candidate is the score it gives the object's class and the IoU of its box with the object.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from visdet_assigners.assigners.task_aligned import task_aligned
from visdet_assigners.commands.options import ArgumentParser
from visdet_assigners.functional.overlaps import Measure

EXAMPLE = [(0.95, 0.20), (0.60, 0.70), (0.80, 0.55), (0.30, 0.85)]


def candidate(text: str) -> tuple[float, float]:
    """Read ``SCORE,IOU``."""
    try:
        score, iou = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a candidate is SCORE,IOU, as .6,.7, not {text!r}") from None
    if not (0 <= score <= 1 and 0 <= iou <= 1):
        raise argparse.ArgumentTypeError(f"score and IoU lie between 0 and 1, not {text!r}")
    return score, iou


def decide(candidates: Sequence[tuple[float, float]], topk: int, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
    """Alignment and normalised target (0 where not chosen) of each candidate for one object; all lie inside it."""
    score, iou = torch.tensor(candidates).T[..., None]  # (N, 1) each
    box = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    inside = torch.tensor([[40.0, 40.0, 60.0, 60.0]]).repeat(len(candidates), 1)
    given = Measure(lambda *_: iou.T)
    decided = task_aligned(inside, box, torch.tensor([0]), inside, score, topk, alpha, beta, given)
    return (score**alpha * iou**beta)[:, 0], decided.extras["norm_metrics"]


def draw(candidates: Sequence[tuple[float, float]], targets: Tensor, alpha: float, beta: float) -> Figure:
    """Candidates in the plane of score and IoU, on lines of equal alignment, and the targets of those chosen."""
    figure = Figure(figsize=(6.4, 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    score, iou = np.meshgrid(np.linspace(0, 1, 201), np.linspace(0, 1, 201))
    levels = [0.001, 0.01, 0.03, 0.1, 0.3]
    lines = axes.contour(score, iou, score**alpha * iou**beta, levels, colors="#9a9a9a", linewidths=0.8)
    axes.clabel(lines, fmt="%g", fontsize=8)
    for number, ((x, y), target) in enumerate(zip(candidates, targets.tolist()), start=1):
        chosen = target > 0
        axes.scatter(x, y, s=70, color="#1f6fb4" if chosen else "white", edgecolors="#1f6fb4", zorder=3)
        text = f"{number}: learns {target:.4f}" if chosen else f"{number}: not chosen"
        label = axes.annotate(text, (x, y), (8, 8), textcoords="offset points", ha="right" if x > 0.7 else "left")
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.set(xlabel="score s", ylabel="IoU u", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"Lines of equal alignment $s^{{{alpha:g}}} u^{{{beta:g}}}$", fontsize=11, loc="left")
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Explain as the command line says."""
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--candidates", nargs="+", type=candidate, default=EXAMPLE, metavar="SCORE,IOU",
                        help="default: .95,.20 .60,.70 .80,.55 .30,.85")  # fmt: skip
    parser.add_argument("--topk", type=int, default=2, help="how many are chosen (default: 2)")
    parser.add_argument("--alpha", type=float, default=1.0, help="exponent of the score (default: 1)")
    parser.add_argument("--beta", type=float, default=6.0, help="exponent of the IoU (default: 6)")
    parser.add_argument("--out", help="file of the figure (default: none)")
    args = parser.parse_args(argv)
    if args.topk < 1:
        parser.error(f"--topk is {args.topk}; at least 1 is needed")
    metrics, targets = decide(args.candidates, args.topk, args.alpha, args.beta)
    table = Table("candidate", "score s", "IoU u", f"s^{args.alpha:g} u^{args.beta:g}", "target")
    for number, ((score, iou), metric, target) in enumerate(
        zip(args.candidates, metrics.tolist(), targets.tolist()), 1
    ):
        table.add_row(str(number), f"{score:.2f}", f"{iou:.2f}", f"{metric:.6f}", f"{target:.4f}" if target else "-")
    Console(width=80).print(table)
    if args.out:
        draw(args.candidates, targets, args.alpha, args.beta).savefig(args.out)


if __name__ == "__main__":
    main()
