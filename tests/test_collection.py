"""The tests stand alone: no module needs another one's tests, and all collect in a clone without the real data."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from toolbox import ROOT

MODULES = sorted((ROOT / "tests").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """All dotted names that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or ''}.{alias.name}" for alias in node.names} | {node.module or ""}
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            names |= {
                part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
    return names


def test_no_test_module_is_imported():
    """What two of them share lies in a plain module: an import would collect the other's tests and needs its data."""
    tests = {module.stem for module in MODULES if module.stem.startswith("test_")}
    assert len(tests) > 50
    found = {path: names for path in MODULES if (names := {n for n in imported(path) if tests & set(n.split("."))})}
    assert not found


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout of git: there is no HEAD to clone")
@pytest.mark.slow(reason="collects everything again")
def test_a_clone_elsewhere_collects_without_the_data(tmp_path):
    clone = tmp_path / "folder" / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VISDET_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=clone, env={**kept, "PYTHONPATH": str(clone)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert int(re.search(r"^(\d+) tests collected", done.stdout, re.MULTILINE)[1]) > 5_000
    assert "tests/real/test_training.py::test_a_training[" in done.stdout  # skipped later, and with a reason
