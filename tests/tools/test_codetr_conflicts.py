"""Conflicts of a detector's heads, counted over a data set without weights or images."""

import re

import pytest

from toolbox import ROOT, load_tool

CONFIGS = ROOT / "configs/co_detr"


@pytest.fixture(autouse=True)
def shapes(tmp_path, monkeypatch):
    assert load_tool("make_shapes").main([str(tmp_path), "--train", "4", "--val", "1"]) == 0
    for picture in (tmp_path / "images").rglob("*.jpg"):
        picture.unlink()
    monkeypatch.setenv("VISDET_SHAPES", str(tmp_path))


def test_heads_of_a_detector(capsys):
    config = CONFIGS / "co-deformable-detr-atss-rcnn_r18_400it_shapes-128x128.py"
    load_tool("codetr_conflicts").main([str(config)])
    (row,) = re.findall(r"\| (.+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+)% \|", capsys.readouterr().out)
    heads, places, one_sided, other, share = row
    assert heads == "auxiliary.branches.0.head.assigner and auxiliary.branches.1.rpn.assigner"
    assert 0 < int(one_sided) + int(other) < int(places)
    assert float(share) == pytest.approx(100 * (int(one_sided) + int(other)) / int(places), abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["co-deformable-detr-atss_r18_400it_shapes-128x128.py"], "no two heads on the same places"),
        (["co-deformable-detr-atss_r18_400it_shapes-128x128.py", "--max-images", "0"], "at least 1"),
        (["missing.py"], "doesn't exist"),
    ],
)
def test_mistakes_of_the_user(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        load_tool("codetr_conflicts").main([str(CONFIGS / arguments[0]), *arguments[1:]])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
