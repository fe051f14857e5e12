#!/usr/bin/env python
"""Count how many positives an object gets, by its size, under the rules that the ATSS paper compares.

    python tools/positives_by_size.py --annotations data/coco/annotations/instances_val2017.json --out positives.png

Boxes of each size are put at random places of an 800x1333 picture, one at a time; with --annotations, the boxes of a
data set are assigned as well, all of a picture together.  There are five levels of strides 8 to 128, with square
anchors of 8 strides, or nine of three shapes and sizes.  The claim: under ATSS with k candidates a level and L levels
it is about 0.2 k L, whatever the size.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmengine.structures import InstanceData
from torch import Tensor
from tqdm import tqdm

from visdet_assigners import ATSSAssigner, MaxIoUAssigner, ScaleRangeAssigner
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import ArgumentParser
from visdet_assigners.errors import UserError, check_file
from visdet_assigners.observe.charts import COLORS
from visdet_assigners.observe.records import AssignmentCall, as_record
from visdet_assigners.observe.statistics import ObjectTable, positives_by_size
from visdet_assigners.testing.scenes import STRIDES, Objects, coco_objects, feature_sizes

IMAGE = (800, 1333)
SIZES = (8, 16, 32, 64, 128, 256, 512)
SWEEP = (3, 5, 7, 9, 11, 13, 15, 17, 19)


@dataclass(frozen=True)
class Rule:
    """An assigner, the shape of the objects (width / height) and the anchors at each point: 1 or 9."""

    assigner: ATSSAssigner | MaxIoUAssigner | ScaleRangeAssigner
    aspect: float = 1.0
    per_place: int = 1


MAX_IOU = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
LITE = ScaleRangeAssigner(center_sampling=True)
COMPARED = {
    "ATSS, k = 9": Rule(ATSSAssigner(9)),
    "IoU .5 / .4": Rule(MAX_IOU),
    "FCOS": Rule(ScaleRangeAssigner()),
    "FCOS, centre sampling": Rule(LITE),
}
RULES = {
    **{f"ATSS, k = {k}": Rule(ATSSAssigner(k)) for k in SWEEP},
    "ATSS, k = 9, width : height 4 : 1": Rule(ATSSAssigner(9), aspect=4),
    "ATSS, k = 9, width : height 1 : 4": Rule(ATSSAssigner(9), aspect=1 / 4),
    "ATSS, 9 anchors a point, topk 9": Rule(ATSSAssigner(9), per_place=9),
    "ATSS, 9 anchors a point, topk 9 per location": Rule(
        ATSSAssigner(9, topk_per_location=True, num_anchors_per_location=9), per_place=9
    ),
    "IoU .5 / .4": COMPARED["IoU .5 / .4"],
    "IoU .5 / .4, centre inside": Rule(
        MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_outside_gt=True)
    ),
    "FCOS": COMPARED["FCOS"],
    "FCOS, centre sampling": COMPARED["FCOS, centre sampling"],
}


@cache
def anchors_of(image: tuple[int, int], per_place: int) -> tuple[Tensor, tuple[int, ...]]:
    """Anchors (N, 4) xyxy of a picture of (height, width), pixels, and how many each level has."""
    three = per_place == 9
    made = AnchorGenerator(
        strides=STRIDES,
        octave_base_scale=8,
        scales_per_octave=3 if three else 1,
        ratios=[0.5, 1.0, 2.0] if three else [1.0],
        center_offset=0.5,
    )
    levels = made.grid_priors(feature_sizes(image, STRIDES), device="cpu")
    return torch.cat(levels), tuple(map(len, levels))


def draw_places(size: float, aspect: float, count: int, seed: int = 0) -> Tensor:
    """Boxes of one size, the root of their area, and aspect at random places: (count, 4), none if they don't fit."""
    extent = torch.tensor([size * aspect**0.5, size * aspect**-0.5])  # width, height
    room = torch.tensor([IMAGE[1], IMAGE[0]]) - extent
    if (room < 0).any():
        return torch.zeros(0, 4)
    corner = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * room
    return torch.cat([corner, corner + extent], dim=1)


def count_alone(rule: Rule, boxes: Tensor) -> list[int]:
    """How many positives each of (M, 4) boxes gets that is alone in the picture."""
    priors, sizes = anchors_of(IMAGE, rule.per_place)
    pred = InstanceData(priors=priors)
    counts = []
    for box in boxes:
        gt = InstanceData(bboxes=box[None], labels=torch.zeros(1, dtype=torch.long))
        counts.append(int((rule.assigner.assign(pred, gt, num_level_priors=sizes).gt_inds > 0).sum()))
    return counts


def assign_together(rule: Rule, scenes: Sequence[Objects]) -> ObjectTable:
    """Assign all boxes of each picture."""
    records = []
    for objects in scenes:
        priors, sizes = anchors_of(objects.image, rule.per_place)
        given = dict(pred_instances=InstanceData(priors=priors), gt_instances=objects.instances, num_level_priors=sizes)
        result = rule.assigner.assign(**given)
        records.append(as_record(AssignmentCall("", "assigner", rule.assigner, 0, 0, None, given, result)))
    return ObjectTable.of(records, range(len(records)))


def octaves(table: ObjectTable) -> dict[int, dict]:
    """Median positives and the band of 10 to 90 % in a bin around each of ``SIZES`` that has objects."""
    edges = np.array(SIZES[:1] + SIZES) * 2.0 ** np.array([-0.5] + [0.5] * len(SIZES))
    return {round(np.sqrt(row["from"] * row["to"])): row for row in positives_by_size(table, edges)}


def make_table(rows: dict[str, list[str]], head: str) -> str:
    """Write a Markdown table with a column for each size."""
    lines = [f"| {head} | {' | '.join(map(str, SIZES))} |", "| --- |" + " ---: |" * len(SIZES)]
    return "\n".join(lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()])


def cell_of_counts(counts: Sequence[int]) -> str:
    """The mean, and from least to most where they differ."""
    if not counts:
        return ""
    spread = f" ({min(counts)}-{max(counts)})" if min(counts) < max(counts) else ""
    return f"{np.mean(counts):.1f}{spread}"


def cells_of_table(table: ObjectTable) -> list[str]:
    """The median in the bin around each size and, where there are any, the share without a positive."""
    rows = octaves(table)
    none = {size: f", {100 * row['without']:.2g}% none" if row["without"] else "" for size, row in rows.items()}
    return [f"{rows[size]['median']:g}{none[size]}" if size in rows else "" for size in SIZES]


def draw(alone: dict[str, list[list[int]]], together: dict[str, ObjectTable], path: str) -> None:
    """Draw positives by size: of single boxes, and of those of the data set if there is one."""
    figure = Figure(figsize=(5.2 * (1 + bool(together)), 4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + bool(together), sharey=True, squeeze=False)[0]
    for (name, counts), color in zip(alone.items(), COLORS):
        low, middle, high = ([f(each) for each in counts] for f in (min, np.mean, max))
        _curve(panels[0], name, color, list(SIZES), low, middle, high)
    panels[0].set(title="one object, at 100 random places\n(mean; band: least to most)", ylabel="positives per object")
    for (name, table), color in zip(together.items(), COLORS):
        rows = octaves(table)
        band = ([row[key] for row in rows.values()] for key in ("p10", "median", "p90"))
        _curve(panels[1], name, color, list(rows), *band)
        panels[1].set_title("objects of photographs, together\n(median; band: 10 to 90 %)")
    for axes in panels:
        axes.axhline(9, color="#777777", linestyle=":", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_yscale("symlog", linthresh=10)
        axes.set_ylim(-0.5, 100)
        axes.set_yticks([0, 2, 5, 9, 20, 50, 100], minor=False)
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("size of the object, pixels")
    panels[0].legend(frameon=False)
    figure.savefig(path)


def _curve(axes: Axes, name: str, color: str, sizes: Sequence[float], low, middle, high) -> None:
    axes.fill_between(sizes, low, high, color=color, alpha=0.12, linewidth=0)
    width = 4 if color == COLORS[0] else 1.5  # other curves may lie on that of ATSS
    axes.plot(sizes, middle, "o-", color=color, linewidth=width, markersize=width + 2, label=name)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=100, help="of each size (default: %(default)s)")
    parser.add_argument("--annotations", nargs="+", default=[], metavar="FILE",
                        help="data sets in COCO's format; their images are not read")  # fmt: skip
    parser.add_argument("--max-images", type=int, default=300, help="of each data set (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE.png", help="draw the four rules that the paper compares")
    args = parser.parse_args(argv)
    for name in ("places", "max_images"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give a number, at least 1")
    for file in args.annotations:
        check_file(file, "file of annotations", "check the path")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Count as the command line says."""
    with user_errors():
        args = parse_args(argv)
        counts = {
            name: [count_alone(rule, draw_places(size, rule.aspect, args.places)) for size in SIZES]
            for name, rule in tqdm(RULES.items(), desc="single objects", unit="rule")
        }
        print(make_table({name: list(map(cell_of_counts, row)) for name, row in counts.items()}, "one object alone"))
        scenes = list(itertools.chain(*(coco_objects(file, args.max_images, max(IMAGE)) for file in args.annotations)))
        tables = {
            name: assign_together(rule, scenes)
            for name, rule in tqdm(RULES.items() if scenes else (), desc="data sets", unit="rule")
            if rule.aspect == 1
        }
        if tables:
            total = sum(len(objects.boxes) for objects in scenes)
            rows = {name: cells_of_table(table) for name, table in tables.items()}
            found = octaves(next(iter(tables.values())))
            rows["objects"] = [str(found[size]["objects"]) if size in found else "" for size in SIZES]
            print("\n" + make_table(rows, f"{total} objects of {len(scenes)} pictures"))
        if args.out:
            draw({name: counts[name] for name in COMPARED}, {n: tables[n] for n in COMPARED if tables}, args.out)
            print(args.out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
