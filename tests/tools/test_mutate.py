"""Mutation testing of a small module, of which every mutant's fate is known."""

import json
import subprocess
import sys

import pytest

from toolbox import ROOT

SOURCE = '''"""A module."""

from functools import cache, wraps

LIMIT = 3


def above(value, limit=LIMIT, *, strict=True):
    """Whether a value is above a limit."""
    return value > limit if strict else value >= limit


@cache
@wraps(above)
def above_once(value, limit=LIMIT):
    """The same, decorated."""
    return above(value, limit)


def itself(value):
    """The same number."""
    return value * 1


def never(value):
    """Not called by any test."""
    return -value
'''
TESTS = """import inspect

from sized import LIMIT, above, above_once, itself


def test_above():
    assert above(4)
    assert not above(3)
    assert above(4, strict=False)


def test_defaults():
    assert inspect.signature(above_once.__wrapped__, follow_wrapped=False).parameters["limit"].default == 3
    assert above_once(4)
    assert not above_once(3)


def test_itself():
    assert itself(4) == 4


def test_that_fails():
    assert above(0)
"""


@pytest.mark.slow(reason="a run of pytest for each change")
def test_every_change_of_a_small_module_is_judged(tmp_path):
    (tmp_path / "sized.py").write_text(SOURCE)
    (tmp_path / "test_sized.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text("import sys, pathlib; sys.path.insert(0, str(pathlib.Path(__file__).parent))")
    known = tmp_path / "known.json"
    entry = {"file": "sized.py", "line": "return value * 1", "changes": ["Mult -> Div"], "why": "it is the same"}
    known.write_text(json.dumps([entry]))
    command = [sys.executable, str(ROOT / "tools/mutate.py"), "sized.py", "--tests", "test_sized.py"]
    options = ["--known", str(known), "--json", "result.json", "--reached", "reached.json"]
    run = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    alive = {(entry["line"], entry["change"]): entry["verdict"] for entry in result["survivors"]}
    assert alive == {
        ("return value * 1", "Mult -> Div"): "equal",
        ("return value > limit if strict else value >= limit", "GtE -> Gt"): "survived",
        ("return -value", "-value -> value"): "not reached",
    }
    assert result["counts"]["sized.py"] == {"equal": 1, "killed": 7, "survived": 1, "not reached": 1}
    assert "| sized.py | 10 | 7 | 1 | 2 | 70.0% |" in run.stdout

    # Another test kills one of the survivors, and only these are changed again.
    with (tmp_path / "test_sized.py").open("a") as file:
        file.write("\n\ndef test_never():\n    import sized\n\n    assert sized.never(1) == -1\n")
    again = [*command, *options, "--again", "result.json"]
    run = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "| sized.py | 10 | 8 | 1 | 1 | 80.0% |" in run.stdout, run.stderr
    (tmp_path / "sized.py").write_text(SOURCE.replace(">=", "<"))
    run = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode != 0
    assert "result.json is of other sources: 1 changes are not there" in run.stderr
