"""Every defect of a COCO file is named by file, annotation and image; what mmdet drops is what we say it drops."""

import copy
import json
import math

import pytest

from visdet_assigners.training.annotations import AnnotationError, check_annotations

SOUND = {
    "images": [{"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30} for number in (1, 2)],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [-5, -5, 10, 10], "area": 100, "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [35, 25, 10, 10], "area": 100, "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}
# What is changed (place, key, value), and what is said; annotation 1 is of image 1.jpg.
FATAL = {
    "no bbox": (("annotations", 0, "bbox", None), "annotations without a key: annotation 1 of image 1.jpg (bbox)"),
    "no image_id": (("annotations", 0, "image_id", None), "annotations without a key: annotation 1 of no image"),
    "no area": (("annotations", 2, "area", None), "annotation 3 of image 2.jpg (area)"),
    "three numbers": (("annotations", 0, "bbox", [1, 2, 3]), "not four finite numbers"),
    "text": (("annotations", 0, "bbox", "1 2 3 4"), "not four finite numbers"),
    "too large": (("annotations", 0, "bbox", [1, 2, 3, 1e999]), "not four finite numbers"),
    "same annotation id": (("annotations", 1, "id", 1), "annotations with the same id: 1"),
    "same image id": (("images", 1, "id", 1), "images with the same id: 1"),
    "no width": (("images", 0, "width", None), "images without a key: image 1.jpg (width)"),
    "absolute": (("images", 0, "file_name", "/etc/passwd"), "lead out of the image folder: image /etc/passwd"),
    "upwards": (("images", 0, "file_name", "a/../../b.jpg"), "lead out of the image folder"),
    "upwards on Windows": (("images", 0, "file_name", "..\\b.jpg"), "lead out of the image folder"),
    "drive": (("images", 0, "file_name", "C:\\b.jpg"), "lead out of the image folder"),
}
NO_AREA = "boxes with a side below one pixel, or without area"
DROPPED = {
    "no width": (("annotations", 0, "bbox", [1, 2, 0, 10]), NO_AREA),
    "negative height": (
        ("annotations", 0, "bbox", [1, 2, 5, -3]),
        "boxes with a side below one pixel, or without area",
    ),
    "half a pixel": (("annotations", 0, "bbox", [1, 2, 0.5, 10]), NO_AREA),
    "no area": (("annotations", 0, "area", 0), NO_AREA),
    "right of it": (("annotations", 0, "bbox", [40, 2, 5, 5]), "boxes outside their image"),
    "above it": (("annotations", 0, "bbox", [1, -9, 5, 9]), "boxes outside their image"),
    "category": (("annotations", 0, "category_id", 7), "annotations of unknown categories"),
    "image": (("annotations", 0, "image_id", 9), "annotations of images that are not there"),
}


def changed(place):
    data = copy.deepcopy(SOUND)
    name, index, key, value = place
    if value is None:
        del data[name][index][key]
    else:
        data[name][index][key] = value
    return data


def write(folder, data):
    path = folder / "train.json"
    if isinstance(data, dict):
        data = json.dumps(data).replace("Infinity", "1e999")  # a large number of JSON, which Python reads as infinite
    path.write_text(data)
    return path


def by_mmdet(path):
    """Boxes that mmdet's own data set keeps."""
    from mmdet.datasets import CocoDataset

    dataset = CocoDataset(
        ann_file=str(path), data_prefix=dict(img=""), metainfo=dict(classes=("cat", "dog")), serialize_data=False
    )
    return sorted(tuple(one["bbox"]) for item in dataset for one in item["instances"])


def test_a_sound_file(tmp_path):
    report = check_annotations(write(tmp_path, SOUND), classes=("cat", "dog"))
    assert (report.images, report.objects, report.fatal, report.dropped) == (2, 3, [], [])
    assert check_annotations(write(tmp_path, SOUND), classes=("cat",)).objects == 2  # a choice is no defect


@pytest.mark.parametrize("name", FATAL)
def test_what_stops_a_training(name, tmp_path):
    place, message = FATAL[name]
    (defect,) = check_annotations(write(tmp_path, changed(place))).fatal[:1]
    assert message in str(defect)


@pytest.mark.parametrize("name", DROPPED)
def test_what_mmdet_leaves_out(name, tmp_path):
    place, message = DROPPED[name]
    path = write(tmp_path, changed(place))
    report = check_annotations(path)
    assert not report.fatal
    (defect,) = report.dropped
    assert defect.what == message
    assert defect.places[0].startswith("annotation 1 of ")
    assert report.num_dropped == 1
    assert report.objects == len(by_mmdet(path)) == 2


def test_mmdet_keeps_what_we_count(tmp_path):
    assert len(by_mmdet(write(tmp_path, SOUND))) == 3


def test_many_of_a_kind(tmp_path):
    data = copy.deepcopy(SOUND)
    data["annotations"] += [dict(data["annotations"][0], id=number, bbox=[100, 100, 5, 5]) for number in range(10, 20)]
    (defect,) = check_annotations(write(tmp_path, data)).dropped
    assert "annotation 10 of image 1.jpg" in str(defect)
    assert str(defect).endswith("and 7 more")


def test_pictures_that_are_not_there(tmp_path):
    (tmp_path / "1.jpg").touch()
    (defect,) = check_annotations(write(tmp_path, SOUND), tmp_path).fatal
    assert defect.places == ["image 2.jpg"]
    (tmp_path / "2.jpg").touch()
    assert not check_annotations(write(tmp_path, SOUND), tmp_path).fatal


def test_classes_that_the_file_does_not_have(tmp_path):
    (defect,) = check_annotations(write(tmp_path, SOUND), classes=("cat", "Dog")).fatal
    assert str(defect) == (
        "classes that no category of the file bears (it has cat, dog): Dog; "
        'write metainfo=dict(classes=("cat", "dog")), or mend the file'
    )


@pytest.mark.parametrize("empty", ["images", "annotations"])
def test_nothing_to_learn_from(empty, tmp_path):
    report = check_annotations(write(tmp_path, {**SOUND, empty: []}))
    assert any(defect.what == "nothing to learn from" for defect in report.fatal)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(SOUND)[:-20], "is no whole JSON file"),
        ("", "is no whole JSON file"),
        (json.dumps({**SOUND, "images": [{"id": math.nan}]}), "holds NaN"),
        (json.dumps({**SOUND, "images": [{"id": -math.inf}]}), "holds -Infinity"),
        ("[1, 2]", "has no list of images"),
        ('{"images": [], "annotations": {}}', "has no list of annotations"),
        ('{"images": [], "annotations": [1], "categories": []}', "has no list of annotations"),
    ],
)
def test_files_that_are_no_coco(text, message, tmp_path):
    with pytest.raises(AnnotationError, match=message) as error:
        check_annotations(write(tmp_path, text))
    assert "train.json" in str(error.value)


def test_files_that_can_not_be_read(tmp_path):
    with pytest.raises(AnnotationError, match="can't be read"):
        check_annotations(tmp_path / "missing.json")
    (tmp_path / "train.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match="can't be read"):
        check_annotations(tmp_path / "train.json")
