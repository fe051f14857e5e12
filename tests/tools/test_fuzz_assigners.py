"""Fuzzing by command: the table, a difference that is found and shrunk, and mistakes of the user."""

import pytest

from toolbox import load_tool
from visdet_assigners.assigners import scale_range

fuzzing = load_tool("fuzz_assigners")


def test_a_table_of_examples_and_argued_differences(capsys):
    assert fuzzing.main(["--assigner", "ScaleRangeAssigner", "PointAssigner", "--examples", "60"]) == 0
    told = capsys.readouterr()
    assert "ScaleRangeAssigner: 60 examples" in told.err
    rows = {line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:5]]
            for line in told.out.splitlines() if "│" in line}  # fmt: skip
    assert rows["ScaleRangeAssigner"][:2] == rows["PointAssigner"][:2] == ["60", "0"]
    assert "fewer points than wanted" in rows["PointAssigner"][2]


@pytest.mark.slow(reason="shrinks by many calls")
def test_what_differs_is_shrunk_and_shown(capsys, monkeypatch):
    monkeypatch.setattr(scale_range, "box_area", lambda boxes: -(boxes[:, 2] - boxes[:, 0]))  # the widest wins
    assert fuzzing.main(["--assigner", "ScaleRangeAssigner", "--examples", "300"]) == 1
    told = capsys.readouterr().out
    assert "1, shrunk" in told
    assert "Trial(name='ScaleRangeAssigner'" in told


@pytest.mark.parametrize("argv", [["--examples", "0"], ["--assigner", "NoAssigner"], ["--examples", "many"]])
def test_mistakes_end_in_one_line(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        fuzzing.main(argv)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
