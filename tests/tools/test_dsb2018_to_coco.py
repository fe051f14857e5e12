"""The conversion of the Data Science Bowl's nuclei, on folders laid out as it has them, made here."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle

from real.data_sets import DATA_SETS
from scenes import needs
from toolbox import load_tool

dsb2018_to_coco = load_tool("dsb2018_to_coco")

SIZE = 256
# Nuclei of each picture: x, y, width, height of a rectangle.
NUCLEI = {
    "0a": [(10, 20, 6, 9), (200, 250, 56, 6)],
    "1b": [(0, 0, 1, 1)],
    "2c": [(100, 100, 13, 12), (120, 100, 13, 12), (140, 100, 1, 25)],
    "5f": [(7, 8, 9, 10)],
}


def write(root: Path, name: str, picture: np.ndarray, masks: list[np.ndarray]) -> None:
    for folder, files in (("images", {name: picture}), ("masks", {f"{k:03}": mask for k, mask in enumerate(masks)})):
        (root / name / folder).mkdir(parents=True)
        for stem, content in files.items():
            assert cv2.imwrite(str(root / name / folder / f"{stem}.png"), content)


def rectangle(x: int, y: int, width: int, height: int, size: int = SIZE) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[y : y + height, x : x + width] = 255
    return mask


@pytest.fixture
def stage(tmp_path) -> Path:
    """Grey pictures with an alpha channel, as the original has them; one in colour, one larger, one empty mask."""
    root = tmp_path / "stage1_train"
    for number, (name, boxes) in enumerate(NUCLEI.items()):
        grey = np.full((SIZE, SIZE, 4), 10 * number, np.uint8)
        write(root, name, grey, [rectangle(*box) for box in boxes])
    assert cv2.imwrite(str(root / "0a/masks/empty.png"), np.zeros((SIZE, SIZE), np.uint8))
    colour = np.zeros((SIZE, SIZE, 4), np.uint8)
    colour[5, 5] = (90, 20, 120, 255)
    write(root, "3d", colour, [rectangle(1, 1, 5, 5)])
    write(root, "4e", np.zeros((360, 360), np.uint8), [rectangle(1, 1, 5, 5, 360)])
    (root / "README.txt").write_text("no picture")
    return root


def test_boxes_masks_and_pictures_arrive(stage, tmp_path, capsys):
    out = tmp_path / "out"
    assert dsb2018_to_coco.main([str(stage), str(out)]) == 0
    told = (
        "train: 3 pictures, val: 1 pictures, 7 nuclei; left out: 2 pictures of another size or in colour, 1 empty masks"
    )
    assert told in capsys.readouterr().out
    for split, names in (("train", ["1b", "2c", "5f"]), ("val", ["0a"])):
        content = json.loads((out / f"annotations/{split}.json").read_text())
        assert content["categories"] == [{"id": 1, "name": "nucleus"}]
        assert [image["file_name"] for image in content["images"]] == [f"{name}.png" for name in names]
        assert {(image["width"], image["height"]) for image in content["images"]} == {(SIZE, SIZE)}
        ids = {image["file_name"][:2]: image["id"] for image in content["images"]}
        found = [(a["image_id"], tuple(a["bbox"]), a["area"], a["iscrowd"]) for a in content["annotations"]]
        assert found == [(ids[name], box, box[2] * box[3], 0) for name in names for box in NUCLEI[name]]
        assert len({annotation["id"] for annotation in content["annotations"]}) == len(found)
        boxes = [box for name in names for box in NUCLEI[name]]
        for annotation, box in zip(content["annotations"], boxes):
            assert (rle.decode(annotation["segmentation"]) * 255 == rectangle(*box)).all()
        for name in names:
            assert (out / f"images/{name}.png").read_bytes() == (stage / name / f"images/{name}.png").read_bytes()


def test_pictures_of_another_size(stage, tmp_path, capsys):
    assert dsb2018_to_coco.main([str(stage), str(tmp_path / "out"), "--size", "360", "360"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "has 1 grey pictures of 360x360 pixels to train on and 0 to validate, and 5 others" in error


@needs("nuclei")
def test_real_nuclei_come_back(tmp_path):
    """Taken apart into the original's files, and put together again."""
    phase = DATA_SETS["nuclei"].train
    images = [phase.image_ids[number] for number in phase.telling(3)]
    for image in images:
        file = phase.coco.imgs[image]["file_name"]
        masks = [phase.coco.annToMask(annotation) * 255 for annotation in phase.annotations(image)]
        write(tmp_path / "stage1_train", Path(file).stem, cv2.imread(str(phase.images / file), -1), masks)
    assert dsb2018_to_coco.main([str(tmp_path / "stage1_train"), str(tmp_path / "out")]) == 0
    content = [json.loads((tmp_path / f"out/annotations/{split}.json").read_text()) for split in ("train", "val")]
    found = {}
    for part in content:
        for image in part["images"]:
            mine = [one for one in part["annotations"] if one["image_id"] == image["id"]]
            found[image["file_name"]] = [(one["bbox"], one["area"], one["segmentation"]) for one in mine]
    assert found == {
        phase.coco.imgs[image]["file_name"]: [
            (one["bbox"], one["area"], one["segmentation"]) for one in phase.annotations(image)
        ]
        for image in images
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "2c/images/2c.png").write_bytes(b"\x89PNG"), "2c.png is no picture"),
        (lambda root: (root / "2c/images/2c.png").unlink(), "2c.png: No such file"),
        (lambda root: (root / "2c/masks/000.png").write_bytes(b""), "000.png is no picture"),
        (lambda root: cv2.imwrite(str(root / "2c/masks/000.png"), np.ones((8, 9))), "000.png has 9x8 pixels, its"),
        (lambda root: [mask.unlink() for mask in (root / "2c/masks").iterdir()], "2c has no masks/*.png"),
        (lambda root: root.rename(root.parent / "elsewhere"), "stage1_train: No such file"),
    ],
)
def test_a_damaged_copy_is_told_in_one_line(stage, tmp_path, capsys, damage, message):
    damage(stage)
    assert dsb2018_to_coco.main([str(stage), str(tmp_path / "out")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dsb2018_to_coco:")]
    assert len(lines) == 1
    assert message in lines[0]
