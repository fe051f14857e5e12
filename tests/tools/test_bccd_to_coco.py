"""The conversion of BCCD, on a Pascal VOC tree made here."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from toolbox import load_tool

bccd_to_coco = load_tool("bccd_to_coco")

OBJECTS = {
    "a": [("WBC", 68, 315, 286, 480), ("RBC", 1, 2, 41, 32)],
    "b": [("Platelets", 10, 20, 10, 30)],  # zero width, as the original has
    "c": [],
    "d": [("RBC", 5, 5, 25, 45)],
}
SPLITS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


@pytest.fixture
def voc(tmp_path) -> Path:
    root = tmp_path / "BCCD"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for stem, objects in OBJECTS.items():
        items = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for name, x1, y1, x2, y2 in objects
        )
        size = "<size><width>640</width><height>480</height><depth>3</depth></size>"
        (root / f"Annotations/{stem}.xml").write_text(f"<annotation>{size}{items}</annotation>")
        cv2.imwrite(str(root / f"JPEGImages/{stem}.jpg"), np.full((480, 640, 3), ord(stem), np.uint8))
    for split, stems in SPLITS.items():
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(stems) + "\n")
    return root


def test_boxes_classes_and_pictures_arrive(voc, tmp_path):
    out = tmp_path / "out"
    assert bccd_to_coco.main([str(voc), str(out)]) == 0
    for split, stems in SPLITS.items():
        content = json.loads((out / f"annotations/{split}.json").read_text())
        assert [c["name"] for c in content["categories"]] == ["RBC", "WBC", "Platelets"]
        assert [(i["file_name"], i["width"], i["height"]) for i in content["images"]] == [
            (f"{s}.jpg", 640, 480) for s in stems
        ]
        for stem in stems:
            assert (out / f"images/{stem}.jpg").read_bytes() == (voc / f"JPEGImages/{stem}.jpg").read_bytes()
        ids = {i["file_name"]: i["id"] for i in content["images"]}
        expected = [
            (ids[f"{s}.jpg"], bccd_to_coco.CLASSES.index(name) + 1, [x1, y1, x2 - x1, y2 - y1], (x2 - x1) * (y2 - y1))
            for s in stems
            for name, x1, y1, x2, y2 in OBJECTS[s]
        ]
        found = [(a["image_id"], a["category_id"], a["bbox"], a["area"]) for a in content["annotations"]]
        assert found == expected


def test_mmdet_reads_it_and_leaves_out_the_empty_box(voc, tmp_path):
    CocoDataset = pytest.importorskip("mmdet.datasets").CocoDataset  # noqa: N806 (a class)
    bccd_to_coco.main([str(voc), str(tmp_path / "out")])
    dataset = CocoDataset(
        ann_file="annotations/train.json",
        data_root=str(tmp_path / "out"),
        data_prefix={"img": "images/"},
        metainfo={"classes": bccd_to_coco.CLASSES},
        pipeline=[],
    )
    assert [len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset))] == [2, 0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "ImageSets/Main/val.txt").unlink(), "val.txt: No such file"),
        (lambda root: (root / "JPEGImages/d.jpg").unlink(), "d.jpg: No such file"),
        (lambda root: (root / "Annotations/a.xml").write_text("no xml"), "a.xml is not an annotation"),
        (
            lambda root: (root / "Annotations/a.xml").write_text(
                (root / "Annotations/a.xml").read_text().replace("WBC", "cat")
            ),
            "a.xml is not an annotation",
        ),
    ],
)
def test_a_damaged_copy_is_told_in_one_line(voc, tmp_path, capsys, damage, message):
    damage(voc)
    assert bccd_to_coco.main([str(voc), str(tmp_path / "out")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bccd_to_coco:")]
    assert len(lines) == 1
    assert message in lines[0]
