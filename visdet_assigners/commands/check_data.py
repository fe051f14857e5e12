"""Check the annotations that a config trains and validates on, and on demand its pictures, before a training does.

Names what would stop a training, or make it wrong (exit status 1), and what mmdet leaves out without a word.

    python tools/check_data.py configs/atss/atss_r50_fpn_1x_coco.py --images
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import ArgumentParser, add_config_arguments
from visdet_assigners.errors import UserError
from visdet_assigners.training.annotations import Defect
from visdet_assigners.training.datasets import check_data, check_dataset_annotations, coco_datasets
from visdet_assigners.training.images import file_fault


def parse_args(argv: Sequence[str] | None):
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.split("\n\n")[0])
    add_config_arguments(parser)
    parser.add_argument("--images", action="store_true", help="also read each picture and compare its size")
    return parser.parse_args(argv)


def check_pictures(path: str, folder: Path) -> list[Defect]:
    """Read each picture of a COCO file: which don't decode or are cut off, which have another size than it says."""
    damaged, other = Defect("pictures that can't be read"), Defect("pictures of another size than the file says")
    for image in tqdm(json.loads(Path(path).read_text(encoding="utf-8"))["images"], desc="reading", unit="image"):
        file = folder / str(image["file_name"])
        if not file.is_file():
            continue
        fault = file_fault(file.read_bytes())
        picture = cv2.imread(str(file)) if fault is None else None
        if picture is None:
            damaged.places.append(f"{image['file_name']} ({fault or 'not decoded'})")
        elif picture.shape[:2] != (image["height"], image["width"]):
            found = f"{picture.shape[1]}x{picture.shape[0]}, not {image['width']}x{image['height']}"
            other.places.append(f"{image['file_name']} ({found})")
    return [defect for defect in (damaged, other) if defect.places]


def check(phase: str, dataset: Mapping[str, Any], with_pictures: bool) -> bool:
    """Check one data set and print what was found; returns whether it can be used."""
    report = check_dataset_annotations(dataset)
    fatal = list(report.fatal)
    if with_pictures and not any("image" in defect.what for defect in fatal):
        folder = Path(dataset.get("data_root") or "") / (dataset.get("data_prefix") or {}).get("img", "")
        fatal += check_pictures(report.path, folder)
    print(f"{phase}: {report.path}: {report.images} images, {report.objects} objects, {report.num_dropped} left out")
    for mark, defects in (("!", fatal), ("-", report.dropped)):
        for defect in defects:
            print(f"  {mark} {defect}")
    return not fatal


def main(argv: Sequence[str] | None = None) -> int:
    """Check as the command line says; 0 where everything can be used."""
    with user_errors():
        args = parse_args(argv)
        cfg = load_config(args)
        check_data(cfg, ["train", "val"])
        found = list(coco_datasets(cfg, ["train", "val"]))
        if not found:
            raise UserError(f"{args.config} reads no CocoDataset from local files; this tool knows no other")
        usable = [check(phase, dataset, args.images) for phase, dataset in found]
    return 0 if all(usable) else 1
