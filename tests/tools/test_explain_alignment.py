"""The tool that explains task-aligned assignment prints and draws its numbers."""

import pytest

from toolbox import load_tool

explain = load_tool("explain_alignment")


def test_the_example(capsys, tmp_path):
    figure = tmp_path / "targets.png"
    explain.main(["--out", str(figure)])
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line][3:] for line in lines] == [
        ["0.000061", "-"],
        ["0.070589", "0.5303"],
        ["0.022145", "-"],
        ["0.113145", "0.8500"],
    ]
    assert figure.stat().st_size > 10000


@pytest.mark.parametrize("wrong", [["--candidates", ".5"], ["--candidates", "2,.5"], ["--topk", "0"]])
def test_mistakes_are_told_in_one_line(wrong, capsys):
    with pytest.raises(SystemExit) as exit_:
        explain.main(wrong)
    assert exit_.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
