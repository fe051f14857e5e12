"""The small data sets are read by mmdet's own data sets, with the boxes and masks that they were made of."""

import json

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from visdet_assigners.testing.layouts import FRAMES, load_pictures, write_dataset

LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}, {"type": "PackDetInputs"}]
DATA = {
    "coco": {"type": "CocoDataset", "ann_file": "a/train.json", "data_prefix": {"img": "train/"}},
    "masks": {
        "type": "CocoDataset", "ann_file": "a.json", "data_prefix": {"img": "train/", "seg": "maps/"},
        "pipeline": [LOAD[0], {"type": "LoadAnnotations", "with_mask": True, "with_seg": True}, LOAD[2]],
    },
    "cityscapes": {"type": "CityscapesDataset", "ann_file": "a.json", "data_prefix": {"img": "leftImg8bit/"}},
    "objects365 v2": {"type": "Objects365V2Dataset", "ann_file": "a.json", "data_prefix": {"img": "train/"}},
    "v3det": {"type": "V3DetDataset", "ann_file": "a.json", "data_prefix": {"img": ""}},
    "voc": {"type": "VOCDataset", "ann_file": "VOC2007/train.txt", "data_prefix": {"sub_data_root": "VOC2007/"}},
    "wider face": {"type": "WIDERFaceDataset", "ann_file": "train.txt", "data_prefix": {"img": "WIDER_train"}},
    "crowdhuman": {"type": "CrowdHumanDataset", "ann_file": "annotation_train.odgt", "data_prefix": {"img": "Images/"}},
    "open images": {
        "type": "OpenImagesDataset", "ann_file": "boxes.csv", "data_prefix": {"img": "train/"}, "label_file": "l.csv",
        "hierarchy_file": "h.json", "meta_file": "m.pkl",
    },
    "open images challenge": {
        "type": "OpenImagesChallengeDataset", "ann_file": "b.txt", "data_prefix": {"img": "train/"},
        "label_file": "l.csv", "hierarchy_file": "h.np", "meta_file": "m.pkl",
    },
    "odvg, objects": {
        "type": "ODVGDataset", "ann_file": "o.jsonl", "label_map_file": "l.json", "data_prefix": {"img": "train/"},
        "return_classes": True,
    },
    "odvg, phrases": {
        "type": "ODVGDataset", "ann_file": "o.jsonl", "data_prefix": {"img": "train/"}, "return_classes": True,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three pictures of noise: with a crowd and two boxes, with three boxes, and one of nothing, which isn't chosen."""
    folder = tmp_path_factory.mktemp("source")
    boxes = [[[4, 6, 40, 30], [50, 10, 24, 60], [0, 60, 30, 20]], [[8, 8, 16, 16], [30, 20, 64, 48]], []]
    data = {"categories": [{"id": 3 * label + 1, "name": f"c{label}"} for label in range(30)]}
    data["images"] = [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 90} for n in range(len(boxes))]
    data["annotations"] = [
        {"id": 10 * image + number, "image_id": image, "category_id": 3 * (7 * number + image) + 1,
         "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(number == 2),
         "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
        for image, own in enumerate(boxes) for number, (x, y, w, h) in enumerate(own)
    ]  # fmt: skip
    (folder / "a.json").write_text(json.dumps(data))
    for number in range(len(boxes)):
        pixels = np.random.default_rng(number).integers(0, 256, (90, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    found = load_pictures(folder / "a.json", folder, 5)
    assert [picture.path.name for picture in found] == ["0.jpg", "1.jpg"]
    return found


def read(config: dict, pictures, folder):
    """Write a data set and let mmdet read it; its root is relative, as in mmdet's configs."""
    config = {"data_root": "data/set/", "pipeline": LOAD, **config}
    assert write_dataset(Config(config), pictures, folder) == [config["type"]]
    with DefaultScope.overwrite_default_scope("mmdet"):
        return DATASETS.build({**config, "data_root": f"{folder}/data/set/"})


@pytest.mark.parametrize("name", DATA)
def test_mmdet_reads_what_was_written(name, pictures, tmp_path):
    dataset = read(DATA[name], pictures, tmp_path)
    assert len(dataset) == len(pictures)
    for picture, item in zip(pictures, dataset):
        sample = item["data_samples"]
        regions = sample.ignored_instances.bboxes.tensor.tolist()
        has_regions = not name.startswith(("open", "odvg"))
        assert len(regions) == has_regions * sum(thing.crowd for thing in picture.things)
        boxes = sorted([*sample.gt_instances.bboxes.tensor.tolist(), *regions])
        expected = sorted(list(thing.box) for thing in picture.things if not (thing.crowd and "odvg" in name))
        assert boxes == [pytest.approx(box, abs=1e-3) for box in expected]
        assert tuple(item["inputs"].shape[1:]) == (picture.height, picture.width)
        if name == "masks":
            masks = sample.gt_instances.masks.masks
            plain = [thing for thing in picture.things if not thing.crowd]
            assert np.array_equal(masks, [thing.mask(picture.height, picture.width) for thing in plain])
            labels = sample.gt_sem_seg.sem_seg[0].numpy()
            assert set(np.unique(labels)) == {255, *(thing.label for thing in picture.things)}


def test_a_video_shows_each_picture_several_times(pictures, tmp_path):
    dataset = read({"type": "MOTChallengeDataset", "ann_file": "a.json", "data_prefix": {"img_path": "train"},
                    "pipeline": []}, pictures, tmp_path)  # fmt: skip
    assert len(dataset) == len(pictures)
    for video, picture in zip(map(dataset.get_data_info, range(len(dataset))), pictures):
        frames = video["images"]
        assert len(frames) == FRAMES
        expected = [list(thing.box) for thing in picture.things]
        assert all([one["bbox"] for one in frame["instances"]] == expected for frame in frames)
        tracks = [[one["instance_id"] for one in frame["instances"]] for frame in frames]
        assert all(own == tracks[0] for own in tracks)
        assert len(set(tracks[0])) == len(expected)


def test_lvis_has_what_its_package_reads(pictures, tmp_path):
    config = {"type": "LVISV1Dataset", "data_root": "lvis/", "ann_file": "a.json", "data_prefix": {"img": ""}}
    write_dataset(Config(config), pictures, tmp_path)
    data = json.loads((tmp_path / "lvis" / "a.json").read_text())
    assert len(data["categories"]) == 1203
    for image in data["images"]:
        path = tmp_path / "lvis" / image["coco_url"].replace("http://images.cocodataset.org/", "")
        assert path.is_file()  # the way in which mmdet makes a path of the address


def test_a_panoptic_map_has_a_number_for_each_segment(pictures, tmp_path):
    config = {"type": "CocoPanopticDataset", "data_root": "", "ann_file": "p.json",
              "data_prefix": {"img": "train/", "seg": "maps/"}}  # fmt: skip
    write_dataset(Config(config), pictures, tmp_path)
    data = json.loads((tmp_path / "p.json").read_text())
    stuff = {category["id"] for category in data["categories"] if not category["isthing"]}
    assert stuff
    for annotation in data["annotations"]:
        rgb = np.asarray(Image.open(tmp_path / "maps" / annotation["file_name"])).astype(int)
        numbers = set(np.unique(rgb @ [1, 256, 256**2]))
        assert numbers == {segment["id"] for segment in annotation["segments_info"]}
        assert {segment["category_id"] in stuff for segment in annotation["segments_info"]} == {True, False}


def test_people_to_recognise_again_have_a_number_each(pictures, tmp_path):
    dataset = read({"type": "ReIDDataset", "ann_file": "t.txt", "data_prefix": {"img_path": "imgs"}, "pipeline": []},
                   pictures, tmp_path)  # fmt: skip
    assert len(dataset) == sum(len(picture.things) for picture in pictures) == len(dataset.index_dic)
    with Image.open(dataset.get_data_info(0)["img_path"]) as image:
        assert image.size == (64, 128)


def test_wrapped_data_sets_are_all_written(pictures, tmp_path):
    inner = [{**DATA["voc"], "data_root": "a/"}, {**DATA["coco"], "data_root": "b/"}]
    config = {"type": "RepeatDataset", "dataset": {"type": "ConcatDataset", "datasets": inner}}
    assert write_dataset(Config(config), pictures, tmp_path) == ["VOCDataset", "CocoDataset"]
    assert (tmp_path / "a" / "VOC2007" / "Annotations" / "0.xml").is_file()
    assert (tmp_path / "b" / "a" / "train.json").is_file()
