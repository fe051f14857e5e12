"""The constants of a data set: what is printed is what plain arithmetic on the annotations gives."""

import json
import re

import pytest

from toolbox import ROOT, load_tool

CONFIG = str(ROOT / "configs/rpn/rpn_r18_fpn_12e_shapes.py")


def test_the_mean_size_after_resizing(tmp_path, monkeypatch, capsys):
    assert load_tool("make_shapes").main([str(tmp_path), "--train", "4", "--val", "1", "--size", "160", "120"]) == 0
    monkeypatch.setenv("VISDET_SHAPES", str(tmp_path))
    load_tool("measure_constants").main([CONFIG])
    printed = capsys.readouterr().out
    data = json.loads((tmp_path / "annotations/train.json").read_text())
    sides = [one["bbox"][2:] for one in data["annotations"] if not one["iscrowd"]]
    mean = 2 * sum((w * h) ** 0.5 for w, h in sides) / len(sides)  # the config resizes to 320x240
    assert float(re.search(r"constant=([\d.]+)", printed)[1]) == pytest.approx(mean, abs=0.02)
    assert f"{len(sides)} objects in 4 images" in printed
    m, n = map(float, re.search(r"SimDOverlaps', m=([\d.]+), n=([\d.]+)", printed).groups())
    assert 0.5 < n < m < 20  # images are wider than high


def test_mistakes_of_the_user(capsys):
    with pytest.raises(SystemExit) as stopped:
        load_tool("measure_constants").main([CONFIG, "--max-images", "0"])
    assert stopped.value.code == 2
    assert "at least 1" in capsys.readouterr().err
