"""The recipes for small objects: what is left to train, the file of results, and the numbers of an evaluation."""

import json

import numpy as np
import pytest
from mmengine.config import Config

from toolbox import ROOT, load_tool

tiny = load_tool("train_tiny")


def test_every_recipe_has_a_config_of_nuclei_that_keeps_200_detections():
    for run in tiny.table_of_runs([], [], [0]):
        cfg = Config.fromfile(ROOT / run.config)
        assert run.config.endswith("_nuclei.py")
        assert tiny.epochs_of(run.config) == cfg.train_cfg.max_epochs
        assert cfg.model.test_cfg.get("rcnn", cfg.model.test_cfg).max_per_img == tiny.DETECTIONS


def test_finished_runs_are_not_repeated(tmp_path):
    results, runs = tmp_path / "results.json", tiny.table_of_runs(["atss", "yolox"], ["stock"], [0, 1])
    row = {"epochs": 12, "cpu_seconds": 60, "AP": 0.5, "AP50": 0.8, "recall": 0.6}
    row |= {f"AP {name}": 0.25 for name in tiny.SIZE_CLASSES}
    seen = []
    for run, left in tiny.unfinished(runs, results):
        seen.append((run.family, run.seed, left))
        tiny.add_result(results, run, {**run._asdict(), **row})
    assert seen == [("atss", 0, 4), ("yolox", 0, 3), ("atss", 1, 2), ("yolox", 1, 1)]
    assert not list(tiny.unfinished(runs, results))
    rows = json.loads(results.read_text())
    assert [(row["family"], row["seed"]) for row in rows] == [("atss", 0), ("atss", 1), ("yolox", 0), ("yolox", 1)]
    assert len(results.read_text().splitlines()) == len(rows) + 2
    table = tiny.make_table(rows).splitlines()
    assert table[2] == "| atss | stock | 2 | 12 | 1 | 50.0 (50.0 to 50.0) | 80.0 | 25.0 | 25.0 | 25.0 | 60.0 |"
    assert len(table) == 4


def test_evaluation_by_size_class(tmp_path):
    boxes = [[10, 10, 6, 6], [40, 40, 12, 12], [100, 100, 20, 20]]
    truths = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": box, "area": box[2] * box[3]}
        for i, box in enumerate(boxes)
    ]
    data = {
        "images": [{"id": 1, "width": 256, "height": 256, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "nucleus"}],
        "annotations": truths,
    }
    (tmp_path / "val.json").write_text(json.dumps(data))
    # The object of 12 pixels is not found.
    found = [{"image_id": 1, "category_id": 1, "bbox": boxes[i], "score": 0.9} for i in (0, 2)]
    (tmp_path / "found.json").write_text(json.dumps(found))
    numbers = tiny.evaluate(tmp_path / "val.json", tmp_path / "found.json")
    # Precision is 1 up to a recall of 2/3: 67 of the 101 points at which COCO looks.
    expected = {"AP": 67 / 101, "AP50": 67 / 101, "AP 2-8": 1, "AP 8-16": 0, "AP 16-32": 1, "recall": 2 / 3}
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(value, abs=1e-4), name
    (tmp_path / "found.json").write_text("[]")
    assert set(tiny.evaluate(tmp_path / "val.json", tmp_path / "found.json").values()) == {0.0}
    assert np.isfinite(list(numbers.values())).all()


def test_mistakes_of_the_user(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VISDET_NUCLEI", str(tmp_path))
    for arguments, message in (([], "configs/README.md"), (["--families", "foo"], "foo")):
        with pytest.raises(SystemExit) as stopped:
            tiny.main(arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
