"""Nothing of ours runs what a file says: a lint over the package, the tools, the configs and setup.py."""

import ast
from pathlib import Path

import pytest

from toolbox import ROOT

CHECKED = [
    ROOT / "setup.py",
    *sorted(path for part in ("visdet_assigners", "tools", "configs") for path in (ROOT / part).rglob("*.py")),
]
FORBIDDEN = {
    "eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen", "runpy.run_path", "runpy.run_module",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.load", "_pickle.loads", "dill.load", "dill.loads",
    "cloudpickle.load", "cloudpickle.loads", "joblib.load", "marshal.load", "marshal.loads", "shelve.open",
    "pandas.read_pickle", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all",
    "mmengine.load", "mmengine.fileio.load", "mmcv.load", "torch.hub.load", "subprocess.getoutput",
    "subprocess.getstatusoutput",
}  # fmt: skip
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}
ONLY_WEIGHTS = {"torch.load", "torch.hub.load_state_dict_from_url", "torch.utils.model_zoo.load_url"}


def faults(source: str) -> list[str]:
    """Every call of a source that runs what a file says, as ``LINE: NAME``."""
    tree = ast.parse(source)
    known = {}  # what a name of the file stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                known[one.asname or one.name.split(".")[0]] = one.name if one.asname else one.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            known.update({one.asname or one.name: f"{node.module}.{one.name}" for one in node.names})

    def dotted(node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            return f"{dotted(node.value)}.{node.attr}"
        return known.get(node.id, node.id) if isinstance(node, ast.Name) else "?"

    def is_true(call: ast.Call, name: str) -> bool:
        return any(one.arg == name and getattr(one.value, "value", None) is True for one in call.keywords)

    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = dotted(call.func)
        loaders = [dotted(one) for one in [*call.args[1:], *(key.value for key in call.keywords)]]
        shell = any(one.arg == "shell" and getattr(one.value, "value", True) is not False for one in call.keywords)
        if (
            name in FORBIDDEN
            or (name in ("yaml.load", "yaml.load_all") and not SAFE_LOADERS & set(loaders))
            or (name in ONLY_WEIGHTS and not is_true(call, "weights_only"))
            or (name == "numpy.load" and is_true(call, "allow_pickle"))
            or shell
        ):
            found.append(f"{call.lineno}: {name}")
    return found


def test_ours():
    assert len(CHECKED) > 150
    found = [f"{path.relative_to(ROOT)}:{fault}" for path in CHECKED for fault in faults(path.read_text())]
    assert not found


def test_shell_scripts_run_no_text():
    scripts = sorted(ROOT.glob("tools/*.sh"))
    assert scripts
    for script in scripts:
        words = script.read_text().split()
        assert not {"eval", "source"} & set(words), script


CAUGHT = """\
eval("1")
exec("a = 1")
import builtins; builtins.eval("1")
import os; os.system("ls")
import os as o; o.popen("ls")
from os import system; system("ls")
import pickle; pickle.load(file)
import pickle as p; p.loads(content)
from pickle import loads as read; read(content)
from pickle import Unpickler; Unpickler(file).load()
import marshal; marshal.loads(content)
import joblib; joblib.load(path)
import yaml; yaml.load(text)
import yaml; yaml.load(text, yaml.Loader)
import yaml; yaml.load(text, Loader=yaml.FullLoader)
import yaml; yaml.unsafe_load(text)
from yaml import load, UnsafeLoader; load(text, Loader=UnsafeLoader)
import subprocess; subprocess.run("ls", shell=True)
import subprocess; subprocess.Popen("ls", shell=flag)
from subprocess import check_output as call; call("ls", shell=1)
import torch; torch.load(path)
import torch; torch.load(path, weights_only=False)
import torch; torch.load(path, map_location="cpu", weights_only=flag)
from torch import load; load(path)
import torch.hub; torch.hub.load_state_dict_from_url(url)
import torch; torch.hub.load("a/b", "c")
import numpy as np; np.load(path, allow_pickle=True)
import mmengine; mmengine.load(path)
from mmengine.fileio import load; load(path)
import runpy; runpy.run_path(path)
""".splitlines()
PASSED = """\
model.eval()
import torch; torch.load(path, weights_only=True)
import yaml; yaml.load(text, Loader=yaml.SafeLoader)
import yaml; yaml.safe_load(text)
from yaml import load, CSafeLoader; load(text, CSafeLoader)
import subprocess; subprocess.run(["ls"])
import subprocess; subprocess.run(["ls"], shell=False)
import json; json.load(file)
import numpy as np; np.load(path)
import pickle; pickle.dumps(1)
from mmengine.fileio import get; get(path)
load(path)
""".splitlines()


@pytest.mark.parametrize("line", CAUGHT)
def test_caught(line):
    assert len(faults(line)) == 1


@pytest.mark.parametrize("line", PASSED)
def test_passed(line):
    assert not faults(line)


def test_the_lint_names_the_line(tmp_path):
    assert faults("a = 1\n\nexec('b')\n") == ["3: exec"]


def test_all_python_files_are_looked_at():
    inside = {path for path in Path(ROOT).rglob("*.py") if not {".venv", "tests", "build", ".mim"} & set(path.parts)}
    assert {path.resolve() for path in inside if "work_dirs" not in path.parts} <= {path.resolve() for path in CHECKED}
