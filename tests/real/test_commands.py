"""The commands that look at data, on real data sets as their files are: what they say is what pycocotools finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmcv import imread

from real.data_sets import EACH
from real.trainings import TINY_COCO, write_config
from visdet_assigners.commands import browse, check_data, compare, report

ATSS = {
    "bccd": ["atss/atss_r18_fpn_12e_bccd.py"],
    "nuclei": ["atss/atss_r18_fpn_12e_nuclei.py"],
    "tiny_coco": ["_base_/models/atss_r18_fpn.py", *TINY_COCO],
}


@pytest.fixture
def config(data, tmp_path, monkeypatch) -> str:
    """The small ATSS for the data set, which its variable tells; what is written goes into an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(data.variable, str(data.root))
    return write_config(tmp_path / "config.py", ATSS[data.name])


@pytest.mark.parametrize("data", EACH)
def test_check_data(data, config, capsys):
    assert check_data.main([config, "--images"]) == 0
    told = capsys.readouterr().out.splitlines()
    for name, phase in (("train", data.train), ("val", data.val)):
        kept = sum(len(phase.kept(image)) for image in phase.image_ids)
        dropped = sum(len(phase.annotations(image)) for image in phase.image_ids) - kept
        assert f"{name}: {phase.file}: {len(phase.image_ids)} images, {kept} objects, {dropped} left out" in told
    assert not [line for line in told if line.startswith("  !")]


@pytest.mark.parametrize("data", EACH)
def test_report_has_the_numbers_of_the_files(data, config):
    for name, phase, pictures in (("train", data.train, 1), ("val", data.val, 0)):
        report.main([config, "--phase", name, "--pictures", str(pictures), "--out-dir", name])
        found = json.loads(Path(name, "report.json").read_text())
        (section,) = found["assigners"].values()
        classes = phase.classes(phase.image_ids)
        assert found["images"] == len(phase.image_ids)
        assert {row["class"]: row["objects"] for row in section["by_class"]} == classes
        assert section["objects"] == sum(classes.values()) == sum(row["objects"] for row in section["by_size"])
        assert section["images_with_objects"] == sum(bool(phase.objects(image)) for image in phase.image_ids)
        assert section["priors"]["positive"] == sum(section["by_level"].values()) > section["objects"]
        assert len(section["objects_without"]) == round(section["without"] * section["objects"])
        assert Path(name, "report.html").read_text().count("data:image/jpeg;base64,") == pictures


@pytest.mark.parametrize("data", EACH)
def test_browse_draws_each_image_that_has_objects(data, config, capsys):
    browse.main([config, "-n", "2", "--out-dir", "pictures"])
    with_objects = [image for image in data.train.image_ids if data.train.objects(image)][:2]
    names = [f"{Path(data.train.coco.imgs[image]['file_name']).stem}.bbox_head.assigner.png" for image in with_objects]
    assert sorted(path.name for path in Path("pictures").iterdir()) == sorted(names)
    assert "2 pictures in pictures" in capsys.readouterr().out
    for name in names:
        assert imread(f"pictures/{name}").std() > 10


@pytest.mark.parametrize("data", EACH)
def test_compare_counts_the_same_objects(data, config):
    another = ["type=visdet_assigners.MaxIoUAssigner", "pos_iou_thr=.5", "neg_iou_thr=.4", "min_pos_iou=0"]
    compare.main([config, "--to", *another, "--max-images", "20", "--pictures", "1", "--out-dir", "out"])
    result = json.loads(Path("out/comparison.json").read_text())
    (place,) = result["places"].values()
    objects = sum(len(data.train.objects(image)) for image in data.train.image_ids[:20])
    assert {name: side["objects"] for name, side in place["assigners"].items()} == {
        "ATSSAssigner": objects, "MaxIoUAssigner": objects
    }  # fmt: skip
    agreement = place["agreement"]
    positives = [side["priors"]["positive"] for side in place["assigners"].values()]
    both = agreement["agree"] + agreement["another_object"]
    assert positives == [both + agreement["only_first"], both + agreement["only_second"]]
    assert 0 < agreement["share"] < 1
    assert len(list(Path("out").glob("*.bbox_head.assigner.png"))) >= 1


PREDICTIONS = {
    "bccd": ("yolox/yolox_nano_24e_bccd.py", "bbox_head.assigner"),
    "nuclei": ("deformable_detr/deformable-detr-refine_r18_50e_nuclei.py", "bbox_head.assigner"),
    "tiny_coco": ("mask2former/mask2former_r18_24e_tiny-coco.py", "panoptic_head.assigner"),
}


@pytest.mark.parametrize("data", EACH)
def test_what_looks_at_predictions(data, tmp_path, monkeypatch, capsys):
    """The network runs on the images, masks included; its weights are random, the objects those of the files."""
    base, where = PREDICTIONS[data.name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(data.variable, str(data.root))
    config = write_config(tmp_path / "config.py", [base])
    report.main([config, "--max-images", "3", "--pictures", "0", "--out-dir", "out"])
    section = json.loads(Path("out/report.json").read_text())["assigners"][where]
    first = data.train.image_ids[:3]
    assert section["reads_predictions"]
    assert {row["class"]: row["objects"] for row in section["by_class"]} == data.train.classes(first)
    assert section["priors"]["positive"] >= section["objects"] * (1 - section["without"]) > 0
    browse.main([config, "-n", "1", "--out-dir", "pictures"])
    (picture,) = Path("pictures").iterdir()
    assert picture.name == f"{Path(data.train.coco.imgs[first[0]]['file_name']).stem}.{where}.png"
    assert imread(str(picture)).std() > 10
    assert "The weights are random" in capsys.readouterr().out
