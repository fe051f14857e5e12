"""Proposals saved as JSON are read as mmdet reads its pickles, by the pipeline that the check of the data leaves."""

import json

import mmengine
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from visdet_assigners.errors import UserError
from visdet_assigners.training.config_check import check_config

BOXES = [[4.0, 6.0, 44.0, 36.0], [50.5, 10.0, 74.0, 70.0]]
PROPOSALS = {"train/0.jpg": {"bboxes": BOXES, "scores": [0.9, 0.5]}, "train/1.jpg": {"bboxes": [], "scores": []}}
PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadProposals", "num_max_proposals": 5},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "ProposalBroadcaster", "transforms": [{"type": "Resize", "scale": (200, 180), "keep_ratio": True}]},
    {"type": "PackDetInputs"},
]


@pytest.fixture
def folder(tmp_path):
    """Two images of 100x90, each with a box."""
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 90} for number in range(2)]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [4, 6, 40, 30], "area": 1200, "iscrowd": 0} for n in range(2)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "train").mkdir()
    for number in range(2):
        Image.new("RGB", (100, 90)).save(tmp_path / "train" / f"{number}.jpg")
    return tmp_path


def read(folder, file: str, guarded: bool = True):
    """Read all images with their proposals, after the check of the data or as mmdet would."""
    dataset = {
        "type": "CocoDataset", "data_root": str(folder), "ann_file": "a.json", "data_prefix": {"img": "train/"},
        "proposal_file": file, "pipeline": PIPELINE, "metainfo": {"classes": ("person",)},
    }  # fmt: skip
    cfg = Config({"train_dataloader": {"dataset": dataset}, "train_cfg": {"by_epoch": True}})
    if guarded:
        check_config(cfg, ["train"])
    with DefaultScope.overwrite_default_scope("mmdet"):
        return [item["data_samples"].proposals for item in DATASETS.build(cfg.train_dataloader.dataset)]


def test_json_and_mmdets_pickle_give_the_same(folder):
    mmengine.dump(PROPOSALS, folder / "p.json")
    arrays = {
        name: {"bboxes": np.array(one["bboxes"]).reshape(-1, 4), "scores": np.array(one["scores"])}
        for name, one in PROPOSALS.items()
    }
    mmengine.dump(arrays, folder / "p.pkl")
    for mine, theirs in zip(read(folder, "p.json"), read(folder, "p.pkl", guarded=False)):
        assert mine.bboxes.tolist() == theirs.bboxes.tolist()
        assert mine.scores.tolist() == theirs.scores.tolist()
    assert read(folder, "p.json")[0].bboxes.tolist() == [[2 * value for value in box] for box in BOXES]
    with pytest.raises(UserError, match="could run code when it is read; save its content as JSON"):
        read(folder, "p.pkl")


@pytest.mark.parametrize("boxes", [[[1, 2, 3]], [["a", 1, 2, 3]], [[1, 2, 3, 4], [5, 6]]])
def test_lists_of_another_shape_are_told_with_the_image(folder, boxes):
    mmengine.dump({**PROPOSALS, "train/0.jpg": {"bboxes": boxes}}, folder / "p.json")
    with pytest.raises(UserError, match=r"the proposals of .*train/0\.jpg are no lists of four and of one number"):
        read(folder, "p.json")
