"""What the tests of tools that draw and count share: drawn pictures, and a folder to write into."""

import pytest

from toolbox import load_tool


@pytest.fixture
def empty_folder(monkeypatch, tmp_path):
    """Work in an empty folder, with no data set named by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISDET_SHAPES", raising=False)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> str:
    """6 pictures to train on and 12 to validate; some hold nothing."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    load_tool("make_shapes").main([str(folder), "--train", "6", "--val", "12", "--size", "160", "120"])
    return str(folder)
