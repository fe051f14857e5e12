"""visdet as a home, in a stand-in (stand_ins/visdet): each way in, in an interpreter of its own."""

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.registry import Registry

import visdet_assigners as va
from visdet_assigners import registry
from visdet_assigners.importing import when_imported
from visdet_assigners.registry import Home

STAND_INS = Path(__file__).parent / "stand_ins"
ROOT = Path(__file__).parents[1]

WITHOUT_MMENGINE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mmengine", "mmcv", "mmdet"):
            raise ModuleNotFoundError(name, name=name.split(".")[0])
sys.meta_path.insert(0, Blocked())
"""

ORDERS = {
    "ours first, without mmengine": WITHOUT_MMENGINE + "import visdet_assigners\nimport visdet\n",
    "visdet first, without mmengine": WITHOUT_MMENGINE + "import visdet\nimport visdet_assigners\n",
    "visdet first, beside mmengine": "import mmengine.registry\nimport visdet\nimport visdet_assigners\n",
    "ours first, beside mmengine": "import visdet_assigners\nimport visdet.registry\n",
}

USE = """
import sys
from visdet.registry import TASK_UTILS
from visdet_assigners.registry import REGISTERED, is_ours

ASSIGNERS = [name for name in REGISTERED if name.endswith("Assigner")]
OWN = ["ATSSAssigner", "DynamicSoftLabelAssigner", "MaxIoUAssigner"]
lacking = [name for name in ASSIGNERS if name not in OWN]
assert len(lacking) >= 13
for name in lacking:
    assert TASK_UTILS.get(name) is REGISTERED[name], name
for name in OWN:
    assert not is_ours(TASK_UTILS.get(name)), name
for name in REGISTERED:
    assert TASK_UTILS.get("visdet_assigners." + name) is REGISTERED[name], name
assert "mmdet" not in sys.modules

hungarian = TASK_UTILS.build(dict(type="HungarianAssigner", match_costs=[dict(type="visdet_assigners.FocalLossCost")]))
assert is_ours(type(hungarian.match_costs[0]))
kind = dict(type="visdet.BboxOverlaps2D")
assigner = TASK_UTILS.build(dict(type="visdet_assigners.ATSSAssigner", topk=9, iou_calculator=kind))
assert type(assigner.iou_calculator) is TASK_UTILS.get("BboxOverlaps2D")
try:
    TASK_UTILS.build(dict(type="visdet_assigners.ATSSAssigner", topk=9, iou_calculator=dict(type="Unknown")))
except KeyError as error:
    assert "Unknown" in str(error)
else:
    raise AssertionError("built an unknown calculator")

import torch
from visdet.engine.structures import InstanceData
from visdet.models.heads import AnchorHead, ATSSHead

generator = torch.Generator().manual_seed(0)
corner = torch.rand(6, 2, generator=generator) * 80
boxes = torch.cat([corner, corner + 12 + torch.rand(6, 2, generator=generator) * 60], dim=1)
gt = InstanceData(bboxes=boxes, labels=torch.arange(6) % 3)
ignore = InstanceData(bboxes=torch.tensor([[90.0, 90.0, 127.0, 127.0]]))
levels = []
for stride in (8, 16, 32, 64):
    centers = torch.cartesian_prod(*[torch.arange(0.0, 128, stride)] * 2)
    levels.append(torch.cat([centers - 2 * stride, centers + 2 * stride], dim=1))
priors, sizes = torch.cat(levels), [len(level) for level in levels]
MAX_IOU = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1)
ATSS = dict(type="ATSSAssigner", topk=9)
HEADS = [(AnchorHead, MAX_IOU, False), (AnchorHead, MAX_IOU, True), (ATSSHead, ATSS, False)]

def losses(prefix=""):
    made = [head({**config, "type": prefix + config["type"]}, added) for head, config, added in HEADS]
    return [head.loss(priors, sizes, gt, ignore) for head in made]

own = losses()
assert losses("visdet_assigners.") == own
assert all(positives > 6 for _, positives, _ in own)
for config in (
    dict(type="ScaleRangeAssigner", regress_ranges=[(-1, 32), (32, 64), (64, 128), (128, 256)]),
    dict(type="CenterRegionAssigner", pos_scale=0.5, neg_scale=0.5),
    dict(type="visdet_assigners.ATSSAssigner", topk=9, ignore_iof_thr=0.5),
    dict(type="visdet_assigners.MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4),
):  # what ATSSHead and GFLHead may hold
    loss, positives, negatives = ATSSHead(config).loss(priors, sizes, gt, ignore)
    assert positives > 0, config
    assert positives + negatives < len(priors) or "ignore_iof_thr" not in config

import visdet_assigners.dropin as dropin
assert "mmdet" not in sys.modules
assert all(is_ours(TASK_UTILS.get(name)) for name in [*OWN, "BboxOverlaps2D"])
assert losses() == own
assert is_ours(type(AnchorHead(MAX_IOU).assigner))
assert set(dropin.restore()) == {*OWN, "BboxOverlaps2D"}
assert not any(is_ours(TASK_UTILS.get(name)) for name in OWN)
assert losses() == own
assert set(dropin.enable()) == {*OWN, "BboxOverlaps2D"} and dropin.enable() == []
import visdet.models.task_modules.assigners as theirs
assert isinstance(AnchorHead(MAX_IOU).assigner, theirs.MaxIoUAssigner) is False  # no ABC, as visdet's
"""


def python(code: str, *more: Path) -> str:
    """Run code in a fresh interpreter that finds the stand-in, and return what it prints."""
    path = os.pathsep.join(map(str, [*more, STAND_INS, ROOT]))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("order", ORDERS)
def test_names_prefix_dropin_and_heads(order):
    printed = python(ORDERS[order] + USE)
    assert "overwritten" not in printed
    assert "belongs to" not in printed
    told = "visdet_assigners takes the place of visdet's ATSSAssigner, BboxOverlaps2D, DynamicSoftLabelAssigner, MaxIoU"
    assert printed.count(told) == 2


def test_visdet_is_not_imported_for_it():
    python(
        """
        import sys, visdet_assigners
        assert "visdet" not in sys.modules
        assert [home.package for home in visdet_assigners.registry.HOMES if home.child is not None] == ["mmdet"]
        """
    )


def test_the_dropin_comes_first():
    """It imports the home that there is; where mmdet is, visdet's classes are replaced as soon as it is imported."""
    python(
        WITHOUT_MMENGINE
        + """
import visdet_assigners.dropin as dropin
from visdet.registry import TASK_UTILS
assert TASK_UTILS.get("ATSSAssigner").__module__.startswith("visdet_assigners.")
"""
    )
    printed = python(
        """
        import visdet_assigners.dropin as dropin
        import sys
        assert "mmdet" in sys.modules and "visdet" not in sys.modules
        import visdet
        from visdet.registry import TASK_UTILS
        assert TASK_UTILS.get("ATSSAssigner").__module__.startswith("visdet_assigners.")
        dropin.restore()
        assert TASK_UTILS.get("ATSSAssigner").__module__.startswith("visdet.")
        """
    )
    assert printed.count("takes the place of") == 2


def test_without_any_home_the_dropin_says_what_is_missing(tmp_path):
    code = WITHOUT_MMENGINE.replace('"mmengine",', '"mmengine", "visdet",') + "import visdet_assigners.dropin\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "ModuleNotFoundError: mmdet" in done.stderr


def test_a_visdet_without_these_registries_is_told_and_left_alone(tmp_path):
    package = tmp_path / "visdet" / "models" / "task_modules"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    printed = python("import visdet_assigners, visdet.models.task_modules", tmp_path)
    assert "visdet has no registry that we know (No module named 'visdet.engine')" in printed


def test_a_third_home_is_one_entry(monkeypatch):
    root = Registry("task util", scope="third")
    for name, module in {
        "third.registry": SimpleNamespace(Registry=Registry, TASK_UTILS=root),
        "third.assigners": SimpleNamespace(),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    third = Home("third", "third.registry", "third.registry", "third.assigners")
    monkeypatch.setattr(registry, "HOMES", (*registry.HOMES, third))
    third.open()
    assert root.get("SimOTAAssigner") is root.get("visdet_assigners.SimOTAAssigner") is va.SimOTAAssigner
    monkeypatch.delitem(registry.REGISTERED, "SimOTAAssigner")
    del root.module_dict["SimOTAAssigner"]
    registry.register(va.SimOTAAssigner)
    assert root.get("SimOTAAssigner") is va.SimOTAAssigner

    class Calculator:
        pass

    Calculator.__module__ = "third.assigners"
    root.register_module(name="ThirdCalculator", module=Calculator)
    assert type(registry.build({"type": "third.ThirdCalculator"})) is Calculator


# -------------------------------------------------------------------------------------------- waiting for an import


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that can be imported, and is forgotten afterwards."""
    (tmp_path / "awaited").mkdir()
    (tmp_path / "awaited" / "__init__.py").write_text("")
    (tmp_path / "awaited" / "part.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    yield tmp_path / "awaited"
    assert sys.meta_path == before
    for name in [name for name in sys.modules if name.split(".")[0] == "awaited"]:
        del sys.modules[name]


def test_told_once_after_the_import(package):
    told = []
    when_imported("awaited.part", lambda: told.append(sys.modules["awaited.part"].VALUE))
    when_imported("awaited.part", lambda: told.append("second"))
    whole = importlib.import_module("awaited")
    assert told == []
    part = importlib.import_module("awaited.part")
    assert sorted(told, key=str) == [3, "second"]
    assert type(part.__loader__) is type(part.__spec__.loader) is type(whole.__loader__)
    when_imported("awaited.part", lambda: told.append("now"))
    assert told[-1] == "now"


def test_an_import_that_fails_may_be_tried_again(package):
    told = []
    (package / "part.py").write_text("raise RuntimeError('not yet')\n")
    when_imported("awaited.part", lambda: told.append("there"))
    with pytest.raises(RuntimeError, match="not yet"):
        importlib.import_module("awaited.part")
    assert told == []
    (package / "part.py").write_text("VALUE = 'longer than before'\n")
    importlib.import_module("awaited.part")
    assert told == ["there"]


def test_a_module_that_is_missing_stays_awaited(package):
    told = []
    when_imported("awaited.other", lambda: told.append("there"))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("awaited.other")
    (package / "other.py").write_text("")
    importlib.invalidate_caches()
    importlib.import_module("awaited.other")
    assert told == ["there"]
