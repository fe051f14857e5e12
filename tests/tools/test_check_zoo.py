"""The zoo: every assigner of mmdet's configs is ours with the drop-in, and equal; what isn't is found and told.

A short form of the whole walk, `python tools/check_zoo.py`.
"""

import json
import re
import shlex

import pytest

from toolbox import load_tool
from visdet_assigners import dropin
from visdet_assigners.assigners import atss

zoo = load_tool("check_zoo")
dropin.restore()  # importing it has enabled it, for the tests of all modules

TOOD = "tood/tood_r50_fpn_1x_coco.py"
# A config for each assigner that mmdet's configs name, or that its heads name in their code.
ONE_OF_EACH = {
    "ApproxMaxIoUAssigner": "sabl/sabl-retinanet_r50_fpn_1x_coco.py",
    "CenterRegionAssigner": "fsaf/fsaf_r50_fpn_1x_coco.py",
    "DynamicSoftLabelAssigner": "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "GridAssigner": "yolo/yolov3_d53_8xb8-320-273e_coco.py",
    "MultiInstanceAssigner": "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py",
    "PointAssigner": "reppoints/reppoints-moment_r50_fpn_1x_coco.py",
    "RegionAssigner": "cascade_rpn/cascade-rpn_r50-caffe_fpn_1x_coco.py",
    "SimOTAAssigner": "yolox/yolox_tiny_8xb8-300e_coco.py",
    "TaskAlignedAssigner": TOOD,
    "TopkHungarianAssigner": "ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py",
    "UniformAssigner": "yolof/yolof_r50-c5_8xb8-1x_coco.py",
}
MAX_IOU = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5)


def row(out: str, name: str) -> list[int]:
    """The numbers beside an assigner in the last table: families, configs, settings, calls, matches."""
    (numbers,) = re.findall(rf"│ {name} +│([ \d│]+)│", out.split("In all")[1])
    return [int(number) for number in numbers.split("│")]


def test_every_20th_config(capsys):
    assert zoo.main(["--every", "20", "--drawn", "3"]) == 0
    out = capsys.readouterr().out
    configs = len(zoo.find_configs(zoo.CONFIGS, [], 1))
    assert configs > 800
    assert f"\n{-(-configs // 20)} configs: " in out
    assert "All are ours and equal to mmdet's" in out
    assert row(out, "MaxIoUAssigner")[1] > 20


def test_every_assigner(capsys):
    assert zoo.main(["--drawn", "3", "--only", *ONE_OF_EACH.values()]) == 0
    out = capsys.readouterr().out
    for name in (*ONE_OF_EACH, "ATSSAssigner", "MaxIoUAssigner", "HungarianAssigner"):
        families, configs, settings, calls, matches = row(out, name)
        assert families >= 1
        assert configs >= families
        assert settings >= 1
        assert calls >= 2
        assert matches >= 1


def test_a_difference_is_found_and_told_how_to_see(capsys, monkeypatch):
    monkeypatch.setattr(atss, "INSIDE", 3.0)
    assert zoo.main(["--only", "tood/*"]) == 1
    out = capsys.readouterr().out
    assert "different: tood/" in out
    assert "model.train_cfg.initial_assigner" in out
    assert re.search(r"scene \S+: gt_inds differ at \d+ of \d+, first at \[\d+\]: \d+ with mmdet's, 0 with ours", out)
    command = shlex.split(re.search(r"to see it again: (.*)", out)[1])
    assert command[:2] == ["python", "tools/check_zoo.py"]
    assert zoo.main(command[2:]) == 1
    monkeypatch.undo()
    assert zoo.main(command[2:]) == 0


def test_an_assigner_that_is_not_ours_is_found(capsys, monkeypatch):
    dropin.restore()
    monkeypatch.delitem(dropin.REGISTERED, "PointAssigner")
    assert zoo.main(["--only", ONE_OF_EACH["PointAssigner"]]) == 1
    assert "PointAssigner is of mmdet.models.task_modules" in capsys.readouterr().out


def test_assigners_in_lists_and_inner_models_and_configs_without_any(tmp_path, capsys):
    inner = {"train_cfg": {"rcnn": [{"assigner": MAX_IOU}, {"assigner": MAX_IOU}]}, "head": {"assigner": MAX_IOU}}
    write(tmp_path / "teachers" / "config.py", model={"detector": inner}, semi_cfg=[[{"type": "mmdet.PointAssigner"}]])
    write(tmp_path / "plain" / "config.py", model={"type": "FCOS"})
    write(tmp_path / "broken" / "config.py", _base_="nowhere.py")
    write(tmp_path / "_base_" / "part.py", model={"assigner": {"type": "NobodysAssigner"}})
    assert zoo.main(["--configs", str(tmp_path), "--drawn", "2"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"│ teachers +│ MaxIoUAssigner +│ +1 │ +3 │ +3 │", out)
    assert re.search(r"│ +│ PointAssigner +│ +1 │ +1 │ +1 │", out)
    assert "without assigners: plain 1" in out
    assert re.search(r"not resolved: broken/config.py: FileNotFoundError: .*nowhere.py", out)
    assert "3 configs: 1 can't be resolved, 1 name no assigner, 1 name 4 assigners in 2 settings" in out


def write(file, **settings):
    file.parent.mkdir()
    file.write_text("\n".join(f"{key} = {value!r}" for key, value in settings.items()))


def test_real_boxes(tmp_path, capsys):
    file = tmp_path / "annotations.json"
    boxes = [[10, 10, 100, 80], [200, 40, 60, 120], [630, 10, 50, 50], [5, 5, 0, 20]]  # one cut, one without area
    annotations = [dict(image_id=7, category_id=3, bbox=box, iscrowd=0) for box in boxes]
    images = [dict(id=7, width=640, height=480), dict(id=8, width=320, height=240)]
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=[dict(id=3, name="cell")])))
    empty, full = zoo.coco_objects(file, limit=2)
    assert len(empty.boxes) == 0
    assert full.boxes[:, 2].tolist() == [68.75, 162.5, 400.0]
    assert zoo.main(["--only", TOOD, "--drawn", "0", "--real", str(file)]) == 0
    assert "on 2 scenes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "tood/nothing.py"], "--only tood/nothing.py: no config"),
        (["--configs", "nowhere"], "no configs in nowhere"),
        (["--every", "0"], "--every is 0; at least 1"),
        (["--drawn", "99"], "--drawn is 99; there are 33"),
        (["--drawn", "0"], "there are no scenes"),
        (["--real", "nowhere.json"], "nowhere.json doesn't exist"),
        (["--real", __file__], "is no file in COCO's format"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        zoo.main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
