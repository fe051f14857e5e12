"""The commands on a rotated detector of mmrotate: drawn shapes, a few iterations, pictures, a report."""

import json
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

from rotated import mmrotate, needs_mmrotate
from toolbox import ROOT, load_tool
from visdet_assigners import dropin
from visdet_assigners.registry import is_ours

CONFIG = str(ROOT / "tests" / "rotated_retinanet.py")

pytestmark = pytest.mark.usefixtures("empty_folder", "scope_as_before")


@pytest.fixture
def scope_as_before():
    """The commands make mmrotate the default scope, in which other tests would look names up."""
    known = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(known)


@pytest.fixture(scope="module")
def rotated_shapes(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    load_tool("make_shapes").main([str(folder), "--train", "4", "--val", "1", "--size", "160", "120", "--rotated"])
    return f"data_root={folder}"


def test_masks_are_the_corners_of_rotated_boxes(rotated_shapes):
    content = json.loads(Path(rotated_shapes.split("=")[1], "annotations", "train.json").read_text())
    assert content["annotations"]
    for annotation in content["annotations"]:
        ((*corners,),) = annotation["segmentation"]
        assert len(corners) == 8
        x, y, w, h = annotation["bbox"]
        assert min(corners[::2]) <= x + 1
        assert max(corners[1::2]) >= y + h - 2
        assert annotation["iscrowd"] == 0
        assert w * h >= 0.4 * annotation["area"]


@needs_mmrotate
def test_pictures_and_report(rotated_shapes, capsys):
    mmrotate()
    load_tool("browse_assignments").main([CONFIG, "-n", "2", "--out-dir", "pictures", "--cfg-options", rotated_shapes])
    assert len(list(Path("pictures").glob("*.png"))) == 2
    load_tool("assignment_report").main([CONFIG, "--cfg-options", rotated_shapes])
    assert "MaxIoUAssigner (bbox_head.assigner)" in capsys.readouterr().out
    (report,) = Path().rglob("report.json")
    assert "MaxIoUAssigner" in report.read_text()


@needs_mmrotate
def test_a_few_iterations(rotated_shapes):
    from mmdet.registry import TASK_UTILS

    mmrotate()
    dropin.enable()  # as the config's custom_imports does in a process of its own
    load_tool("train").main([CONFIG, "--work-dir", "run", "--cfg-options", rotated_shapes])
    assert list(Path("run").glob("*.pth"))
    assert is_ours(TASK_UTILS.module_dict["MaxIoUAssigner"])
