#!/usr/bin/env python
"""Bring BCCD (blood cells, Pascal VOC format) into the COCO form that the ``*_bccd.py`` configs read.

    git clone https://github.com/Shenggan/BCCD_Dataset
    python tools/bccd_to_coco.py BCCD_Dataset/BCCD data/bccd

reads ``ImageSets/Main/{train,val,test}.txt``, ``Annotations/*.xml`` and ``JPEGImages/*.jpg``, and writes
``annotations/{train,val,test}.json`` and ``images/*.jpg``.  Boxes are taken as they stand: a box that has zero width or
height in the original has it here too, and mmdet leaves it out when it loads the file.
"""

import argparse
import json
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tqdm import tqdm

CLASSES = ("RBC", "WBC", "Platelets")
SPLITS = ("train", "val", "test")


def read_objects(path: Path) -> tuple[int, int, list[tuple[int, list[float]]]]:
    """Read one annotation file: width, height (pixels) and the objects as (class, 0-based; box xywh in pixels)."""
    root = ElementTree.parse(path).getroot()
    width, height = (int(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
    objects = []
    for item in root.iter("object"):
        x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{corner}", "")) for corner in ("xmin", "ymin", "xmax", "ymax"))
        name = item.findtext("name", "")
        if name not in CLASSES:
            raise ValueError(f"class {name!r}, known are {', '.join(CLASSES)}")
        objects.append((CLASSES.index(name), [x1, y1, x2 - x1, y2 - y1]))
    return width, height, objects


def convert_split(voc_dir: Path, out_dir: Path, split: str) -> tuple[int, int]:
    """Copy the pictures of one split and write its annotation file; returns the numbers of pictures and boxes."""
    images, annotations = [], []
    for stem in tqdm((voc_dir / "ImageSets" / "Main" / f"{split}.txt").read_text().split(), desc=split, unit="picture"):
        path = voc_dir / "Annotations" / f"{stem}.xml"
        try:
            width, height, objects = read_objects(path)
        except (ValueError, ElementTree.ParseError) as error:
            raise ValueError(f"{path} is not an annotation of BCCD ({error}): give a whole copy of BCCD") from error
        image = {"id": len(images) + 1, "file_name": f"{stem}.jpg", "width": width, "height": height}
        shutil.copyfile(voc_dir / "JPEGImages" / image["file_name"], out_dir / "images" / image["file_name"])
        images.append(image)
        for category, box in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (out_dir / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return len(images), len(annotations)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and convert all splits; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("voc_dir", type=Path, help="folder with Annotations, ImageSets and JPEGImages")
    parser.add_argument("out_dir", type=Path, help="folder to write to")
    args = parser.parse_args(argv)
    try:
        for folder in ("annotations", "images"):
            (args.out_dir / folder).mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            pictures, boxes = convert_split(args.voc_dir, args.out_dir, split)
            print(f"{split}: {pictures} pictures, {boxes} boxes")
    except OSError as error:
        print(
            f"bccd_to_coco: {error.filename}: {error.strerror}; give the folder BCCD of a clone of "
            "github.com/Shenggan/BCCD_Dataset and a folder that can be written to",
            file=sys.stderr,
        )
        return 2
    except ValueError as error:
        print(f"bccd_to_coco: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
