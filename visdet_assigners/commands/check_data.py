"""The command ``check-data``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.errors import UserError
from visdet_assigners.training.annotations import AnnotationReport, Defect
from visdet_assigners.training.config_check import look
from visdet_assigners.training.datasets import DataSet
from visdet_assigners.training.images import file_fault


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


def tell(one: DataSet, report: AnnotationReport, with_pictures: bool) -> bool:
    """Print what was found in the annotations of a data set, and in its pictures; returns whether it can be used."""
    fatal = list(report.fatal)
    if with_pictures and not any("image" in defect.what for defect in fatal):
        folder = Path(one.config.get("data_root") or "") / (one.config.get("data_prefix") or {}).get("img", "")
        fatal += check_pictures(report.path, folder)
    print(f"{one.phase}: {report.path}: {report.images} images, {report.objects} objects, "
          f"{report.num_dropped} left out")  # fmt: skip
    for mark, defects in (("!", fatal), ("-", [*report.dropped, *report.told])):
        for defect in defects:
            print(f"  {mark} {defect}")
    return not fatal


def main(argv: Sequence[str] | None = None) -> int:
    """Check as the command line says; 0 where everything can be used."""
    with user_errors():
        args = parsers.check_data().parse_args(argv)
        cfg = load_config(args)
        seen = look(cfg, ["train", "val"])
        usable = [tell(one, report, args.images) for one, report in seen.reports]
        fatal = [problem for problem in seen.problems if problem.fatal]
        if not usable and not fatal:
            raise UserError(f"{args.config} reads no CocoDataset from local files; this tool knows no other")
        for problem in sorted(seen.problems, key=lambda one: not one.fatal):
            print(f"{'!' if problem.fatal else '-'} {problem}")
    return 0 if all(usable) and not fatal else 1
