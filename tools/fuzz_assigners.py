#!/usr/bin/env python
"""Compare our assigners with mmdet's on drawn scenes, thousands of them, and shrink what differs.

    python tools/fuzz_assigners.py --examples 10000
    python tools/fuzz_assigners.py --assigner ATSSAssigner PointAssigner --examples 500 --seed 3

Scenes, configurations and costs are drawn by hypothesis, small and full of what is rare in data: no objects, fewer
priors than k, objects of no area, tiny, outside, twice the same, side by side.  Each is decided twice by both: with
torch's order of ties, and with ties by index, there ours also on the way that a device takes.  The points in which ours
is meant to differ are changes of what mmdet is given, and counted: ``visdet_assigners/testing/differences.py``.

Prints a table; exits with 1 where a difference has no explanation, with the smallest call that shows it.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from visdet_assigners.commands.errors import user_errors
from visdet_assigners.errors import UserError


def fuzz(name: str, examples: int, seed: int, advance: Callable[[], object]) -> tuple[Counter[str], str]:
    """Compare one assigner.

    Args:
        name: of the class.
        examples: how many calls.
        seed: of the drawing.
        advance: called after each.

    Returns:
        How many calls each argued difference was needed for, "" counting all calls; and what is left unexplained.
    """
    import hypothesis
    from hypothesis import strategies as st

    from visdet_assigners.testing.parity import UnexplainedError, compare
    from visdet_assigners.testing.trials import TRIALS

    counts: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(TRIALS[name], st.booleans())
    def compare_one(trial: object, on_device: bool) -> None:
        counts[""] += 1
        advance()
        counts.update(compare(trial, on_device))

    try:
        compare_one()
    except UnexplainedError as error:
        return counts, str(error)
    return counts, ""


def parse_args(argv: Sequence[str] | None, names: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--assigner", nargs="+", choices=names, metavar="NAME", default=list(names),
                        help=f"some of: {', '.join(names)} (default: all)")  # fmt: skip
    parser.add_argument("--examples", type=int, default=1000, help="calls of each (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (default: 0)")
    args = parser.parse_args(argv)
    if args.examples < 1:
        parser.error("--examples must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz as the command line says."""
    console = Console(width=130) if not sys.stdout.isatty() else Console()
    with user_errors():
        try:
            from visdet_assigners.testing.trials import TRIALS
        except ModuleNotFoundError as error:
            if error.name != "hypothesis":
                raise
            raise UserError("hypothesis is not installed; pip install hypothesis") from error
        args = parse_args(argv, list(TRIALS))
    torch.set_num_threads(1)
    table = Table("assigner", "examples", "unexplained", "argued differences", "s")
    failures = []
    with warnings.catch_warnings(), Progress(console=Console(stderr=True), transient=True) as progress:
        warnings.simplefilter("ignore")  # of torch and mmdet, to their own authors
        for name in args.assigner:
            task, begin = progress.add_task(name, total=args.examples), time.perf_counter()
            counts, failure = fuzz(name, args.examples, args.seed, lambda task=task: progress.advance(task))
            seconds = time.perf_counter() - begin
            progress.remove_task(task)
            known = "; ".join(f"{what}: {number:,}" for what, number in sorted(counts.items()) if what)
            table.add_row(name, f"{counts['']:,}", "1, shrunk" if failure else "0", known, f"{seconds:.0f}")
            print(
                f"{name}: {counts['']:,} examples, {'a difference' if failure else known or 'equal'}", file=sys.stderr
            )
            if failure:
                failures.append(failure)
    console.print(table)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
