"""What is packed: the package alone, its version, and the files that `mim` looks for inside it."""

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = (
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "model-index.yml",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what is packed, so that packing leaves nothing behind in the repository."""
    folder = tmp_path_factory.mktemp("source")
    for part in PARTS:
        shutil.copy(ROOT / part, folder)
    skip = shutil.ignore_patterns("__pycache__", ".mim", "*.egg-info")
    for part in ("visdet_assigners", "configs", "tools", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    return folder


def backend(source: Path, call: str) -> None:
    """Call setuptools as pip does."""
    code = f"from setuptools import build_meta; build_meta.{call}"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def files_below(folder: Path) -> set[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path for path in found if not re.search(r"__pycache__|\.mim/", path)}


def test_wheel(source, tmp_path):
    old = source / "build" / "lib" / "visdet_assigners" / ".mim" / "configs" / "gone.py"
    old.parent.mkdir(parents=True)
    old.touch()
    backend(source, f"build_wheel({str(tmp_path)!r})")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"visdet_assigners"}
    mim = "visdet_assigners/.mim/"
    packed = {name.removeprefix(mim) for name in names if name.startswith(mim)}
    wanted = {"model-index.yml"}
    wanted |= {f"{part}/{file}" for part in ("configs", "tools") for file in files_below(source / part)}
    assert packed == wanted
    assert "visdet_assigners/functional/boxes.py" in names
    version = re.search(r'__version__ = "(.*)"', (ROOT / "visdet_assigners" / "__init__.py").read_text())[1]
    assert f"\nVersion: {version}\n" in metadata
    required = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert required == ["torch", "numpy", "scipy"]


def description(metadata: str) -> str:
    """What a package index shows of the README."""
    return email.message_from_string(metadata).get_payload()


def test_description_has_no_link_that_an_index_would_break(source, tmp_path):
    """Where no address is known, pictures are left out and links are their text."""
    backend(source, f"prepare_metadata_for_build_wheel({str(tmp_path)!r})")
    (file,) = tmp_path.glob("*.dist-info/METADATA")
    metadata = file.read_text(encoding="utf-8")
    text = description(metadata)
    assert "Home-page" not in metadata
    assert re.findall(r"\]\((?!https://)", text) == []
    assert "![" not in text
    assert "start with which assigner?." in text
    assert 'model = dict(train_cfg=dict(assigner=dict(type="visdet_assigners.ATSSAssigner")))' in text
    assert "https://github.com/open-mmlab/mmdetection" in text


def test_description_with_an_address_links_the_repository(source, tmp_path):
    url = "https://example.org/house/visdet_assigners"
    setup, plain = source / "setup.py", (source / "setup.py").read_text()
    setup.write_text(plain.replace('URL = ""', f'URL = "{url}"'))
    try:
        backend(source, f"prepare_metadata_for_build_wheel({str(tmp_path)!r})")
    finally:
        setup.write_text(plain)
    (file,) = tmp_path.glob("*.dist-info/METADATA")
    metadata = file.read_text(encoding="utf-8")
    text = description(metadata)
    assert f"Home-page: {url}\n" in metadata
    assert re.findall(r"\]\((?!https://)", text) == []
    pictures = re.findall(rf"!\[[^\]]*\]\({url}/raw/main/(\S+)\)", text)
    assert pictures == ["configs/atss/assignments.png", "tools/assignment_report.png"]
    pages = re.findall(rf"[^!]\[[^\]]*\]\({url}/blob/main/([^)#]+)", text)
    assert len(pages) > 30
    assert all((ROOT / page).exists() for page in [*pictures, *pages])
    assert f"]({url}#see-what-an-assigner-does)" in text


def test_source_distribution_holds_what_the_wheel_needs(source, tmp_path):
    backend(source, f"build_sdist({str(tmp_path)!r})")
    (sdist,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path)
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    for part in ("visdet_assigners", "configs", "tools"):
        assert files_below(unpacked / part) == files_below(source / part)
    for part in PARTS:
        assert (unpacked / part).is_file()


def test_editable_installation_links(source, tmp_path):
    backend(source, f"build_editable({str(tmp_path)!r})")
    mim = source / "visdet_assigners" / ".mim"
    for part in ("configs", "tools", "model-index.yml"):
        assert (mim / part).is_symlink()
        assert os.path.samefile(mim / part, source / part)
    backend(source, f"build_editable({str(tmp_path)!r})")  # again, over the links


def test_reading_the_version_imports_nothing(source):
    code = "import sys, runpy; sys.modules['torch'] = None; sys.argv = ['setup.py', '--version'];"
    code += "runpy.run_path('setup.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+", done.stdout.split()[-1])
