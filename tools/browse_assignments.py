#!/usr/bin/env python
"""Draw which priors or queries a detector's assigners give to each object, on the images of its data set.

Each image goes through the model's own training step, without gradients, so that any config of mmdet works; each
assigner gets a picture of its own, or only those that --assigner names.  Assigners that look at anchors alone are shown
exactly, with or without a checkpoint; those that look at predictions (SimOTA, TaskAligned, Hungarian, and MaxIoU on
proposals) need one.
"""

import argparse
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from mmdet.models.dense_heads import MaskFormerHead
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.visualization import Visualizer
from tqdm import tqdm

from visdet_assigners import cli
from visdet_assigners.functional.masks import mask_boxes
from visdet_assigners.observe import AssignmentRecord, detector
from visdet_assigners.observe.detector import build_dataset, build_model
from visdet_assigners.observe.draw import MaskRecord, draw_assignments, panels_of, render, save


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.ArgumentParser(description=__doc__)
    cli.add_config_arguments(parser)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; without one the weights are random")
    parser.add_argument("--out-dir", help="folder for the pictures (default: work_dirs/CONFIG/assignments)")
    parser.add_argument("--phase", choices=["train", "val"], default="train", help="which data set (default: train)")
    parser.add_argument(
        "-n", "--show-number", type=int, default=10, help="how many images that have objects (default: 10)"
    )
    parser.add_argument("--assigner", metavar="PART", help="draw only the assigners whose name has this part, as "
                        "roi_head or bbox_assigner[1] (default: all)")  # fmt: skip
    parser.add_argument("--epoch", type=int, help="for heads that change their assigner while training, as TOOD does "
                        "(default: the checkpoint's, else 0)")  # fmt: skip
    parser.add_argument("--all-levels", action="store_true", help="also draw levels where nothing is positive")
    parser.add_argument("--panel-width", type=int, metavar="PIXELS", help="width of an image in the pictures")
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--show", action="store_true", help="also show each picture in a window; space goes on")
    show.add_argument("--not-show", action="store_false", dest="show", help="only write the pictures (default)")
    return parser.parse_args(argv)


def assignments(model: torch.nn.Module, item: dict) -> tuple[np.ndarray, Any, list[AssignmentRecord]]:
    """Run one image through the training step; as ``detector.assignments``, with masks where the model matches them."""
    if not isinstance(item["inputs"], torch.Tensor):
        raise cli.UserError("the config feeds its model several branches of images; give the config of one detector")
    with matched_masks(model) as masks:
        image, sample, records = detector.assignments(model, item)
    return image, sample, [masks[record.module](record) if record.module in masks else record for record in records]


@contextmanager
def matched_masks(model: torch.nn.Module) -> Iterator[dict[str, Callable[[AssignmentRecord], MaskRecord]]]:
    """Keep the masks of one image that the model's mask heads match, whose assigners may see points in them alone.

    Yields:
        For the name of each mask head, what makes a record of its assigner one with masks and the boxes around them.
    """
    made: dict[str, Callable[[AssignmentRecord], MaskRecord]] = {}
    with ExitStack() as stack:
        for name, head in model.named_modules():
            if isinstance(head, MaskFormerHead):
                made[name] = stack.enter_context(_masks_of(head))
        yield made


@contextmanager
def _masks_of(head: MaskFormerHead) -> Iterator[Callable[[AssignmentRecord], MaskRecord]]:
    """Listen to one mask head; see ``matched_masks``."""
    truths: list[torch.Tensor] = []
    predictions: list[torch.Tensor] = []
    preprocess_gt = head.preprocess_gt

    def keep_truths(*args: Any) -> Any:
        prepared = preprocess_gt(*args)
        truths.append(prepared[0].masks.bool())
        return prepared

    def keep_predictions(_module: Any, _inputs: Any, outputs: Any) -> None:
        predictions.extend(masks[0] > 0 for masks in outputs[1])  # one decoder layer after another

    def with_masks(record: AssignmentRecord) -> MaskRecord:
        pred_masks, gt_masks = predictions[record.call], truths[0]
        (height, width), (rows, columns) = gt_masks.shape[1:], pred_masks.shape[1:]
        pixels = torch.tensor([width / columns, height / rows] * 2, device=pred_masks.device)
        boxes = {"gt_boxes": mask_boxes(gt_masks), "pred_boxes": mask_boxes(pred_masks) * pixels}
        return MaskRecord(**{**vars(record), **boxes}, pred_masks=pred_masks, gt_masks=gt_masks)

    head.preprocess_gt = keep_truths
    handle = head.register_forward_hook(keep_predictions)
    try:
        yield with_masks
    finally:
        handle.remove()
        del head.preprocess_gt


def open_window() -> Visualizer:
    """Return what shows pictures in a window, where there is a display."""
    figure = plt.figure()
    plt.close(figure)
    if figure.canvas.required_interactive_framework is None:
        raise cli.UserError("--show needs a display and there is none; leave it out and look at the files")
    return Visualizer()


def with_objects(dataset: Any) -> Iterator[dict]:
    """Yield the images that have an object."""
    for index in range(len(dataset)):
        item = dataset[index]
        if item is not None and len(item["data_samples"].gt_instances):
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
    dataset = build_dataset(cfg, args.phase)
    model = build_model(cfg, args.checkpoint, args.epoch)
    classes = dataset.metainfo.get("classes") or ()
    folder = Path(args.out_dir or Path(cfg.work_dir) / "assignments")
    folder.mkdir(parents=True, exist_ok=True)
    window = open_window() if args.show else None

    written = 0
    calls = 0
    predicted = set()
    found: set[str] = set()
    for item in tqdm(
        itertools.islice(with_objects(dataset), args.show_number),
        total=min(args.show_number, len(dataset)),
        desc="drawing assignments",
        unit="image",
    ):
        image, sample, records = assignments(model, item)
        calls += len(records)
        names = [classes[label] if label < len(classes) else str(label) for label in sample.gt_instances.labels]
        for group in by_assigner(records):
            found.add(group[0].where)
            if args.assigner and args.assigner not in group[0].where:
                continue
            where = re.sub(r"[^\w.]", "", group[0].where)
            figure = draw_assignments(image, group, names, args.panel_width, args.all_levels)
            save(figure, folder / f"{Path(sample.img_path).stem}.{where}.png")
            written += 1
            if any(record.reads_predictions for record in group):
                predicted.add(f"{group[0].assigner} ({group[0].where})")
            if window is not None:
                window.show(render(figure), win_name=f"{sample.img_path} {where}")
    if calls == 0:
        raise cli.UserError(
            f"{type(model).__name__} called no assigner, so there is nothing to draw: its head computes targets "
            "itself, or no image has an object; choose another config, or --phase"
        )
    if not found:
        raise cli.UserError(
            f"{type(model).__name__} assigns neither priors, boxes nor MaskFormer's masks, so this tool can't draw it; "
            "choose another config"
        )
    if not written:
        raise cli.UserError(
            f"--assigner {args.assigner}: the model calls {', '.join(sorted(found))}; name a part of these"
        )
    print(f"{written} pictures in {folder}")
    if predicted and args.checkpoint is None:
        print(f"The weights are random, so what depends on predictions means nothing: {', '.join(sorted(predicted))}; "
              "give a CHECKPOINT")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Draw as the command line says."""
    with cli.user_errors():
        args = parse_args(argv)
        if args.show_number < 1:
            raise cli.UserError(f"--show-number {args.show_number}: give the number of images, at least 1")
        cfg = cli.load_config(args)
        if args.checkpoint:
            cli.check_file(args.checkpoint, "checkpoint", "check the path, or leave it out")
        cli.check_data(cfg, [args.phase])
        cli.check_assigners(cfg)
        browse(cfg, args)


if __name__ == "__main__":
    main()
