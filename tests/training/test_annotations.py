"""Every defect of a COCO file is named by file, annotation and image; what mmdet drops is what we say it drops."""

import copy
import json
import math

import pytest

from scenes import DATA
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
    "same category id": (("categories", 1, "id", 1), "categories with the same id: 1"),
    "area as a text": (
        ("annotations", 0, "area", "100"),
        "areas that are no finite number: annotation 1 of image 1.jpg",
    ),
    "crowd as a text": (("annotations", 0, "iscrowd", "0"), "iscrowd that is neither 0 nor 1, which mmdet takes for a"),
    "file name as a number": (("images", 0, "file_name", 1), "file names that are no text: image 1 (1)"),
    "width as a text": (("images", 0, "width", "40"), "images without a size: image 1.jpg (40x30)"),
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


# What files hold besides: each is read by mmdet as it stands.
SOUND_TOO = {
    "decimal sizes of images": ("images", dict(width=40.0, height=30.5)),
    "decimal numbers": ("annotations", dict(bbox=[1.25, 2.5, 10.125, 9.75], area=98.71)),
    "decimal ids": ("annotations", dict(id=1.0, image_id=1.0, category_id=1.0)),
    "no iscrowd": ("annotations", dict(iscrowd=None)),
    "a category 0": ("categories", dict(id=0)),
    "ids with gaps": ("categories", dict(id=90)),
    "no mask": ("annotations", dict(segmentation=None)),
    "an empty mask": ("annotations", dict(segmentation=[])),
    "run lengths of a crowd": ("annotations", dict(segmentation=dict(size=[30, 40], counts=[0, 1200]), iscrowd=1)),
    "packed run lengths": ("annotations", dict(segmentation=dict(size=[30, 40], counts="`0`0"), iscrowd=0)),
    "other keys, as LVIS's": ("images", dict(neg_category_ids=[1], not_exhaustive_category_ids=[], coco_url="x")),
    "other keys of categories": ("categories", dict(frequency="r", synset="cat.n.01", image_count=1, isthing=1)),
}


@pytest.mark.parametrize("name", SOUND_TOO)
def test_what_real_files_hold(name, tmp_path):
    part, values = SOUND_TOO[name]
    data = copy.deepcopy(SOUND)
    old = data[part][0].get("id")
    data[part][0].update(values)
    if part == "categories":
        for one in data["annotations"]:
            one["category_id"] = data[part][0]["id"] if one["category_id"] == old else one["category_id"]
    data["images"].append(dict(id=3, file_name="3.jpg", width=40, height=30))  # nothing to see there
    report = check_annotations(write(tmp_path, data), classes=("cat", "dog"))
    assert (report.images, report.objects, report.fatal, report.dropped, report.told) == (3, 3, [], [], [])
    assert len(by_mmdet(tmp_path / "train.json")) == 3


def test_annotations_to_be_ignored_are_no_defect(tmp_path):
    data = copy.deepcopy(SOUND)
    data["annotations"][0].update(ignore=1, bbox=None, area=None)
    path = write(tmp_path, data)
    report = check_annotations(path)
    assert (report.objects, report.fatal, report.dropped) == (2, [], [])
    assert len(by_mmdet(path)) == 2


def test_objects_without_a_mask_where_masks_are_loaded(tmp_path):
    from mmdet.datasets.transforms import LoadAnnotations

    data = copy.deepcopy(SOUND)
    for one in data["annotations"]:
        one["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    path = write(tmp_path, data)
    assert not check_annotations(path, masks=True).fatal
    data["annotations"][2]["segmentation"] = []
    path = write(tmp_path, data)
    (defect,) = check_annotations(path, masks=True).fatal
    assert (
        str(defect) == "objects without a mask, which the pipeline or the evaluation reads: annotation 3 of image 2.jpg"
    )
    assert not check_annotations(path, masks=True, classes=("dog",)).fatal  # nobody asks for that one
    instances = [dict(bbox=[1, 1, 9, 9], bbox_label=0, ignore_flag=0)]  # as mmdet reads it
    with pytest.raises(KeyError, match="mask"):
        LoadAnnotations(with_mask=True)(dict(instances=instances, ori_shape=(30, 40)))


def evaluate(path) -> float:
    """COCO's evaluation of mmdet, of predictions that are the annotations themselves."""
    import numpy as np
    from mmdet.evaluation import CocoMetric

    metric = CocoMetric(ann_file=str(path))
    metric.dataset_meta = dict(classes=("cat", "dog"))
    data = json.loads(path.read_text())
    for image in data["images"]:
        mine = [one for one in data["annotations"] if one["image_id"] == image["id"] and not one.get("iscrowd")]
        boxes = np.array([one["bbox"] for one in mine], dtype=float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([one["category_id"] - 1 for one in mine], dtype=int)
        predicted = dict(bboxes=boxes, scores=np.ones(len(mine)), labels=labels)
        metric.results.append((dict(img_id=image["id"], width=40, height=30), dict(img_id=image["id"], **predicted)))
    return metric.evaluate(size=len(data["images"]))["coco/bbox_mAP"]


def test_what_the_evaluation_asks_for_besides(tmp_path):
    data = copy.deepcopy(SOUND)
    path = write(tmp_path, data)
    assert not check_annotations(path, scored=True).fatal
    assert evaluate(path) == 1
    data["annotations"][0]["id"] = 0
    path = write(tmp_path, data)
    report = check_annotations(path, scored=True)
    assert not report.fatal
    assert "an annotation with the id 0, whose detections COCO's evaluation counts as false" in str(report.told[0])
    assert evaluate(path) < 1
    del data["annotations"][0]["iscrowd"]
    path = write(tmp_path, data)
    (defect,) = check_annotations(path, scored=True).fatal
    assert "annotations without iscrowd, at which COCO's evaluation stops; write 0" in str(defect)
    with pytest.raises(KeyError, match="iscrowd"):
        evaluate(path)
    data["annotations"][0].update(iscrowd=0, id="first")
    path = write(tmp_path, data)
    assert "whose id is a text" in str(check_annotations(path, scored=True).fatal[0])
    with pytest.raises(ValueError, match="first"):
        evaluate(path)


def test_a_test_set_may_have_no_annotations(tmp_path):
    path = write(tmp_path, {key: SOUND[key] for key in ("images", "categories")})
    assert not check_annotations(path, labelled=False).fatal
    with pytest.raises(AnnotationError, match="no list of annotations"):
        check_annotations(path)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data sets are not in {DATA}")
def test_real_files_are_sound():
    """COCO's own, BCCD and nuclei: decimal areas, crowds, run lengths, images of nothing."""
    files = sorted(DATA.glob("*/annotations/*.json"))
    assert len(files) >= 7
    for path in files:
        objects = [one for one in json.loads(path.read_text())["annotations"] if one["area"] > 0]
        report = check_annotations(path, scored=True)
        assert not report.fatal, path
        assert report.objects == len(objects), path
        assert report.num_dropped <= 1, path  # BCCD has a box without a size in two of its files


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
