"""The front command: it lists the commands without loading torch, and each of them is one."""

import importlib
import subprocess
import sys

import pytest

from visdet_assigners import command_line
from visdet_assigners.commands.errors import user_errors


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_the_list_needs_no_torch(arguments):
    answer = run("-X", "importtime", "-m", "visdet_assigners", *arguments)
    assert answer.returncode == 0
    assert "torch" not in answer.stderr
    assert "numpy" not in answer.stderr
    for name in command_line.modules():
        assert f"  {name} " in answer.stdout


def test_an_unknown_command_is_refused_in_one_line():
    answer = run("-X", "importtime", "-m", "visdet_assigners", "reprot")
    assert answer.returncode == 2
    assert "torch" not in answer.stderr
    assert "visdet-assigners: error: there is no command reprot; visdet-assigners --help lists them" in answer.stderr


def test_importing_the_package_from_another_program_is_no_command():
    answer = run("-c", "import visdet_assigners; print(visdet_assigners.ATSSAssigner.__name__)", "--help")
    assert answer.stdout == "ATSSAssigner\n"


@pytest.mark.parametrize(("name", "module"), command_line.modules().items())
def test_each_command_is_there(name, module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["visdet-assigners"])
    with pytest.raises(SystemExit) as end:
        command_line.main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: visdet-assigners {name} " in capsys.readouterr().out
    assert callable(importlib.import_module(f"visdet_assigners.commands.{module}").main)


def test_mistakes_name_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["visdet-assigners"])
    with pytest.raises(SystemExit) as end:
        command_line.main(["browse", "missing.py"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(
        "visdet-assigners browse: error: the config file missing.py doesn't exist"
    )


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def interrupted():
        with user_errors():
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["visdet-assigners"])
    monkeypatch.setattr("visdet_assigners.commands.summarize.main", interrupted)
    with pytest.raises(SystemExit) as end:
        command_line.main(["summarize"])
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == "visdet-assigners summarize: interrupted"
