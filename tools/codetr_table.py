#!/usr/bin/env python
"""Train Co-DETR's table: each set of branches, on each data set, with each seed; and write the table of what is done.

    python tools/codetr_table.py --work-dir work_dirs/codetr_table
    python tools/codetr_table.py --data bccd --seeds 0 --only "K = 0" "K = 1" --work-dir work_dirs/codetr_table

It may be stopped at any time: the same command goes on, a training that had begun from its last checkpoint, and leaves
out what is done.  The first seed of everything comes first.  ``--table`` trains nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import ArgumentParser
from visdet_assigners.commands.summarize import draw_curves, make_table, read_curve
from visdet_assigners.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
METRIC = "coco/bbox_mAP"
VARIANTS = {
    "K = 0": "deformable-detr",
    "K = 1": "co-deformable-detr-atss",
    "K = 2": "co-deformable-detr-atss-rcnn",
    "one to many": "co-deformable-detr-primary",
    "K = 1 and one to many": "co-deformable-detr-atss-primary",
    "K = 3": "co-deformable-detr-atss-rcnn-retina",
    "K = 3, conflicts ignored": "co-deformable-detr-atss-rcnn-retina-ignore",
}
"""What is compared, and the beginning of the config's name."""
DATA = ("bccd", "nuclei")


@dataclass(frozen=True)
class Run:
    """One training of the table."""

    data: str
    variant: str
    seed: int
    work_dir: Path

    @property
    def config(self) -> Path:
        """The config file."""
        return ROOT / "configs/co_detr" / f"{VARIANTS[self.variant]}_r18_12e_{self.data}.py"

    @property
    def folder(self) -> Path:
        """Its own work folder."""
        return self.work_dir / f"{self.config.stem}-{self.seed}"

    @property
    def done(self) -> bool:
        """Whether it was trained to the end."""
        return self.mark.is_file()

    @property
    def mark(self) -> Path:
        """The file that says so; it holds the options that it was trained with."""
        return self.folder / "done"

    def command(self, options: Sequence[str]) -> list[str]:
        """The command that trains it, or goes on with it."""
        head = [sys.executable, str(ROOT / "tools/train.py"), str(self.config), "--work-dir", str(self.folder)]
        return [*head, "--resume", "--cfg-options", f"randomness.seed={self.seed}", *options]


def all_runs(args) -> Iterator[Run]:
    """Everything that was asked for, the first seed of everything first."""
    for seed in args.seeds:
        for data in args.data:
            for variant in args.only:
                yield Run(data, variant, seed, Path(args.work_dir))


def train(run: Run, options: Sequence[str]) -> None:
    """Train one, and mark it as done.

    Raises:
        UserError: it ended with an error; what it printed says why.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    command = run.command(options)
    print(" ".join(command), flush=True)
    result = subprocess.run(command, cwd=ROOT, env=os.environ, check=False)
    if result.returncode:
        raise UserError(f"{run.folder} ended with status {result.returncode}; mend it and start the same command again")
    run.mark.write_text("\n".join(options) + "\n")


def check_marks(runs: Sequence[Run], options: Sequence[str]) -> None:
    """Raise where what is done was trained with other options."""
    for run in runs:
        if run.done and run.mark.read_text().split() != list(options):
            kept = " ".join(run.mark.read_text().split()) or "none"
            raise UserError(f"{run.folder} was trained with other --cfg-options ({kept}); give another --work-dir")


def report(runs: Sequence[Run], work_dir: Path) -> None:
    """Print a table for each data set, and draw its curves, of the trainings that are done."""
    for data in dict.fromkeys(run.data for run in runs):
        curves: dict[str, list[dict[int, float]]] = {}
        for run in runs:
            if run.data == data and run.done:
                curves.setdefault(run.variant, []).append(read_curve(str(run.folder), METRIC))
        if curves:
            ordered = {variant: curves[variant] for variant in VARIANTS if variant in curves}
            print(f"\n{data}\n\n{make_table(ordered, 100)}")
            path = work_dir / f"{data}.png"
            draw_curves(ordered, METRIC, 100, str(path))
            print(path)


def parse_args(argv: Sequence[str] | None):
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work-dir", required=True, help="folder of the trainings, one for each; and of the curves")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="data sets (both)")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="rows (all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds (0 1 2)")
    parser.add_argument("--table", action="store_true", help="train nothing, only write the table of what is done")
    parser.add_argument("--cfg-options", nargs="+", default=[], help="KEY=VALUE for all, as for tools/train.py")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    with user_errors():
        args = parse_args(argv)
        runs = list(all_runs(args))
        check_marks(runs, args.cfg_options)
        for run in runs:
            if not run.done and not args.table:
                train(run, args.cfg_options)
        report(runs, Path(args.work_dir))


if __name__ == "__main__":
    main()
