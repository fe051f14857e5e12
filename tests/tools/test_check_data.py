"""Data are checked before a training: as a tool, and when `tools/train.py` starts."""

import json
import re

import pytest

from toolbox import ROOT, load_tool

CONFIG = str(ROOT / "configs/atss/atss_r18_fpn_12e_shapes.py")


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    folder = tmp_path / "shapes"
    assert load_tool("make_shapes").main([str(folder), "--train", "3", "--val", "1"]) == 0
    monkeypatch.setenv("VISDET_SHAPES", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def change(folder, **values):
    """Change the first annotation of the training set."""
    path = folder / "annotations/train.json"
    data = json.loads(path.read_text())
    data["annotations"][0].update(values)
    path.write_text(json.dumps(data))


def test_sound_data(shapes, capsys):
    assert load_tool("check_data").main([CONFIG, "--images"]) == 0
    counts = re.findall(r"(train|val): .+: (\d) images, \d+ objects, 0 left out", capsys.readouterr().out)
    assert counts == [("train", "3"), ("val", "1")]


def test_annotations(shapes, capsys):
    change(shapes, bbox=[1, 1, 0, 5])
    assert load_tool("check_data").main([CONFIG]) == 0
    assert "- boxes with a side below one pixel, or without area: annotation 1 of" in capsys.readouterr().out
    change(shapes, bbox=[1, 1, 5])
    assert load_tool("check_data").main([CONFIG]) == 1
    assert "! boxes that are not four finite numbers" in capsys.readouterr().out


def test_pictures(shapes, capsys):
    pictures = sorted((shapes / "images/train").glob("*.jpg"))
    pictures[0].write_bytes(pictures[0].read_bytes()[:20])
    path = shapes / "annotations/train.json"
    path.write_text(path.read_text().replace('"width": 320', '"width": 321', 2))
    tool = load_tool("check_data")
    assert tool.main([CONFIG]) == 0
    assert tool.main([CONFIG, "--images"]) == 1
    out = capsys.readouterr().out
    assert "! pictures that can't be read: 000000.jpg" in out
    assert "! pictures of another size than the file says: 000001.jpg (320x240, not 321x240)" in out


@pytest.mark.parametrize("stop", [False, True])
def test_training_says_what_is_left_out_or_stops(stop, shapes, capsys, monkeypatch):
    change(shapes, bbox=[900, 900, 5, 5])
    tool = load_tool("train")
    trained = []
    monkeypatch.setattr(tool, "build_runner", lambda cfg: trained.append(cfg) or type("", (), {"train": list})())
    if stop:
        with pytest.raises(SystemExit) as stopped:
            tool.main([CONFIG, "--bad-annotations", "stop"])
        assert stopped.value.code == 2
    else:
        tool.main([CONFIG])
    error = capsys.readouterr().err
    assert ("1 annotations can't be used" if stop else "1 annotations are left out") in error
    assert "boxes outside their image: annotation 1 of image 000000.jpg" in error
    assert bool(trained) != stop


@pytest.mark.parametrize("damage", ["cut off", "no picture", "no class"])
def test_training_stops_before_the_first_iteration(damage, shapes, capsys):
    path = shapes / "annotations/train.json"
    text = path.read_text()
    if damage == "cut off":
        path.write_text(text[: len(text) // 2])
    elif damage == "no picture":
        (shapes / "images/train/000001.jpg").unlink()
    else:
        path.write_text(text.replace('"circle"', '"Circle"'))
    message = {
        "cut off": "is no whole JSON file",
        "no picture": "images that are not in",
        "no class": "classes that no category of the file bears (it has Circle, rectangle, triangle, star): circle",
    }[damage]
    with pytest.raises(SystemExit) as stopped:
        load_tool("train").main([CONFIG])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "train.json" in error
