"""The set-up: one clear line where it can't go on, nothing where it is done; and the build of mmcv's operators."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from toolbox import ROOT, load_tool

build_mmcv = load_tool("build_mmcv")


@pytest.fixture
def project(tmp_path) -> Path:
    """What tools/setup.sh reads, in a folder without .venv."""
    folder = tmp_path / "project"
    (folder / "tools").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "tools/setup.sh", "tools/constraints.txt", "tools/build_mmcv.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def setup(project: Path, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", str(project / "tools" / "setup.sh")]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHON": "", **environment})


def write_program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def programs(folder: Path, *names: str) -> str:
    """A folder that holds these programs alone, for PATH."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name))
    return str(folder)


def test_no_python(project, tmp_path):
    path = programs(tmp_path / "bin", "bash", "cat", "cksum", "dirname")
    write_program(tmp_path / "bin" / "python3", "#!/bin/sh\nexit 1\n")  # an older one
    done = setup(project, PATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("[setup] error: no Python 3.11 to 3.13 on PATH; ")
    assert done.stderr.count("\n") == 1


def test_python_that_does_not_suit(project):
    done = setup(project, PYTHON="/no/such/python")
    assert done.returncode == 2
    assert done.stderr.startswith("[setup] error: PYTHON=/no/such/python is no Python 3.11 to 3.13; ")


def test_no_network(project, tmp_path):
    (project / ".venv" / "bin").mkdir(parents=True)
    error = "ERROR: Could not find a version that satisfies the requirement torch (from versions: none)"
    pip = f'#!/bin/sh\ncase "$*" in *install*) echo "{error}"; exit 1;; esac\n'
    write_program(project / ".venv" / "bin" / "python", pip)
    done = setup(project)
    assert done.returncode == 2
    assert done.stderr.startswith("[setup] error: pip can't reach the package index; ")
    assert done.stderr.count("\n") == 1
    assert not (project / ".venv" / "ready").exists()


def test_once_done_it_ends_at_once_until_something_changes(project):
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    write_program(python, '#!/bin/sh\necho "$@" >>"$(dirname "$0")/calls"\n')
    calls = python.with_name("calls")
    first = setup(project)
    assert first.returncode == 0, first.stderr
    assert ".venv is ready" in first.stdout
    asked = calls.read_text()
    assert "tools/build_mmcv.py" in asked
    assert (
        asked.index("torch") < asked.index("onedl-mmdetection") < asked.index("build_mmcv") < asked.index("onedl,dev")
    )
    again = setup(project)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert calls.read_text() == asked
    with (project / "tools" / "constraints.txt").open("a") as file:
        file.write("# another version\n")
    assert ".venv is ready" in setup(project).stdout


def test_no_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SystemExit, match=r"no C\+\+ compiler found; install g\+\+"):
        build_mmcv.compiler_with_precompiled_header(tmp_path / "compiler")


def test_cache_is_keyed_by_what_the_operators_depend_on(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("VISDET_ASSIGNERS_CACHE", str(tmp_path))
    folder = build_mmcv.cache_folder()
    assert folder.parent == tmp_path
    for part in (build_mmcv.MMCV_VERSION, torch.__version__, "cp3", os.uname().machine):
        assert part in folder.name


@pytest.mark.parametrize(
    ("name", "holds"),
    [("mmcv/_ext.cpython-311-x86_64-linux-gnu.so", True), ("mmcv/ops/nms.py", False)],
)
def test_light_wheels_are_told_from_full_ones(name, holds, tmp_path):
    wheel = tmp_path / "onedl_mmcv-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(name, "")
    assert build_mmcv.holds_operators(wheel) == holds


def test_header_is_precompiled_once_and_with_the_flags_of_the_sources(tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    gcc = f"""#!/bin/sh
[ "$1" = --version ] && echo "Copyright Free Software Foundation" && exit
echo "$*" >>{calls}
while [ $# -gt 0 ]; do [ "$1" = -o ] && touch "$2"; shift; done
"""
    monkeypatch.setenv("CXX", str(write_program(tmp_path / "g++", gcc)))
    folder = tmp_path / "compiler"
    wrapper = build_mmcv.compiler_with_precompiled_header(folder)
    for name in ("a", "b"):
        flags = ["-MMD", "-MF", f"{name}.d", "-O2", "-I/some where", "-c", f"{name}.cpp", "-o", f"{tmp_path}/{name}.o"]
        subprocess.run([wrapper, *flags], check=True)
    subprocess.run([wrapper, "-shared", "a.o", "-o", f"{tmp_path}/lib.so"], check=True)
    header = f"{folder}/precompiled.h"
    precompile, *compile_, link = calls.read_text().splitlines()
    assert precompile == f"-O2 -I/some where -x c++-header {header} -o {header}.tmp"
    assert Path(f"{header}.gch").exists()
    assert compile_ == [
        f"-include {header} -MMD -MF {name}.d -O2 -I/some where -c {name}.cpp -o {tmp_path}/{name}.o" for name in "ab"
    ]
    assert link == f"-shared a.o -o {tmp_path}/lib.so"
