"""The command ``conflicts``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mmengine.registry import init_default_scope
from tqdm import tqdm

from visdet_assigners.codetr import Conflict, assignment_conflict
from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import check_max_images
from visdet_assigners.errors import UserError
from visdet_assigners.observe.detector import (
    assignments,
    blank_images,
    build_dataset,
    build_model,
    check_detector,
    numbered_items,
    repeats_left_out,
)
from visdet_assigners.training.config_check import check_config


def count_conflicts(cfg, max_images: int) -> dict[tuple[str, str], Conflict]:
    """Go through the training set; the conflicts of each pair of heads, by where their assigners are held."""
    model = build_model(cfg, None)
    dataset = build_dataset(cfg, "train")
    blank_images(dataset)
    found: dict[tuple[str, str], Conflict] = {}
    count = min(max_images, len(dataset))
    for _, item in tqdm(numbered_items(dataset, range(count)), "assigning", count, unit="image"):
        decided = {one.where: one.gt_index + 1 for one in assignments(model, item)[2] if not one.reads_predictions}
        for pair in itertools.combinations(decided, 2):
            first, second = (decided[where] for where in pair)
            places = min(len(first), len(second))
            if places and max(len(first), len(second)) % places == 0:
                found[pair] = found.get(pair, Conflict()) + assignment_conflict(first, second, places)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Count as the command line says."""
    with user_errors():
        args = parsers.conflicts().parse_args(argv)
        check_max_images(args.max_images)
        cfg = load_config(args)
        check_detector(cfg, "train")
        check_config(cfg, ["train"], images=False)
        init_default_scope(cfg.get("default_scope", "mmdet"))
        found = count_conflicts(cfg, args.max_images)
        if not found:
            raise UserError(f"{args.config} has no two heads on the same places whose assigners look at priors alone")
        print("| heads | places | background in one | other object | share |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for pair, one in found.items():
            print(f"| {' and '.join(pair)} | {one.places} | {one.one_sided} | {one.other_object} | {one.share:.1%} |")
        for note in repeats_left_out(cfg, "train"):
            print(note)
