"""The benchmark runs, and what it counts is right; times are nobody's business here."""

import json

import pytest
import torch

from scenes import DATA, needs
from toolbox import load_tool
from visdet_assigners import ATSSAssigner
from visdet_assigners.testing.benchmarks import SCENES, drawn, scene_for
from visdet_assigners.testing.feeds import feeds
from visdet_assigners.testing.measure import OperatorCounter, Timing, peak_memory, time_interleaved

benchmark = load_tool("benchmark")


def test_it_measures_both_sides_and_writes_them_down(tmp_path, capsys):
    file = tmp_path / "figures.json"
    arguments = ["--scenes", "R-CNN", "YOLOF", "--objects", "3", "7", "--rounds", "1", "--json", str(file)]
    assert benchmark.main(arguments) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(row["scene"], row["objects"]) for row in rows] == [(s, m) for s in ("R-CNN", "YOLOF") for m in (3, 7)]
    for row in rows:
        assert row["ours"]["waits"] == 0 < row["mmdet"]["waits"]
        assert row["speedup"] == pytest.approx(row["mmdet"]["time"]["median"] / row["ours"]["time"]["median"])
    assert [row["target"] for row in rows] == [None, 1, None, 1.5]
    assert f"torch {torch.__version__}" in capsys.readouterr().out


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_decides_as_mmdet_and_waits_no_more_than_it_says(name):
    scene = SCENES[name]
    row = benchmark.measure(scene, drawn(5, scene.image), torch.device("cpu"), rounds=1)
    assert row.ours.waits <= scene.waits


def test_the_assigners_of_a_config(tmp_path, capsys):
    arguments = ["--config", "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "--objects", "2", "--rounds", "1"]
    assert benchmark.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "267,069" in printed
    assert "2,000" in printed


@needs("tiny_coco")
def test_real_boxes(capsys):
    file = DATA / "tiny_coco/annotations/instances_val2017.json"
    assert benchmark.main(["--scenes", "YOLOF", "--real", str(file), "--rounds", "1"]) == 0
    assert capsys.readouterr().out.count("Uniform") >= 2


def test_growth_is_drawn_for_ours_alone_where_mmdet_would_need_too_much(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "GROWTH", (3, 40))
    monkeypatch.setattr(benchmark, "MMDET_PAIRS", 10**6)
    picture = tmp_path / "growth.png"
    assert benchmark.main(["--scenes", "R-CNN", "--growth", str(picture), "--rounds", "1"]) == 0
    assert picture.stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objects", "0"], "--objects must be at least 1"),
        (["--scenes", "RPM"], "there is no RPM; choose from RPN, "),
        (["--real", "nowhere.json"], "nowhere.json"),
        (["--config", "nowhere.py"], "nowhere.py"),
        (["--config", "mmdet::nowhere.py"], "can't read the config mmdet::nowhere.py"),
        (["--config", "mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py"], "names no assigner"),
        (["--config", "a.py", "--scenes", "RPN"], "exclude each other"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed
    assert "Traceback" not in printed


def test_waits_are_told_from_work():
    x = torch.arange(6.0)
    with OperatorCounter() as counter:
        x[x > 2]  # a mask
        x[torch.tensor([0, 1])]
        x.sum().item()
        x.view(2, 3).T.expand(3, 2)
        x.to("cpu", copy=True)
        x.cpu(), x.tolist()  # nothing to copy here, but on a device
    assert counter.waits == {"index": 1, "_local_scalar_dense": 1, "_to_copy": 1, "cpu": 1, "tolist": 1}
    assert not {"view", "t", "expand"} & set(counter.operators)


def test_memory_and_time():
    assert 90 * 2**20 < peak_memory(lambda: torch.ones(25 * 2**20), torch.device("cpu")) < 120 * 2**20
    assert peak_memory(lambda: torch.ones(1000), torch.device("cpu")) < 2**20
    turns = []
    timings = time_interleaved([lambda: turns.append("a"), lambda: turns.append("b")], rounds=3)
    assert "".join(turns) == "abababab"
    assert len(timings) == 2
    assert Timing.of([1.0, 2.0, 3.0]).median == 2.0


def test_types_that_are_classes():
    """As pure-Python configs write them."""
    named, given = (dict(type=kind, topk=9) for kind in ("mmdet.ATSSAssigner", ATSSAssigner))
    assert scene_for("model.train_cfg.assigner", given).name == scene_for("model.train_cfg.assigner", named).name
    objects = drawn(3, SCENES["RetinaNet"].image)
    assert len(list(feeds(given, objects))) == len(list(feeds(named, objects))) > 0
    ours, theirs = benchmark.build_both(given)
    assert type(ours) is ATSSAssigner
    assert type(theirs).__module__.startswith("mmdet.")
