"""The command ``browse``; `visdet_assigners.commands.parsers` says what it does."""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.visualization import Visualizer
from tqdm import tqdm

from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.errors import UserError
from visdet_assigners.observe import AssignmentRecord
from visdet_assigners.observe.detector import (
    assignments,
    build_dataset,
    build_model,
    check_calls,
    check_detector,
    numbered_items,
    objects_of,
    picture_path,
    repeats_left_out,
    uncalled,
)
from visdet_assigners.observe.draw import draw_assignments, render, save
from visdet_assigners.observe.panels import panels_of
from visdet_assigners.training.classes import names_of
from visdet_assigners.training.config_check import check_config
from visdet_assigners.training.running import check_checkpoint


def open_window() -> Visualizer:
    """Return what shows pictures in a window, where there is a display."""
    figure = plt.figure()
    plt.close(figure)
    if figure.canvas.required_interactive_framework is None:
        raise UserError("--show needs a display and there is none; leave it out and look at the files")
    return Visualizer()


def with_objects(dataset: Any) -> Iterator[dict]:
    """Yield the images that have an object."""
    for _, item in numbered_items(dataset, range(len(dataset))):
        if len(objects_of(item)):
            yield item


def by_assigner(records: Sequence[AssignmentRecord]) -> Iterator[list[AssignmentRecord]]:
    """Group the records that belong in one picture: all calls of an assigner, such as those of DETR's layers."""
    for where in dict.fromkeys(record.where for record in records):
        drawable = [record for record in records if record.where == where and panels_of(record)]
        if drawable:
            yield drawable


def browse(cfg: Config, args: argparse.Namespace) -> None:
    """Draw and write the pictures."""
    set_random_seed(0)  # the same command draws the same pictures
    init_default_scope(cfg.get("default_scope", "mmdet"))
    model = build_model(cfg, args.checkpoint, args.epoch)
    dataset = build_dataset(cfg, args.phase)
    classes = names_of(dataset)
    folder = Path(args.out_dir or Path(cfg.work_dir) / "assignments")
    folder.mkdir(parents=True, exist_ok=True)
    window = open_window() if args.show else None

    written: set[Path] = set()
    called: set[str] = set()
    objects = False
    predicted = set()
    found: set[str] = set()
    for item in tqdm(
        itertools.islice(with_objects(dataset), args.show_number),
        total=min(args.show_number, len(dataset)),
        desc="drawing assignments",
        unit="image",
    ):
        image, sample, records = assignments(model, item)
        objects = True
        called.update(record.where for record in records)
        for group in by_assigner(records):
            found.add(group[0].where)
            if args.assigner and args.assigner not in group[0].where:
                continue
            seen = group[0].with_labels(sample.gt_instances.labels).gt_labels
            labels = [] if seen is None else seen.tolist()
            names = [classes[label] if label < len(classes) else str(label) for label in labels]
            figure = draw_assignments(image, group, names, args.panel_width, args.all_levels)
            path = picture_path(folder, sample, group[0].where, written)
            save(figure, path)
            written.add(path)
            if any(record.reads_predictions for record in group):
                predicted.add(f"{group[0].assigner} ({group[0].where})")
            if window is not None:
                window.show(render(figure), win_name=path.stem)
    check_calls(model, called, objects)
    if not found:
        raise UserError(
            f"{type(model).__name__} assigns neither priors, boxes nor MaskFormer's masks, so this tool can't draw it; "
            "choose another config"
        )
    if not written:
        raise UserError(f"--assigner {args.assigner}: the model calls {', '.join(sorted(found))}; name a part of these")
    never = uncalled(model, called)
    print(f"{len(written)} pictures in {folder}", *repeats_left_out(cfg, args.phase), sep="\n")
    if never:
        print(f"Not called: {', '.join(never.values())}; a head that changes its assigner while training has it at "
              "another --epoch")  # fmt: skip

    if predicted and args.checkpoint is None:
        print(f"The weights are random, so what depends on predictions means nothing: {', '.join(sorted(predicted))}; "
              "give a CHECKPOINT")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Draw as the command line says."""
    with user_errors():
        args = parsers.browse().parse_args(argv)
        if args.show_number < 1:
            raise UserError(f"--show-number {args.show_number}: give the number of images, at least 1")
        cfg = load_config(args)
        check_checkpoint(args.checkpoint, "check the path, or leave it out")
        check_detector(cfg, args.phase)
        check_config(cfg, [args.phase])
        browse(cfg, args)
