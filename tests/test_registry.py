"""Every way into mmdet, each in an interpreter of its own: what is imported first decides what names mean."""

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ATSS = "mmdet::atss/atss_r50_fpn_1x_coco.py"
ATSS_FILE = Path(importlib.util.find_spec("mmdet").origin).parent / ".mim/configs/atss/atss_r50_fpn_1x_coco.py"
BUILD = """
import warnings; warnings.filterwarnings("ignore")
from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, init_default_scope
def assigner_of(cfg):
    init_default_scope("mmdet")
    cfg.model.backbone.init_cfg = None
    return MODELS.build(cfg.model).bbox_head.assigner
def origin(thing):
    return type(thing).__module__.split(".")[0]
"""


def python(code: str, *, cwd: Path | None = None) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_scope_prefix_in_an_inherited_config_and_through_options():
    """Nothing imports the package here but the prefix."""
    python(
        BUILD
        + f"""
cfg = Config.fromfile("{ATSS_FILE}")
assert origin(assigner_of(cfg)) == "mmdet"
cfg = Config.fromfile("{ATSS_FILE}")
cfg.merge_from_dict({{"model.train_cfg.assigner.type": "visdet_assigners.ATSSAssigner"}})  # as --cfg-options does
assigner = assigner_of(cfg)
assert origin(assigner) == origin(assigner.iou_calculator) == "visdet_assigners"
"""
    )


def test_inherited_config_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        f"_base_ = '{ATSS}'\nmodel = dict(train_cfg=dict(assigner=dict(type='visdet_assigners.ATSSAssigner')))\n"
    )
    python(
        BUILD
        + """
assigner = assigner_of(Config.fromfile("mine.py"))
assert origin(assigner) == "visdet_assigners" and assigner.topk == 9
""",
        cwd=tmp_path,
    )


def test_class_root_prefix_and_a_name_that_mmdet_lacks(tmp_path):
    (tmp_path / "mine.py").write_text(
        f"_base_ = '{ATSS}'\ncustom_imports = dict(imports=['visdet_assigners'], allow_failed_imports=False)\n"
        "lacking = dict(type='MaskHungarianAssigner')\n"
    )
    python(
        BUILD
        + f"""
from mmdet.registry import TASK_UTILS as MMDET
import mmdet.models
try:
    MMDET.build(dict(type="MaskHungarianAssigner"))
except KeyError:
    pass
else:
    raise AssertionError("mmdet has MaskHungarianAssigner itself")
cfg = Config.fromfile("mine.py")
init_default_scope("mmdet")
assert origin(MMDET.build(cfg.lacking)) == "visdet_assigners"
assert origin(MMDET.build(dict(type="ATSSAssigner", topk=9))) == "mmdet"
assert origin(MMDET.build(dict(type="mmengine.ATSSAssigner", topk=9))) == "visdet_assigners"
from visdet_assigners import ATSSAssigner
cfg = Config.fromfile("{ATSS_FILE}")
cfg.model.train_cfg.assigner = dict(type=ATSSAssigner, topk=5)
assert type(assigner_of(cfg)) is ATSSAssigner
""",
        cwd=tmp_path,
    )


OTHER_ORDERS = [
    pytest.param(first, marks=pytest.mark.slow(reason="a process each"))
    for first in ("import mmdet.models", "import mmdet.registry")
]


@pytest.mark.parametrize("first", ["", "import visdet_assigners", *OTHER_ORDERS])
def test_dropin_in_any_order(first, tmp_path):
    (tmp_path / "mine.py").write_text(
        f"_base_ = '{ATSS}'\ncustom_imports = dict(imports=['visdet_assigners.dropin'], allow_failed_imports=False)\n"
    )
    printed = python(
        f"{first}\n"
        + BUILD
        + """
cfg = Config.fromfile("mine.py")
assigner = assigner_of(cfg)
assert origin(assigner) == origin(assigner.iou_calculator) == "visdet_assigners"
from mmdet.registry import TASK_UTILS as MMDET
assert origin(MMDET.build(dict(type="mmdet.ATSSAssigner", topk=9))) == "visdet_assigners"
assert origin(MMDET.build(dict(type="FocalLossCost"))) == "visdet_assigners"
assert origin(MMDET.build(dict(type="BboxOverlaps2D"))) == "visdet_assigners"
import visdet_assigners.dropin as dropin
assert dropin.enable() == []  # again is harmless
assert "ATSSAssigner" in dropin.restore()
assert origin(MMDET.build(dict(type="ATSSAssigner", topk=9))) == "mmdet"
assert "ATSSAssigner" in dropin.enable()
assert origin(MMDET.build(dict(type="ATSSAssigner", topk=9))) == "visdet_assigners"
""",
        cwd=tmp_path,
    )
    lines = [line for line in printed.splitlines() if "takes the place of mmdet's" in line]
    assert len(lines) == 2  # once for each enable() that replaced something
    assert all(name in lines[0] for name in ("ATSSAssigner", "FocalLossCost", "BboxOverlaps2D"))


def test_costs_and_calculators_by_every_name():
    python(
        BUILD
        + """
from mmengine.registry import DefaultScope
import mmdet.models
from mmdet.models.task_modules import BboxOverlaps2D
build = TASK_UTILS.build
ours, theirs = "visdet_assigners", "mmdet"
for scope in ("mmdet", "mmengine"):
    with DefaultScope.overwrite_default_scope(scope):
        for cost in ("FocalLossCost", ours + ".FocalLossCost", "mmengine.FocalLossCost"):
            hungarian = build(dict(type=ours + ".HungarianAssigner", match_costs=[dict(type=cost)]))
            if cost.startswith("mmengine") and scope == "mmdet":
                continue
            assert origin(hungarian.match_costs[0]) == ours, (scope, cost)
        atss = build(dict(type=ours + ".ATSSAssigner", topk=9, iou_calculator=dict(type="BboxOverlaps2D")))
        assert origin(atss.iou_calculator) == ours
        atss = build(dict(type=ours + ".ATSSAssigner", topk=9, iou_calculator=dict(type="mmdet.BboxOverlaps2D")))
        assert origin(atss.iou_calculator) == theirs
        atss = build(dict(type=ours + ".ATSSAssigner", topk=9, iou_calculator=BboxOverlaps2D()))
        assert origin(atss.iou_calculator) == theirs
with DefaultScope.overwrite_default_scope("mmdet"):
    atss = build(dict(type=ours + ".ATSSAssigner", topk=9, iou_calculator=dict(type="BboxOverlaps2D_GLIP")))
    assert type(atss.iou_calculator).__name__ == "BboxOverlaps2D_GLIP"
"""
    )


def test_registering_twice_and_names_of_others():
    printed = python(
        """
import importlib
from mmengine.registry import TASK_UTILS
@TASK_UTILS.register_module(name="ATSSAssigner")
class Theirs:
    pass
import visdet_assigners
import visdet_assigners.assigners.atss as module
from visdet_assigners.registry import TASK_UTILS as OURS
assert TASK_UTILS.get("ATSSAssigner") is Theirs          # taken before us, left alone
assert OURS.get("ATSSAssigner") is module.ATSSAssigner
importlib.reload(module)
assert OURS.get("ATSSAssigner") is module.ATSSAssigner   # the reloaded class
assert TASK_UTILS.get("visdet_assigners.ATSSAssigner") is module.ATSSAssigner
from visdet_assigners.registry import register
try:
    register(type("ATSSAssigner", (), {"__module__": "elsewhere"}))
except KeyError as error:
    assert "choose another name" in str(error)
else:
    raise AssertionError("two classes of one name")
"""
    )
    assert "belongs to __main__" in printed


def test_torch_alone_is_enough():
    """Without the mm packages everything imports, and functions and classes work."""
    python(
        """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mmengine", "mmcv", "mmdet"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
import torch
import visdet_assigners, visdet_assigners.functional
from types import SimpleNamespace as Instances
priors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.]])
gt = Instances(bboxes=torch.tensor([[0., 0., 9., 8.]]), labels=torch.tensor([3]))
from visdet_assigners.assigners.max_iou import max_iou
assert max_iou(priors, gt.bboxes, 0.5, 0.5).gt_index.tolist() == [0, -1]
assigner = visdet_assigners.MaxIoUAssigner(0.5, 0.5, iou_calculator=dict(type="BboxOverlaps2D"))
assert assigner.assign(Instances(priors=priors), gt).labels.tolist() == [3, -1]
hungarian = visdet_assigners.HungarianAssigner(dict(type="IoUCost"))
assert hungarian.assign(Instances(bboxes=priors), gt).gt_inds.tolist() == [1, 0]
try:
    visdet_assigners.ATSSAssigner(9, iou_calculator=dict(type="Unknown"))
except KeyError as error:
    assert "BboxOverlaps2D" in str(error)
else:
    raise AssertionError("built an unknown calculator")
assert not any(name.split(".")[0] in ("mmengine", "mmcv", "mmdet") for name in sys.modules)
"""
    )
