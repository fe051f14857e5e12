"""The front command: it lists the commands without loading torch, and each of them is one."""

import importlib
import signal
import subprocess
import sys

import pytest

from visdet_assigners import command_line
from visdet_assigners.commands.errors import UntilInterrupted, user_errors


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


@pytest.mark.parametrize("name", command_line.modules())
def test_the_options_of_a_command_need_no_torch(name):
    answer = run("-X", "importtime", "-m", "visdet_assigners", name, "--help")
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"usage: visdet-assigners {name} ")
    for heavy in ("torch", "numpy", "mmengine", "visdet_assigners.assigners"):
        assert f" {heavy}\n" not in answer.stderr


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


def test_ctrl_c_ends_with_the_item_at_work():
    before = signal.getsignal(signal.SIGINT)
    items, seen = UntilInterrupted(range(10)), []
    for item in items:
        if item == 3:
            signal.raise_signal(signal.SIGINT)
        seen.append(item)
    assert seen == [0, 1, 2, 3]
    assert (items.done, items.interrupted) == (4, True)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        for item in UntilInterrupted(range(10)):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            seen.append(item)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen == []
    assert signal.getsignal(signal.SIGINT) is before


def test_without_ctrl_c_nothing_is_left_out():
    items = UntilInterrupted("abc")
    assert list(items) == ["a", "b", "c"]
    assert (items.done, items.interrupted) == (3, False)
