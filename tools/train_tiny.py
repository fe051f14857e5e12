#!/usr/bin/env python
"""Train the recipes for objects of few pixels, one after another, and keep what each reached.

    VISDET_NUCLEI=DIR python tools/train_tiny.py
    VISDET_NUCLEI=DIR python tools/train_tiny.py --families atss retinanet --recipes ours --seeds 0
    python tools/train_tiny.py --table

Each run is a training by ``tools/train.py`` and an evaluation of its last epoch: AP, AP50, AP of each size class of
the small-object field (the root of the area, pixels), and the recall, with 200 detections of an image.  A run that
stands in the file of results is not repeated; one that was interrupted goes on from its last checkpoint.  ``RECIPES``
is the table of runs; seeds come first, so that each recipe is trained once before any is trained again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import ArgumentParser
from visdet_assigners.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "configs/tiny/results.json"
# family: {recipe: config below configs/}.  A recipe is one column of the page, whatever each family needs for it.
RECIPES: dict[str, dict[str, str]] = {
    "rtmdet": {
        "stock": "tiny/rtmdet_nano_stock_12e_nuclei.py",
        "right": "rtmdet/rtmdet_nano_12e_nuclei.py",
        "ours": "tiny/rtmdet_nano_ours_12e_nuclei.py",
        "poto": "tiny/rtmdet_nano_poto_12e_nuclei.py",
    },
    "atss": {
        "stock": "tiny/atss_r18_fpn_stock_12e_nuclei.py",
        "right": "atss/atss_r18_fpn_12e_nuclei.py",
        "ours": "tiny/atss_r18_fpn_ours_12e_nuclei.py",
    },
    "retinanet": {
        "stock": "tiny/retinanet_r18_fpn_stock_12e_nuclei.py",
        "right": "tiny/retinanet_r18_fpn_right_12e_nuclei.py",
        "ours": "tiny/retinanet_r18_fpn_ours_12e_nuclei.py",
        "ranking": "tiny/retinanet_r18_fpn_ranking_12e_nuclei.py",
    },
    "yolox": {
        "stock": "tiny/yolox_nano_stock_24e_nuclei.py",
        "right": "yolox/yolox_nano_24e_nuclei.py",
        "ours": "tiny/yolox_nano_ours_24e_nuclei.py",
        "poto": "tiny/yolox_nano_poto_24e_nuclei.py",
    },
    "fcos": {
        "stock": "tiny/fcos_r18_fpn_stock_12e_nuclei.py",
        "right": "atss/fcos-lite_r18_fpn_12e_nuclei.py",
        "ours": "tiny/fcos_r18_fpn_ours_12e_nuclei.py",
    },
    "faster_rcnn": {
        "stock": "tiny/faster-rcnn_r18_fpn_stock_12e_nuclei.py",
        "right": "faster_rcnn/faster-rcnn_r18_fpn_12e_nuclei.py",
        "ours": "tiny/faster-rcnn_r18_fpn_ours_12e_nuclei.py",
        "nwd": "tiny/faster-rcnn_r18_fpn_nwd_12e_nuclei.py",
        "rfla": "tiny/faster-rcnn_r18_fpn_rfla_12e_nuclei.py",
    },
    "tood": {
        "stock": "tiny/tood_r18_fpn_stock_24e_nuclei.py",
        "right": "tood/tood_r18_fpn_24e_nuclei.py",
        "ours": "tiny/tood_r18_fpn_ours_24e_nuclei.py",
        "one-to-one": "tiny/tood_r18_fpn_one-to-one_24e_nuclei.py",
    },
}
SEEDS = (0, 1, 2)
DETECTIONS = 200
SIZE_CLASSES = {"2-8": (2, 8), "8-16": (8, 16), "16-32": (16, 32)}
"""Roots of areas in pixels, from and up to: very tiny, tiny and small objects in AI-TOD's words."""


class Run(NamedTuple):
    """One line of the table."""

    family: str
    recipe: str
    seed: int

    @property
    def config(self) -> str:
        """Path of the config below the repository."""
        return f"configs/{RECIPES[self.family][self.recipe]}"

    @property
    def name(self) -> str:
        """Name of its work folder."""
        return f"{self.family}-{self.recipe}-{self.seed}"


def table_of_runs(families: Sequence[str], recipes: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """All runs of the chosen families, recipes and seeds; empty names choose all."""
    return [
        Run(family, recipe, seed)
        for seed in seeds
        for family in RECIPES
        for recipe in RECIPES[family]
        if (not families or family in families) and (not recipes or recipe in recipes)
    ]


def read_results(path: Path) -> dict[Run, dict[str, Any]]:
    """Read the finished runs; none where there is no file."""
    rows = json.loads(path.read_text()) if path.exists() else []
    return {Run(row["family"], row["recipe"], row["seed"]): row for row in rows}


def add_result(path: Path, run: Run, row: dict[str, Any]) -> None:
    """Put a finished run into the file, one line a run, sorted."""
    rows = read_results(path) | {run: row}
    lines = [json.dumps(rows[key]) for key in sorted(rows)]
    part = path.with_suffix(".part")
    part.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    part.replace(path)


def evaluate(annotations: Path, predictions: Path) -> dict[str, float]:
    """AP, AP50, AP of each size class and recall of detections in COCO's format, with `DETECTIONS` of an image.

    Recall is the mean over the IoU thresholds of .5 to .95 (``recall``), and at .5 (``recall50``).  A size class that
    the annotations lack has NaN.  Areas are those of the annotations, as COCO takes them.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truths = COCO(str(annotations))
        # Without any detection there is nothing that pycocotools would load.
        found = truths.loadRes(str(predictions)) if json.loads(predictions.read_text()) else None
        if found is None:
            return dict.fromkeys(["AP", "AP50", *(f"AP {name}" for name in SIZE_CLASSES), "recall", "recall50"], 0.0)
        evaluation = COCOeval(truths, found, "bbox")
        evaluation.params.maxDets = [DETECTIONS]
        evaluation.params.areaRngLbl = ["all", *SIZE_CLASSES]
        evaluation.params.areaRng = [[0, 1e10], *([low**2, high**2] for low, high in SIZE_CLASSES.values())]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # (T, R, C, A, 1), (T, C, A, 1)

    def mean(values: np.ndarray) -> float:
        kept = values[values > -1]
        return round(float(kept.mean()), 4) if kept.size else float("nan")

    by_size = {f"AP {name}": mean(precision[:, :, :, 1 + index]) for index, name in enumerate(SIZE_CLASSES)}
    return {
        "AP": mean(precision[:, :, :, 0]),
        "AP50": mean(precision[0, :, :, 0]),
        **by_size,
        "recall": mean(recall[:, :, 0]),
        "recall50": mean(recall[0, :, 0]),
    }


def command_of(run: Run, work_dir: Path, more: Sequence[str] = ()) -> list[str]:
    """The training of a run, which goes on where it was interrupted; ``more`` are further ``--cfg-options``."""
    options = [f"randomness.seed={run.seed}", f"val_evaluator.outfile_prefix={work_dir / 'val'}", *more]
    return ["tools/train.py", run.config, "--work-dir", str(work_dir), "--resume", "--cfg-options", *options]


def train(run: Run, work_dir: Path, more: Sequence[str]) -> float:
    """Train, and return the CPU seconds of all attempts together; what the training prints goes into a file."""
    work_dir.mkdir(parents=True, exist_ok=True)
    spent = work_dir / "cpu_seconds.txt"
    before, start = float(spent.read_text()) if spent.exists() else 0.0, _children_seconds()
    try:
        with (work_dir / "output.txt").open("a") as output:
            command = [sys.executable, *command_of(run, work_dir, more)]
            done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False)
    finally:
        seconds = before + _children_seconds() - start
        spent.write_text(f"{seconds:.1f}\n")
    if done.returncode:
        last = (work_dir / "output.txt").read_text().strip().splitlines()[-1:]
        raise UserError(f"the training of {run.name} ended with status {done.returncode}: {' '.join(last)}; all that "
                        f"it printed is in {work_dir / 'output.txt'}")  # fmt: skip
    return seconds


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def epochs_of(config: str) -> int:
    """Epochs of a config."""
    from mmengine.config import Config

    return Config.fromfile(ROOT / config).train_cfg.max_epochs


def make_table(results: Iterable[dict[str, Any]]) -> str:
    """A Markdown table: mean over the seeds of each family and recipe, AP with its least and greatest."""
    columns = ["AP50", *(f"AP {name}" for name in SIZE_CLASSES), "recall"]
    lines = [
        f"| family | recipe | seeds | epochs | minutes | AP | {' | '.join(columns)} |",
        "| --- |" * 2 + " ---: |" * 9,
    ]
    order = [(family, recipe) for family in RECIPES for recipe in RECIPES[family]]
    rows = sorted(results, key=lambda row: order.index((row["family"], row["recipe"])))
    for (family, recipe), group in groupby(rows, key=lambda row: (row["family"], row["recipe"])):
        seeds = list(group)
        aps = [100 * row["AP"] for row in seeds]
        cells = [f"{100 * np.mean([row[column] for row in seeds]):.1f}" for column in columns]
        minutes = np.mean([row["cpu_seconds"] for row in seeds]) / 60
        spread = f"{np.mean(aps):.1f} ({min(aps):.1f} to {max(aps):.1f})"
        lines.append(f"| {family} | {recipe} | {len(seeds)} | {seeds[0]['epochs']} | {minutes:.0f} | {spread} | "
                     f"{' | '.join(cells)} |")  # fmt: skip
    return "\n".join(lines)


def unfinished(runs: Iterable[Run], results: Path) -> Iterator[tuple[Run, int]]:
    """Yield each run that has no result yet and how many are left with it; the file is read again before each."""
    waiting = list(runs)
    while waiting := [run for run in waiting if run not in read_results(results)]:
        yield waiting[0], len(waiting)
        waiting = waiting[1:]


def parse_args(argv: Sequence[str] | None):
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--families", nargs="+", default=[], choices=list(RECIPES), help="default: all")
    recipes = sorted({recipe for family in RECIPES.values() for recipe in family})
    parser.add_argument("--recipes", nargs="+", default=[], choices=recipes, help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="default: 0 1 2")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE.json", help="default: %(default)s")
    parser.add_argument("--work-dirs", type=Path, default=Path("work_dirs/tiny"), metavar="DIR",
                        help="folder of each run's logs and last checkpoint (default: %(default)s)")  # fmt: skip
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for every training")
    parser.add_argument("--list", action="store_true", help="print the runs that are left, and stop")
    parser.add_argument("--table", action="store_true", help="print the table of the finished runs, and stop")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    with user_errors():
        args = parse_args(argv)
        runs = table_of_runs(args.families, args.recipes, args.seeds)
        if args.table:
            results = read_results(args.results)
            print(make_table(results[run] for run in runs if run in results))
            return
        if args.list:
            print("\n".join(f"{run.name}: {run.config}" for run, _ in unfinished(runs, args.results)))
            return
        annotations = Path(os.environ.get("VISDET_NUCLEI", "data/nuclei")) / "annotations/val.json"
        if not annotations.exists():
            raise UserError(f"{annotations} doesn't exist; set VISDET_NUCLEI to the folder of the nuclei, which "
                            "configs/README.md says how to get")  # fmt: skip
        for run, left in unfinished(runs, args.results):
            print(f"{time.strftime('%H:%M')} {run.name} of {left} left: {run.config}", flush=True)
            work_dir = args.work_dirs.resolve() / run.name
            command = command_of(run, Path("work_dirs/tiny") / run.name, args.cfg_options)
            seconds = train(run, work_dir, args.cfg_options)
            row = {
                **run._asdict(),
                "config": run.config,
                "epochs": epochs_of(run.config),
                "cpu_seconds": round(seconds),
                **evaluate(annotations, work_dir / "val.bbox.json"),
                "command": shlex.join(["python", *command]),
            }
            add_result(args.results, run, row)
            print(f"{time.strftime('%H:%M')} {run.name}: AP {row['AP']:.3f}, AP50 {row['AP50']:.3f}, recall "
                  f"{row['recall']:.3f}, {seconds / 60:.0f} minutes of CPU", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
