"""Evaluations of several trainings in one table, at the iteration they were made."""

import json

import pytest

from toolbox import load_tool

summarize_runs = load_tool("summarize_runs")


def write_log(folder, values, stamp="20260101_000000"):
    """A log as mmengine writes it: losses with their iteration; evaluations count epochs, or nothing."""
    path = folder / stamp / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    lines = []
    for epoch, (iteration, value) in enumerate(values, start=1):
        lines += [{"loss": 1.0, "step": iteration - 5}, {"loss": 1.0, "step": iteration}]
        lines += [{"coco/bbox_mAP": value, "step": epoch}]
    path.write_text("\n".join(json.dumps(line) for line in lines))


def test_table_and_curves(tmp_path, capsys):
    write_log(tmp_path / "a0", [(10, 0.5), (20, 0.6)])
    write_log(tmp_path / "a0", [(10, 0.1), (20, 0.2)], stamp="20260102_000000")  # the newest counts
    write_log(tmp_path / "a1", [(10, 0.3), (20, 0.5)])
    write_log(tmp_path / "b0", [(20, 0.25)])
    pictures = [tmp_path / "curves.png", tmp_path / "last.png"]
    a, b = (str(tmp_path / name) for name in ("a0", "a1"))
    options = ["--out", str(pictures[0]), "--last", str(pictures[1])]
    summarize_runs.main(["--run", "A", a, b, "--run", "B", str(tmp_path / "b0"), *options])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "| | 10 | 20 |",
        "| --- | ---: | ---: |",
        "| A | 20.0 (10.0 / 30.0) | 35.0 (20.0 / 50.0) |",
        "| B |  | 25.0 |",
    ]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_a_resumed_training_is_one_curve(tmp_path):
    """What was evaluated again after the resume counts as it was then."""
    write_log(tmp_path, [(10, 0.1), (20, 0.2), (30, 0.3)])
    write_log(tmp_path, [(30, 0.35), (40, 0.4)], stamp="20260102_000000")
    write_log(tmp_path, [(50, 0.5)], stamp="20260103_000000")
    curve = summarize_runs.read_curve(str(tmp_path), "coco/bbox_mAP")
    assert curve == {10: 0.1, 20: 0.2, 30: 0.35, 40: 0.4, 50: 0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "A", "nowhere"], "nowhere holds no log"),
        (["--run", "A"], "names no work folder"),
        (["--run", "A", "a0", "--metric", "coco/segm_mAP"], "has no coco/segm_mAP"),
        ([], "--run"),
    ],
)
def test_mistakes_of_the_user(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "a0", [(10, 0.5)])
    with pytest.raises(SystemExit) as stopped:
        summarize_runs.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
