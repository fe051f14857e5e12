"""The command ``compare``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

import argparse
import copy
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import INTERRUPTED, UntilInterrupted, user_errors
from visdet_assigners.commands.options import check_max_images
from visdet_assigners.errors import UserError
from visdet_assigners.observe import AssignmentRecord, watch
from visdet_assigners.observe.charts import curves_chart, positives_chart, quality_chart
from visdet_assigners.observe.comparison import Agreement, ask_too, draw_difference, same_priors
from visdet_assigners.observe.detector import (
    assignments,
    blank_images,
    build_dataset,
    build_model,
    check_detector,
    numbered_items,
    picture_path,
    repeats_left_out,
    sample_of,
)
from visdet_assigners.observe.draw import save
from visdet_assigners.observe.statistics import ObjectTable, PriorCounts, summarize
from visdet_assigners.observe.tap import assigners_by_place
from visdet_assigners.observe.without_network import ask_without_network, without_network
from visdet_assigners.training.classes import names_of
from visdet_assigners.training.config_assigners import assigner_nodes, check_assigners
from visdet_assigners.training.config_check import check_config
from visdet_assigners.training.running import build_runner, check_checkpoint

Pair = tuple[AssignmentRecord, AssignmentRecord]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    args = parsers.compare().parse_args(argv)
    if (args.config_b is None) == (args.to is None):
        raise UserError("give two configs, or one and --to type=ASSIGNER with its options")
    check_max_images(args.max_images)
    args.checkpoints = args.checkpoints or [None]
    if len(args.checkpoints) > 2 or (args.to and len(args.checkpoints) > 1):
        raise UserError("--checkpoints takes one file with --to, and one for each config otherwise")
    for file in args.checkpoints:
        check_checkpoint(file, "check the path, or leave it out")
    return args


def with_assigner(cfg: Config, options: dict, path: str | None) -> Config:
    """Return a copy of the config with another assigner.

    Args:
        cfg: the config.
        options: ``type`` and the arguments of the assigner, nested ones as ``iou_calculator.type``.
        path: of the assigner to replace; None for the only one.
    """
    if "type" not in options:
        raise UserError("--to: say which assigner, type=NAME")
    paths = [path for path, _ in assigner_nodes(cfg)]
    if path is None and len(paths) > 1:
        raise UserError(f"the config has several assigners; choose with --at one of {', '.join(paths)}")
    if not paths or (path is not None and path not in paths):
        raise UserError(f"the config has no assigner at {path}; it has {', '.join(paths) or 'none'}")
    changed = copy.deepcopy(cfg)
    node: Any = changed
    *parents, last = (path or paths[0]).split(".")
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    replacement = Config()
    replacement.merge_from_dict(options)
    node[int(last) if isinstance(node, list) else last] = replacement._cfg_dict
    return changed


def changed_assigners(model: Any, other: Any) -> dict[str, Any]:
    """The assigners of ``other`` that are of another kind than those in their places in ``model``, by place."""

    def settings(assigner: Any) -> tuple[type, str]:
        plain = {
            key: value for key, value in vars(assigner).items() if isinstance(value, (int, float, str, tuple, list))
        }
        return type(assigner), str(sorted(plain.items()))

    places = assigners_by_place(model)
    return {
        where: assigner
        for where, assigner in assigners_by_place(other).items()
        if where not in places or settings(places[where]) != settings(assigner)
    }


def pairs_of_one(model: Any, others: dict[str, Any], item: Any) -> tuple[np.ndarray, list[Pair]]:
    """Run one image and ask the other assigners about the same priors and predictions."""
    seconds: list[AssignmentRecord] = []

    def ask(call: Any) -> None:
        if call.where in others:
            try:
                seconds.append(ask_too(others[call.where], call))
            except (TypeError, AttributeError, ValueError) as error:
                name, other = type(others[call.where]).__name__, type(call.assigner).__name__
                raise UserError(
                    f"{name} can't be asked with what the head gives {other}: {error}; compare two configs instead"
                ) from error

    with watch(model, ask):
        image, _, records = assignments(model, item)
    return image, list(zip((record for record in records if record.where in others), seconds))


def pairs_of_two(models: Sequence[Any], item: Any) -> tuple[np.ndarray, list[Pair]]:
    """Run one image through two models, and pair what they assign: in the same place, or each in its only one."""
    sides = []
    for model in models:
        image, _, records = assignments(model, copy.deepcopy(item))
        groups: dict[tuple[str, int], AssignmentRecord] = {(record.where, record.repeat): record for record in records}
        sides.append(groups)
    first, second = sides
    common = [key for key in first if key in second]
    if not common and first and second:  # heads of other names: the last that each asks
        return image, [(first[max(first, key=lambda key: key[1])], second[max(second, key=lambda key: key[1])])]
    return image, [(first[key], second[key]) for key in common]


class Comparison:
    """What two assigners do to a data set, by their place in the model."""

    def __init__(self) -> None:
        self.tables: dict[str, tuple[list[ObjectTable], list[ObjectTable]]] = defaultdict(lambda: ([], []))
        self.counts: dict[str, list[PriorCounts]] = defaultdict(lambda: [PriorCounts(), PriorCounts()])
        self.agreement: dict[str, Agreement] = {}
        self.names: dict[str, tuple[str, str]] = {}
        self.differences: dict[str, dict[int, int]] = defaultdict(dict)
        self.reads_predictions = False

    def add(self, number: int, pairs: Sequence[Pair]) -> None:
        """Add what was assigned in one image."""
        for first, second in pairs:
            where = place_of((first, second))
            self.names[where] = tell_apart(first.assigner, second.assigner)
            self.reads_predictions |= first.reads_predictions or second.reads_predictions
            for side, record in enumerate((first, second)):
                self.tables[where][side].append(ObjectTable.of([record], [number]))
                self.counts[where][side] += PriorCounts.of([record])
            if same_priors(first, second):
                agreement = Agreement.of(first.gt_index, second.gt_index)
                self.agreement[where] = self.agreement.get(where, Agreement()) + agreement
                differing = sum(asdict(agreement).values()) - agreement.agree
                self.differences[where][number] = self.differences[where].get(number, 0) + differing

    def summaries(self, where: str, classes: Sequence[str]) -> list[dict[str, Any]]:
        """The numbers of the first and of the second."""
        sides = zip(self.tables[where], self.counts[where])
        return [summarize(ObjectTable.join(tables), counts, classes) for tables, counts in sides]


def place_of(pair: Pair) -> str:
    """Where in their models the two are."""
    return " and ".join(dict.fromkeys(record.where for record in pair))


def tell_apart(first: str, second: str) -> tuple[str, str]:
    """Two names that differ."""
    return (first, second) if first != second else (f"{first}, first", f"{second}, second")


def compare(cfgs: Sequence[Config], args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Go through the data set, draw, and return all numbers."""
    init_default_scope(cfgs[0].get("default_scope", "mmdet"))
    with_images = build_dataset(cfgs[0], args.phase)
    dataset = build_dataset(cfgs[0], args.phase)
    blank_images(dataset)
    models = [
        build_model(cfg, checkpoint, args.epoch)
        for cfg, checkpoint in zip(cfgs, [*args.checkpoints, args.checkpoints[-1] if args.to else None])
    ]
    others = changed_assigners(*models) if args.to else {}
    if args.to and not others:
        raise UserError("--to gives the assigner that the config has already; change its type or an option")
    asked = models[:1] if args.to else models
    alone = [ask_without_network(model, dataset) if args.checkpoints == [None] else set() for model in asked]
    without = all(alone)

    comparison = Comparison()
    written: set[Path] = set()
    classes = names_of(dataset)
    count = min(args.max_images, len(dataset))

    def pairs_of(item: Any) -> tuple[np.ndarray, list[Pair]]:
        image, pairs = pairs_of_one(models[0], others, item) if args.to else pairs_of_two(models, item)
        if without:
            pairs = [pair for pair in pairs if pair[0].where in alone[0] and pair[1].where in alone[-1]]
        return image, pairs

    with ExitStack() as stack:
        for model in asked if without else ():
            stack.enter_context(without_network(model))
        items = numbered_items(dataset if without else with_images, range(count))
        images = UntilInterrupted(tqdm(items, "assigning", count, unit="image"))
        for number, item in images:
            comparison.add(number, pairs_of(item)[1])
        if not comparison.names:
            raise UserError("the two have no assignment in common; check the configs, or give --checkpoints")
        for where, differences in () if images.interrupted else comparison.differences.items():
            chosen = sorted(differences, key=lambda number: -differences[number])[: args.pictures]
            for _, item in tqdm(numbered_items(with_images, chosen), "drawing", len(chosen), unit="image"):
                image, pairs = pairs_of(item)
                first, second = [pair for pair in pairs if place_of(pair) == where][-1]
                path = picture_path(folder, sample_of(item), where, written)
                save(draw_difference(image, first, second), path)
                written.add(path)
    result: dict[str, Any] = {"images": images.done, "interrupted": images.interrupted, "places": {}}
    for where, names in comparison.names.items():
        tables = dict(zip(names, map(ObjectTable.join, comparison.tables[where])))
        stem = where.replace(" ", "_")
        positives_chart(tables).savefig(folder / f"positives.{stem}.png", dpi=100)
        if any(np.isfinite(table.quality).any() for table in tables.values()):
            quality_chart(tables).savefig(folder / f"quality.{stem}.png", dpi=100)
        agreement = comparison.agreement.get(where)
        result["places"][where] = {
            "agreement": None if agreement is None else {**asdict(agreement), "share": agreement.share},
            "assigners": dict(zip(names, comparison.summaries(where, classes))),
        }
    result["random_weights"] = comparison.reads_predictions and args.checkpoints == [None]
    return result


def print_comparison(result: dict[str, Any]) -> None:
    """Print the numbers as tables."""
    console = Console(width=110)
    for where, place in result["places"].items():
        names = list(place["assigners"])
        table = Table("", *names, title=f"{where}, {result['images']} images", title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        sides = list(place["assigners"].values())
        for label, key, form in (
            ("objects", "objects", "{:d}"), ("positives per object, mean", "mean_positives", "{:.2f}"),
            ("positives per object, median", "median_positives", "{:g}"), ("without a positive", "without", "{:.1%}"),
            ("mean quality", "mean_quality", "{:.3f}"),
        ):  # fmt: skip
            table.add_row(label, *("" if side[key] is None else form.format(side[key]) for side in sides))
        for size in sides[0]["by_size_class"]:
            rows = [side["by_size_class"][size] for side in sides]
            if rows[0]["objects"]:
                cells = [f"{row['median_positives']:g}, {row['without']:.1%}" for row in rows]
                table.add_row(f"{size} ones ({rows[0]['objects']}): median, without", *cells)
        console.print(table)
        agreement = place["agreement"]
        if agreement is None:
            print("Their priors differ, so they are compared object by object alone.")
        else:
            print(
                f"They agree on {agreement['share']:.1%} of the positives of either: {agreement['agree']} in both, "
                f"{agreement['only_first']} only in the first, {agreement['only_second']} only in the second, "
                f"{agreement['another_object']} for another object."
            )
    if result["random_weights"]:
        print("The weights are random, so what depends on predictions means nothing: give --checkpoints.")


class Curves(Hook):
    """Keeps the loss of one iteration in ten, and every validation."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []
        self.metrics: list[tuple[int, dict[str, float]]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Keep the loss."""
        if runner.iter % 10 == 0:
            self.losses.append((runner.iter + 1, outputs["loss"].item()))

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Keep the precisions."""
        self.metrics.append((runner.iter, {key: value for key, value in (metrics or {}).items() if "AP" in key}))


def train(cfgs: Sequence[Config], names: Sequence[str], args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train each detector from the same seed, draw the curves, and return the metrics of the last validation."""
    curves = {name: Curves() for name in names}
    for side, (cfg, hook) in enumerate(zip(copy.deepcopy(cfgs), curves.values())):
        cfg.randomness = {"seed": args.seed}
        cfg.work_dir = str(folder / f"training_{'ab'[side]}")
        cfg.experiment_name = f"compare_{side}"
        cfg.setdefault("visualizer", {"type": "Visualizer"})
        cfg.visualizer.name = cfg.experiment_name  # or the second would write where the first does
        runner = build_runner(cfg)
        runner.register_hook(hook)
        runner.train()
    curves_chart({name: hook.losses for name, hook in curves.items()}, "iteration", "loss").savefig(
        folder / "losses.png", dpi=100
    )
    keys = list(dict.fromkeys(key for hook in curves.values() for _, metrics in hook.metrics for key in metrics))
    if keys:
        points = {
            name: [(step, metrics[keys[0]]) for step, metrics in hook.metrics if keys[0] in metrics]
            for name, hook in curves.items()
        }
        curves_chart(points, "iteration", keys[0]).savefig(folder / "precision.png", dpi=100)
    last = {name: hook.metrics[-1][1] if hook.metrics else {} for name, hook in curves.items()}
    table = Table("", *names, title=f"after training, seed {args.seed}", title_justify="left")
    for key in keys:
        table.add_row(key, *(f"{metrics[key]:.3f}" if key in metrics else "" for metrics in last.values()))
    Console(width=110).print(table)
    return last


def load_configs(args: argparse.Namespace) -> list[Config]:
    """Read the two configs, or the one and put the other assigner into its copy."""
    phases = list(dict.fromkeys([args.phase, *(["train", "val"] if args.train else [])]))
    images = bool(args.pictures or args.train or any(args.checkpoints))
    cfg = load_config(args)
    check_detector(cfg, args.phase)
    check_config(cfg, phases, images=images)
    if args.to:
        other = with_assigner(cfg, args.to, args.at)
        check_assigners(other)
    else:
        other = load_config(argparse.Namespace(**{**vars(args), "config": args.config_b}))
        check_detector(other, args.phase)
        check_config(other, phases, images=images)
    return [cfg, other]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the command line says."""
    torch.set_num_threads(1)
    with user_errors():
        args = parse_args(argv)
        cfgs = load_configs(args)
        folder = Path(args.out_dir or cfgs[0].work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        result = compare(cfgs, args, folder)
        print_comparison(result)
        for note in repeats_left_out(cfgs[0], args.phase):
            print(note)
        if args.train and not result["interrupted"]:
            last = list(result["places"].values())[-1]
            names = list(last["assigners"]) if args.to else [Path(path).stem for path in (args.config, args.config_b)]
            result["metrics"] = train(cfgs, tell_apart(*names), args, folder)
        (folder / "comparison.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"{folder / 'comparison.json'}, and charts and pictures beside it")
    return INTERRUPTED if result["interrupted"] else 0
