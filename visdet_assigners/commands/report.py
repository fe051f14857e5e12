"""The command ``report``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from tqdm import tqdm

from visdet_assigners.adapting import fed_by
from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import INTERRUPTED, UntilInterrupted, user_errors
from visdet_assigners.commands.options import check_max_images
from visdet_assigners.observe.charts import as_jpeg_address
from visdet_assigners.observe.detector import (
    assignments,
    blank_images,
    build_dataset,
    build_model,
    check_calls,
    check_detector,
    numbered_items,
    repeats_left_out,
    uncalled,
)
from visdet_assigners.observe.draw import draw_assignments
from visdet_assigners.observe.panels import panels_of
from visdet_assigners.observe.records import place_of
from visdet_assigners.observe.report import Report
from visdet_assigners.observe.tap import decoder_layers, find_assigners, named_parts
from visdet_assigners.observe.without_network import ask_without_network, without_network
from visdet_assigners.training.classes import names_of
from visdet_assigners.training.config_check import check_config
from visdet_assigners.training.running import check_checkpoint


def make_report(cfg: Config, args: argparse.Namespace) -> tuple[Report, bool]:
    """Go through the data set; also tell whether Ctrl-C ended it early."""
    init_default_scope(cfg.get("default_scope", "mmdet"))
    model = build_model(cfg, args.checkpoint, args.epoch)
    with_images = build_dataset(cfg, args.phase)
    dataset = build_dataset(cfg, args.phase)
    blank_images(dataset)
    alone = ask_without_network(model, dataset) if args.checkpoint is None else set()
    without = bool(alone)
    title = f"Assignments of {Path(args.config).stem}, {args.phase} set"
    report = Report(title, names_of(dataset), decoder_layers(model))
    parts = dict(named_parts(model))
    report.alternatives = {place_of(module, name): fed_by(parts[module]) for module, name, _ in find_assigners(model)}
    count = min(args.max_images or len(dataset), len(dataset))
    left_out: set[str] = set()
    objects = False

    mode: AbstractContextManager = without_network(model) if without else nullcontext()
    with mode:
        items = numbered_items(dataset if without else with_images, range(count))
        images = UntilInterrupted(tqdm(items, "assigning", count, unit="image"))
        for number, item in images:
            _, sample, records = assignments(model, item)
            objects |= len(sample.gt_instances) > 0
            if without:
                left_out |= {f"{record.assigner} ({record.where})" for record in records if record.where not in alone}
                records = [record for record in records if record.where in alone]
            report.add(
                number, str(getattr(sample, "img_path", f"image {number}")), records, sample.gt_instances.labels.cpu()
            )
        for where in report.assigners:
            chosen = report.to_show(where, args.pictures)
            if images.interrupted:
                break
            for number, item in tqdm(numbered_items(with_images, chosen), "drawing", len(chosen), unit="image"):
                image, sample, records = assignments(model, item)
                mine = [record for record in records if record.where == where and panels_of(record)]
                if mine:
                    labels = mine[0].with_labels(sample.gt_instances.labels.cpu()).gt_labels
                    names = None if labels is None else [report.class_name(label) for label in labels.tolist()]
                    report.pictures[where, number] = as_jpeg_address(draw_assignments(image, mine, names))
    if images.interrupted:
        report.notes.append(f"Interrupted after {images.done} of {count} images: the numbers are of those, without "
                            "pictures.")  # fmt: skip
    silent = uncalled(model, report.assigners)
    second = [name for where, name in silent.items() if without and where.startswith("roi_head.")]
    left_out |= set(second)
    never = [name for name in silent.values() if name not in left_out]
    if never:
        report.notes.append(f"Not called: {', '.join(never)}; a head that changes its assigner while training has it "
                            "at another --epoch.")  # fmt: skip
    if left_out:
        report.notes.append(f"Left out, as they look at predictions: {', '.join(sorted(left_out))}; "
                            "with a CHECKPOINT they are there.")  # fmt: skip
    report.notes += repeats_left_out(cfg, args.phase)
    report.random_weights = args.checkpoint is None
    if report.random_weights and not without:
        report.notes.append("The weights are random: only what depends on anchors or points alone is right.")
    if not images.interrupted:
        check_calls(model, report.assigners, objects)
    return report, images.interrupted


def main(argv: Sequence[str] | None = None) -> int:
    """Report as the command line says."""
    with user_errors():
        args = parsers.report().parse_args(argv)
        check_max_images(args.max_images)
        cfg = load_config(args)
        check_checkpoint(args.checkpoint, "check the path, or leave it out")
        check_detector(cfg, args.phase)
        check_config(cfg, [args.phase], images=bool(args.pictures or args.checkpoint))
        report, interrupted = make_report(cfg, args)
        folder = Path(args.out_dir or cfg.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        data = report.as_json()
        (folder / "report.html").write_text(report.html(), encoding="utf-8")
        (folder / "report.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    for where, section in data["assigners"].items():
        print(f"\n{section['assigner']} ({where}), {section['objects']} objects in {data['images']} images")
        for finding in section["verdict"]:
            print(f"  {'!' if finding['wrong'] else '-'} {finding['text']}")
            if finding["advice"]:
                print(f"      try: {finding['advice']}")
    print(*(f"\n{note}" for note in report.notes), f"\n{folder / 'report.html'} and report.json", sep="")
    return INTERRUPTED if interrupted else 0
