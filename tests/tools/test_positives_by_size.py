"""What the ATSS paper says of the number of positives, on single boxes; and the tool's tables."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from scenes import DATA, needs
from toolbox import load_tool
from visdet_assigners import ATSSAssigner

tool = load_tool("positives_by_size")
K9 = tool.RULES["ATSS, k = 9"]


@pytest.mark.parametrize("size", [64, 128, 256, 512])
@pytest.mark.parametrize("aspect", [0.25, 1.0, 4.0])
def test_nine_positives_of_any_size_place_and_shape(size, aspect):
    """0.2 k L for k = 9 and five levels, from eight fine strides up."""
    counts = tool.count_alone(tool.Rule(ATSSAssigner(9), aspect), tool.draw_places(size, aspect, 20))
    assert all(8 <= count <= 10 for count in counts)
    assert counts or (size, aspect) == (512, 0.25)  # which doesn't fit


def test_flat_from_four_strides_of_the_finest_level_and_fewer_below():
    means = {size: np.mean(tool.count_alone(K9, tool.draw_places(size, 1.0, 30))) for size in (8, 16, 32)}
    assert means[32] == 9
    assert 3 <= means[16] <= 4
    assert 0.5 <= means[8] <= 1


def test_long_objects_of_eight_pixels_may_get_none():
    counts = tool.count_alone(tool.Rule(ATSSAssigner(9), 4.0), tool.draw_places(8, 4.0, 100))
    assert min(counts) == 0
    assert np.mean(counts) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("size", [16, 40, 100, 250])
def test_a_whole_step_of_the_coarsest_level_changes_nothing(size):
    """Away from the border of the picture."""
    boxes = tool.draw_places(size, 1.5, 10, seed=1) * 0.2 + torch.tensor([300.0, 200.0, 300.0, 200.0])
    moved = boxes + torch.tensor([256.0, 128.0, 256.0, 128.0])
    counts = tool.count_alone(K9, boxes)
    assert counts == tool.count_alone(K9, moved)
    assert sum(counts) > 0


@pytest.mark.parametrize("k", [3, 7, 13, 19])
def test_the_number_grows_with_k(k):
    counts = tool.count_alone(tool.RULES[f"ATSS, k = {k}"], tool.draw_places(128, 1.0, 20))
    assert np.mean(counts) == pytest.approx(k, rel=0.05)


def test_nine_anchors_a_point_need_nine_times_as_many_candidates():
    boxes = tool.draw_places(128, 1.0, 10)
    per_anchor = tool.count_alone(tool.RULES["ATSS, 9 anchors a point, topk 9"], boxes)
    per_location = tool.count_alone(tool.RULES["ATSS, 9 anchors a point, topk 9 per location"], boxes)
    assert all(6 <= count <= 9 for count in per_anchor)
    assert all(75 <= count <= 81 for count in per_location)


def test_the_other_rules_depend_on_size():
    """FCOS's positives grow with the area until the level changes; thresholds give tiny objects most of all."""
    fcos = [np.mean(tool.count_alone(tool.RULES["FCOS"], tool.draw_places(size, 1.0, 10))) for size in (8, 16, 32, 64)]
    assert fcos == pytest.approx([1, 4, 16, 64], rel=0.1)
    lite = tool.count_alone(tool.RULES["FCOS, centre sampling"], tool.draw_places(256, 1.0, 10))
    assert set(lite) == {9}
    iou = [np.mean(tool.count_alone(tool.RULES["IoU .5 / .4"], tool.draw_places(size, 1.0, 10))) for size in (8, 128)]
    assert iou[0] > 40
    assert iou[1] == pytest.approx(16, abs=2)


@needs("tiny_coco")
def test_real_objects_have_nine_positives_from_four_strides_up():
    scenes = list(tool.coco_objects(DATA / "tiny_coco/annotations/instances_val2017.json", 50, 1333))
    rows = tool.octaves(tool.assign_together(K9, scenes))
    assert [rows[size]["median"] for size in (32, 64, 128, 256)] == [9] * 4
    assert rows[8]["median"] < rows[16]["median"] < 9


def test_tables_and_chart(tmp_path, capsys):
    image = dict(id=1, width=400, height=300)
    boxes = [dict(id=i, image_id=1, category_id=1, bbox=[20.0 + 100 * i, 30, 64, 64], iscrowd=0) for i in range(3)]
    data = tmp_path / "data.json"
    data.write_text(json.dumps(dict(images=[image], annotations=boxes, categories=[dict(id=1, name="box")])))
    picture = tmp_path / "chart.png"
    tool.main(["--places", "2", "--annotations", str(data), "--out", str(picture)])
    lines = capsys.readouterr().out.splitlines()
    assert "| ATSS, k = 9 | " in lines[5]
    assert lines[5].endswith("| 9.0 | 9.0 | 9.0 | 9.0 |")
    assert "| objects |  |  |  | 3 |  |  |  |" in lines
    assert "| 3 objects of 1 pictures | 8 |" in "\n".join(lines)
    assert Image.open(picture).size == (936, 360)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--places", "0"], "--places 0: give a number"), (["--annotations", "gone.json"], "gone.json doesn't exist")],
)
def test_mistakes_end_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
