"""The command ``measure-constants``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tqdm import tqdm

from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import check_max_images
from visdet_assigners.errors import UserError
from visdet_assigners.functional.boxes import box_area
from visdet_assigners.functional.similarities import mean_gaps
from visdet_assigners.observe.detector import (
    assignments,
    blank_images,
    build_dataset,
    build_model,
    check_detector,
    numbered_items,
    repeats_left_out,
)
from visdet_assigners.observe.priors import are_points
from visdet_assigners.observe.without_network import ask_without_network, without_network
from visdet_assigners.training.config_check import check_config


@dataclass
class Constants:
    """What is measured.

    Attributes:
        images: how many were looked at.
        objects: those that have an area.
        sizes: sum of the roots of their areas, pixels.
        gaps: of each head by where its assigner is held, sums of the gaps across and down, and of pairs.
    """

    images: int = 0
    objects: int = 0
    sizes: float = 0.0
    gaps: dict[str, tuple[float, float, int]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What to write into a config, and of what it was measured."""
        seen = f"{self.objects} objects in {self.images} images"
        found = [f"iou_calculator=dict(type='visdet_assigners.NWDOverlaps', constant={self.sizes / self.objects:.2f})",
                 f"    the mean of sqrt(width * height) of {seen}, pixels as the detector sees them"]  # fmt: skip
        for where, (across, down, pairs) in self.gaps.items():
            m, n = across / pairs, down / pairs
            found += [f"iou_calculator=dict(type='visdet_assigners.SimDOverlaps', m={m:.2f}, n={n:.2f})",
                      f"    for {where}: the mean gaps of {seen} and all priors of their image"]  # fmt: skip
        return found


def measure(cfg: Config, max_images: int | None) -> Constants:
    """Go through the training set as a training does, without the network."""
    model, dataset = build_model(cfg, None), build_dataset(cfg, "train")
    blank_images(dataset)
    alone = ask_without_network(model, dataset)
    found = Constants(images=min(max_images or len(dataset), len(dataset)))
    with without_network(model) if alone else nullcontext():
        items = numbered_items(dataset, range(found.images))
        for _, item in tqdm(items, "measuring", found.images, unit="image"):
            _, sample, records = assignments(model, item)
            boxes = torch.as_tensor(getattr(sample.gt_instances.bboxes, "tensor", sample.gt_instances.bboxes))
            boxes = boxes[box_area(boxes) > 0].cpu()
            found.objects += len(boxes)
            found.sizes += box_area(boxes).sqrt().sum(dtype=torch.float64).item()
            for record in records:
                priors = record.priors
                if record.reads_predictions or priors is None or are_points(priors) or not len(boxes):
                    continue
                across, down, pairs = found.gaps.get(record.where, (0.0, 0.0, 0))
                gaps = mean_gaps(priors.cpu(), boxes)
                across, down = across + gaps[0].item(), down + gaps[1].item()
                found.gaps[record.where] = across, down, pairs + len(boxes) * len(priors)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure as the command line says."""
    with user_errors():
        args = parsers.measure_constants().parse_args(argv)
        check_max_images(args.max_images)
        cfg = load_config(args)
        check_detector(cfg, "train")
        check_config(cfg, ["train"], images=False)
        init_default_scope(cfg.get("default_scope", "mmdet"))
        found = measure(cfg, args.max_images)
        if not found.objects:
            raise UserError(f"{args.config}: the training set has no object with an area in {found.images} images")
        print("\n".join([*found.lines(), *repeats_left_out(cfg, "train")]))
