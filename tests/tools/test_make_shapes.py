"""The drawn data set: reproducible, in COCO format, and with the hard cases that it promises."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine.registry import DefaultScope
from pycocotools.coco import COCO

from toolbox import load_tool

make_shapes = load_tool("make_shapes")
SMALL = ["--train", "30", "--val", "10", "--size", "160", "120"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    assert make_shapes.main([str(folder), *SMALL]) == 0
    return folder


@pytest.fixture(scope="module")
def coco(shapes) -> COCO:
    return COCO(str(shapes / "annotations" / "train.json"))


def test_same_seed_same_bytes(shapes, tmp_path):
    make_shapes.main([str(tmp_path), *SMALL])
    assert contents(tmp_path) == contents(shapes)


def test_another_seed_or_split_draws_other_pictures(shapes, tmp_path):
    make_shapes.main([str(tmp_path), *SMALL, "--seed", "1"])
    first, other = contents(shapes), contents(tmp_path)
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)
    assert first["images/train/000000.jpg"] != first["images/val/000000.jpg"]


def test_a_longer_split_starts_with_the_shorter_one(shapes, tmp_path):
    make_shapes.main([str(tmp_path), "--train", "12", "--val", "1", "--size", "160", "120"])
    first, shorter = contents(shapes), contents(tmp_path)
    pictures = [name for name in shorter if name.endswith(".jpg")]
    assert len(pictures) == 13
    assert all(first[name] == shorter[name] for name in pictures)


def test_boxes_are_tight_around_the_visible_masks(coco):
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert mask.shape == (120, 160)
        rows, columns = np.nonzero(mask)
        x, y, w, h = annotation["bbox"]
        assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert annotation["area"] == mask.sum() >= make_shapes.MIN_PIXELS


def test_no_pixel_belongs_to_two_objects(coco):
    for image_id in coco.imgs:
        masks = [coco.annToMask(a) for a in coco.imgToAnns[image_id]]
        assert not masks or np.sum(masks, axis=0).max() == 1


def test_hard_cases_are_there(coco):
    annotations = list(coco.anns.values())
    boxes = np.array([a["bbox"] for a in annotations if not a["iscrowd"]], float)
    assert {a["category_id"] for a in annotations} == {1, 2, 3, 4}
    crowds = [a for a in annotations if a["iscrowd"]]
    assert len(crowds) == 4  # every sixth of 30; the last is one of the empty ones
    assert all(isinstance(a["segmentation"]["counts"], list) for a in crowds)
    assert sum(not coco.imgToAnns[i] for i in coco.imgs) == 3  # every tenth of 30
    assert (boxes[:, 2:].min(1) < 10).any()
    assert (boxes[:, 2:].max(1) > 40).any()
    overlapping = 0
    for image_id in coco.imgs:
        b = np.array([a["bbox"] for a in coco.imgToAnns[image_id]], float).reshape(-1, 4)
        low, high = b[:, :2], b[:, :2] + b[:, 2:]
        shared = (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).clip(0).prod(-1)
        overlapping += int(np.triu(shared > 0, 1).sum())
    assert overlapping > 10


def test_smallest_shape(tmp_path):
    make_shapes.main([str(tmp_path), *SMALL, "--smallest", "40"])
    annotations = COCO(str(tmp_path / "annotations" / "train.json")).anns.values()
    inside = [b for a in annotations if not a["iscrowd"] for b in [np.array(a["bbox"])]
              if b[:2].min() > 0 and b[0] + b[2] < 160 and b[1] + b[3] < 120]  # fmt: skip
    assert len(inside) > 20
    assert (
        min(max(box[2:]) for box in inside) >= 20
    )  # a triangle is three quarters of its circle high, half may be hidden


def test_mmdet_reads_it(shapes, coco):
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}]
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = CocoDataset(
            ann_file="annotations/train.json",
            data_root=str(shapes),
            data_prefix={"img": "images/train/"},
            metainfo={"classes": make_shapes.CLASSES},
            pipeline=pipeline,
        )
    assert len(dataset) == 30
    sample = dataset[5]  # the sixth picture has a crowd
    assert sample["img"].shape == (120, 160, 3)
    assert sample["gt_ignore_flags"].tolist().count(True) == 1
    areas = [a["area"] for a in coco.imgToAnns[6]]
    assert sample["gt_masks"].masks.sum((1, 2)).tolist() == areas
    assert len(dataset[9]["gt_bboxes"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "0"], "at least 1"),
        (["--size", "16", "240"], "too small"),
        (["--seed", "-1"], "negative"),
        (["--size", "160", "120", "--smallest", "60"], "--smallest 60: give 4 to 52"),
    ],
)
def test_wrong_values_are_told_in_one_line(arguments, message, tmp_path, capsys):
    assert make_shapes.main([str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_file_in_the_way_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "images").write_text("not a folder")
    assert make_shapes.main([str(tmp_path), *SMALL]) == 2
    assert "cannot write" in capsys.readouterr().err.splitlines()[-1]


def test_annotations_are_plain_coco(shapes):
    content = json.loads((shapes / "annotations" / "val.json").read_text())
    assert [c["name"] for c in content["categories"]] == list(make_shapes.CLASSES)
    assert [i["id"] for i in content["images"]] == list(range(1, 11))
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert all((shapes / "images" / "val" / i["file_name"]).is_file() for i in content["images"])
