"""Metadata of the package, and the files that `mim` looks for inside it: configs/, tools/ and model-index.yml."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent.resolve()
MIM_FILES = ("configs", "tools", "model-index.yml")


class BuildPyWithMim(build_py):
    """Put the files of mim into ``visdet_assigners/.mim``: copies in a wheel, links in an editable installation."""

    def run(self):
        super().run()
        if self.editable_mode:
            mim = HERE / "visdet_assigners" / ".mim"
        else:
            mim = Path(self.build_lib) / "visdet_assigners" / ".mim"
        shutil.rmtree(mim, ignore_errors=True)  # a folder of an earlier build may hold files that are gone by now
        mim.mkdir(parents=True)
        for name in MIM_FILES:
            source, target = HERE / name, mim / name
            if self.editable_mode:
                target.symlink_to(Path("..", "..", name), target_is_directory=source.is_dir())
            elif source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)


def read_version():
    """Return ``__version__`` without importing the package, which would need torch."""
    text = (HERE / "visdet_assigners" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)[1]


URL = ""
"""Where the repository can be read, as "https://github.com/OWNER/visdet_assigners"; the package index links it."""


def read_description(url=URL):
    """Return the README for a package index, where the files that its links and pictures name don't lie beside it.

    With a ``url`` they become absolute.  Without one, pictures are left out, and of links the text stays.
    """
    text = (HERE / "README.md").read_text(encoding="utf-8")
    link = r"\[([^\[\]]*)\]\((?!https?://|mailto:)([^()\s]+)\)"  # [text](path#section), but for addresses
    if url:
        text = re.sub("!" + link, rf"![\1]({url}/raw/main/\2)", text)
        text = re.sub(
            link, lambda found: f"[{found[1]}]({url}{'' if found[2][0] == '#' else '/blob/main/'}{found[2]})", text
        )
        return text
    text = re.sub(rf"^!{link}\n\n?", "", text, flags=re.MULTILINE)
    return re.sub(link, r"\1", text)


setup(
    name="visdet_assigners",
    version=read_version(),
    description="Label assigners for mmdet 3.x: functions over tensors, and thin classes that plug into any config",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    author="The visdet_assigners authors",
    url=URL or None,
    license="Apache-2.0",
    keywords="object detection, label assignment, mmdet, ATSS, SimOTA, Hungarian matching",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=["visdet_assigners", "visdet_assigners.*"]),
    package_data={"visdet_assigners": ["py.typed"], "visdet_assigners.observe": ["*.html"]},
    entry_points={"console_scripts": ["visdet-assigners = visdet_assigners.command_line:main"]},
    python_requires=">=3.10",
    # No mm package among them: its two lines install the same import names, so requiring one would overwrite the other.
    install_requires=["torch>=2.0", "numpy", "scipy>=1.9"],
    extras_require={
        "onedl": ["onedl-mmengine>=0.10.8", "onedl-mmcv>=2.3", "onedl-mmdetection>=3.4"],
        "openmmlab": ["mmengine>=0.10,<1", "mmcv>=2.0,<2.2", "mmdet>=3.0,<4"],
        "device": ["torch-linear-assignment>=0.1"],
        "dev": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "scikit-learn",
            "pytest-benchmark",
            "ruff",
            "mypy",
            "import-linter",
        ],
    },
    cmdclass={"build_py": BuildPyWithMim},
    zip_safe=False,
)
