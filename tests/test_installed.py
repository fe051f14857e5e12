"""The wheel as it is installed elsewhere, without the checkout: types, commands, tools and configs are in it."""

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from toolbox import ROOT, load_tool

SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "model-index.yml")
STOCK = """
_base_ = "mmdet::atss/atss_r50_fpn_1x_coco.py"
shapes = dict(
    data_root="shapes/", metainfo=dict(classes=("circle", "rectangle", "triangle", "star")),
    ann_file="annotations/train.json", data_prefix=dict(img="images/train/"),
)
train_dataloader = dict(dataset=shapes)
model = dict(bbox_head=dict(num_classes=4))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment that has the wheel, and of this one the other packages."""
    source, wheels, environment = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "environment"))
    for part in SOURCES:
        shutil.copy(ROOT / part, source)
    for part in ("visdet_assigners", "configs", "tools"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", ".mim"))
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Packages alone are found through it: the links of editable installations, as of this checkout, are not.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return environment / "bin" / "python"


def run(python: Path, folder: Path, *arguments) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    return subprocess.run([python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def mim(python: Path) -> Path:
    (folder,) = python.parent.parent.glob("lib/python*/site-packages/visdet_assigners/.mim")
    return folder


def test_it_is_the_wheel(python, tmp_path):
    found = run(python, tmp_path, "-c", "import visdet_assigners; print(visdet_assigners.__file__)")
    assert Path(found.stdout.strip()) == mim(python).parent / "__init__.py"
    entries = next(mim(python).parent.parent.glob("visdet_assigners-*.dist-info/entry_points.txt")).read_text()
    assert "visdet-assigners = visdet_assigners.command_line:main" in entries


def test_types_of_the_public_names(python, tmp_path):
    """`mypy --strict` on a file of a user: it passes, and finds what is wrong."""
    text = Path(__file__).with_name("typed_user.py").read_text()

    def check(text: str) -> subprocess.CompletedProcess:
        (tmp_path / "user.py").write_text(text)
        command = ["-m", "mypy", "--strict", "--python-executable", python, "user.py"]
        return run(Path(sys.executable), tmp_path, *command)

    assert check(text).stdout.startswith("Success")
    mistakes = {
        "topk=9)": 'topk="nine")',
        "number: int": "number: str",
        "Assignment = task_aligned": "int = task_aligned",
        "    IGNORED,\n": "    IGNORE,\n",
    }
    for line, mistake in mistakes.items():
        assert line in text
        text = text.replace(line, mistake, 1)
    found = check(text).stdout
    for expected in ('"topk"', 'variable has type "str"', 'variable has type "int"', 'has no attribute "IGNORE"'):
        assert expected in found


def test_commands_and_tools_without_the_checkout(python, tmp_path):
    """The list, a report on a stock config of mmdet, and tools and configs where `mim` looks for them."""
    listed = run(python, tmp_path, "-m", "visdet_assigners", "--help")
    assert "report" in listed.stdout
    load_tool("make_shapes").main([str(tmp_path / "shapes"), "--train", "3", "--val", "1"])
    (tmp_path / "stock.py").write_text(STOCK)
    reported = run(python, tmp_path, "-m", "visdet_assigners", "report", "stock.py", "--pictures", "1")
    assert reported.returncode == 0, reported.stderr
    (section,) = json.loads((tmp_path / "work_dirs" / "stock" / "report.json").read_text())["assigners"].values()
    assert section["objects"] > 0
    config = mim(python) / "configs" / "atss" / "atss_r18_fpn_12e_shapes.py"
    checked = run(
        python, tmp_path, mim(python) / "tools" / "check_data.py", config, "--cfg-options", "data_root=shapes"
    )
    assert checked.returncode == 0, checked.stderr
    assert "train: " in checked.stdout
