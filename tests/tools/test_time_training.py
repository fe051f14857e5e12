"""Configs are timed side by side; times themselves are not tested, since they are the machine's."""

import re

import pytest

from toolbox import ROOT, load_tool

CONFIG = str(ROOT / "configs/co_detr/co-deformable-detr-atss_r18_400it_shapes-128x128.py")


@pytest.mark.slow(reason="trains")
def test_a_row_for_each_config(tmp_path, monkeypatch, capsys):
    assert load_tool("make_shapes").main([str(tmp_path), "--train", "8", "--val", "1"]) == 0
    monkeypatch.setenv("VISDET_SHAPES", str(tmp_path))
    tool, counted = load_tool("time_training"), []
    monkeypatch.setattr(tool, "time_step", lambda *step: counted.append(step[0]) or float(len(counted)))
    tool.main([CONFIG, CONFIG, "--iterations", "4"])
    assert len(counted) == 8
    assert counted[0] is counted[2]
    assert counted[0] is not counted[1]
    # Turns three and four take 5, 7 and 6, 8 seconds.
    rows = re.findall(r"\| \S+ \| (\d+) \| ([\d.]+) \|", capsys.readouterr().out)
    assert rows == [("6000", "1.00"), ("7000", "1.17")]


def test_a_step_trains(tmp_path, monkeypatch):
    assert load_tool("make_shapes").main([str(tmp_path), "--train", "8", "--val", "1"]) == 0
    monkeypatch.setenv("VISDET_SHAPES", str(tmp_path))
    tool = load_tool("time_training")
    model, optim_wrapper, batches = tool.prepare(tool.read_config(CONFIG), "0")
    before = model.bbox_head.cls_branches[0].weight.clone()
    assert tool.time_step(model, optim_wrapper, next(batches)) > 0
    assert not model.bbox_head.cls_branches[0].weight.equal(before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["missing.py"], "doesn't exist"), ([CONFIG, "--iterations", "2"], "at least 3"), ([], "configs")],
)
def test_mistakes_of_the_user(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        load_tool("time_training").main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
