"""The labels that mmdet gives are the ones that we say, and what makes them others is named."""

import json
from typing import ClassVar

import pytest
from mmdet.datasets import CityscapesDataset, CocoDataset, LVISV1Dataset, MOTChallengeDataset

from visdet_assigners.errors import UserError
from visdet_assigners.training.classes import class_faults, is_coco, label_order, names_of, read_classes

IN_FILE = ("RBC", "WBC", "Platelets")


def labels_by_mmdet(folder, classes, in_file=IN_FILE) -> dict[str, int]:
    """The label that mmdet's data set gives an object of each category."""
    content = dict(
        images=[dict(id=1, file_name="a.jpg", width=50, height=50)],
        categories=[dict(id=9 - number, name=name) for number, name in enumerate(in_file)],
        annotations=[dict(id=number, image_id=1, category_id=9 - number, bbox=[number, 1, 9, 9], area=81)
                     for number in range(len(in_file))],
    )  # fmt: skip
    (folder / "a.json").write_text(json.dumps(content))
    dataset = CocoDataset(ann_file=str(folder / "a.json"), data_prefix=dict(img=""), metainfo=dict(classes=classes))
    return {in_file[int(one["bbox"][0])]: one["bbox_label"] for one in dataset[0]["instances"]}


CHOICES = [
    (IN_FILE, True),
    (("Platelets", "WBC", "RBC"), False),
    (("WBC", "RBC"), False),
    (("RBC", "Platelets"), True),
    (("Platelets",), True),
    (("Eosinophil", "WBC", "Platelets"), False),
    (("RBC", "WBC", "platelets"), False),  # one that is never learned
    (("RBC", "WBC", "Platelets", "RBC"), False),
]


@pytest.mark.parametrize(("classes", "sound"), CHOICES)
def test_labels(classes, sound, tmp_path):
    labels = labels_by_mmdet(tmp_path, classes)
    assert labels == {name: label for label, name in enumerate(label_order(IN_FILE, classes))}
    assert sound == (not class_faults(IN_FILE, classes))
    if sound:
        assert all(classes[label] == name for name, label in labels.items())


def test_two_categories_of_one_name(tmp_path):
    in_file = ("RBC", "WBC", "RBC")
    ((what, which, _),) = class_faults(in_file, ("RBC", "WBC"))
    assert (what, which) == ("categories of the same name, each of which gets a label", ["RBC"])
    assert labels_by_mmdet(tmp_path, ("RBC", "WBC"), in_file)["RBC"] == 2  # beyond the classes
    assert not class_faults(in_file, ("WBC",))


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        (("Platelets", "WBC", "RBC"), '("RBC", "WBC", "Platelets")'),
        (("WBC", "RBC"), '("RBC", "WBC")'),
        (("platelets", "WBC"), '("WBC", "Platelets")'),  # misspelt
        (("person", "bicycle"), '("RBC", "WBC", "Platelets")'),  # another data set's
        (CocoDataset.METAINFO["classes"], '("RBC", "WBC", "Platelets")'),
        (("RBC", "WBC", "Bacteria"), '("RBC", "WBC")'),
    ],
)
def test_the_line_to_write(classes, line):
    ((_, _, advice),) = class_faults(IN_FILE, classes)
    assert advice.startswith(f"write metainfo=dict(classes={line})")
    assert not class_faults(IN_FILE, names_in(line))


def names_in(line: str) -> tuple[str, ...]:
    return tuple(json.loads(f"[{line.strip('()')}]"))


def test_a_text_file_is_read_as_mmengine_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("RBC\nWBC\n", "RBC\r\nWBC", "RBC \nWBC"):
        (tmp_path / "classes.txt").write_text(text, newline="")
        metainfo = dict(classes="classes.txt")
        names = read_classes(dict(metainfo=metainfo), CocoDataset).names
        assert list(names) == CocoDataset._load_metainfo(metainfo)["classes"]
    (tmp_path / "classes.txt").write_text("RBC\n\nWBC\n")
    with pytest.raises(UserError, match=r"line 2 of the file of classes classes.txt is empty"):
        read_classes(dict(metainfo=dict(classes="classes.txt")), CocoDataset)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="can't be read"):
        read_classes(dict(metainfo=dict(classes="classes.txt")), CocoDataset)
    with pytest.raises(UserError, match="can't be read"):
        read_classes(dict(metainfo=dict(classes=str(tmp_path))), CocoDataset)


def test_whose_classes_hold():
    assert read_classes({}, CityscapesDataset).names[0] == "person"
    assert read_classes(dict(metainfo=dict(palette=[])), CityscapesDataset).names[0] == "person"
    assert read_classes(dict(metainfo=dict(classes=["a"])), CityscapesDataset).names == ("a",)
    assert read_classes(dict(metainfo=dict(classes=["a"])), None).names == ("a",)
    assert read_classes({}, None) is None
    assert read_classes({}, MOTChallengeDataset) is None  # it lists what it doesn't load


def test_whose_annotations_are_coco():
    class Own(CocoDataset):
        METAINFO: ClassVar = dict(classes=("a",))

    class Other(CocoDataset):
        def parse_data_info(self, raw_data_info):
            return {}

    assert [is_coco(one) for one in (CocoDataset, CityscapesDataset, Own)] == [True] * 3
    assert [is_coco(one) for one in (Other, LVISV1Dataset, MOTChallengeDataset, None)] == [False] * 4


def test_names_of_data_sets_that_are_built():
    class Built:
        def __init__(self, metainfo):
            self.metainfo = metainfo

    assert names_of(Built(dict(classes=["a"]))) == ("a",)
    assert names_of(Built([dict(classes=["a"]), dict(classes=["a"], palette=[])])) == ("a",)  # mmdet's ConcatDataset
    assert names_of(Built({})) == names_of(object()) == ()
