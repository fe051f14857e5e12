"""The tool that measures the hook prints a share of the iteration."""

import re

import pytest

from toolbox import ROOT, load_tool

hook_cost = load_tool("hook_cost")
DETR = str(ROOT / "configs" / "deformable_detr" / "deformable-detr-refine_r18_50e_shapes.py")


def test_share_of_an_iteration(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISDET_SHAPES", raising=False)
    load_tool("make_shapes").main(["shapes", "--train", "2", "--val", "1", "--size", "160", "120"])
    options = ["--cfg-options", "data_root=shapes", "train_dataloader.num_workers=0"]
    options += ["train_dataloader.persistent_workers=False", "train_dataloader.batch_size=2"]
    assert hook_cost.main([DETR, "--iterations", "2", *options]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    own, whole, share, calls = map(float, re.findall(r"[\d.]+", line)[:4])
    assert calls == 6  # 3 layers, 2 images
    assert 0 < own < whole
    assert share == pytest.approx(100 * own / whole, abs=0.5)
