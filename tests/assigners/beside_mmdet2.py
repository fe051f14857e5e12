"""Compare mmdet 2's call of our assigners with mmdet 2's own, from its sources.

    pip download mmdet==2.28.2 --no-deps && unzip mmdet-2.28.2-py3-none-any.whl -d FOLDER
    PYTHONPATH=tests python -m assigners.beside_mmdet2 FOLDER

Nothing of mmdet 2 but its assigners is loaded, and no mmcv 1: what they import of it is made here.  Two things of its
RegionAssigner are set right: it fails with ``gt_labels``, so that it gets none, and it takes flags of anchors beside
the level for numbers of anchors, which mmdet 3 corrected.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import torch

from assigners.cases import CASES, DINO, LOOSE, scene
from assigners.mmdet2 import FORMS, MMDET2

THRESHOLDS = dict(**LOOSE, ignore_iof_thr=0.5)
COSTS = dict(zip(("cls_cost", "reg_cost", "iou_cost"), DINO))
MASKS = dict(dice_cost=dict(type="DiceCost", pred_act=True, eps=1.0))
OPTIONS = {
    "MaxIoUAssigner": dict(THRESHOLDS, min_pos_iou=0.2),
    "MaxIoUAssigner-first-of-equals": dict(THRESHOLDS, gt_max_assign_all=False),
    "ApproxMaxIoUAssigner": THRESHOLDS,
    "ATSSAssigner": dict(topk=9, ignore_iof_thr=0.5),
    "ATSSAssigner-ddod": dict(topk=9, alpha=0.8),
    "TaskAlignedAssigner": dict(topk=13),
    "SimOTAAssigner": {},
    "HungarianAssigner": COSTS,
    "MaskHungarianAssigner": MASKS,
    "GridAssigner": dict(pos_iou_thr=0.5, neg_iou_thr=0.5),
    "UniformAssigner": dict(pos_ignore_thr=0.15, neg_ignore_thr=0.7),
    "RegionAssigner": dict(center_ratio=0.2, ignore_ratio=0.5),
    "CenterRegionAssigner": dict(pos_scale=0.3, neg_scale=0.6),
    "PointAssigner": dict(scale=4, pos_num=3),
}
"""As in the cases of these names."""
SCENES = [(0, "mixed", 0)]
SCENES += [
    (n, kind, seed) for seed in range(12) for n, kind in ((1, "mixed"), (12, "mixed"), (30, "small"), (60, "mixed"))
]
FLAGS = """
        for lvl in range(num_lvls):
            ignore_flags = mlvl_ignore_flags[lvl]
            mlvl_assigned_gt_inds[lvl][ignore_flags"""


class Registry:
    """As much of mmcv 1's as is used."""

    def __init__(self, name):
        self.classes = {}

    def register_module(self, name=None):
        def keep(cls):
            self.classes[name or cls.__name__] = cls
            return cls

        return keep


def build_from_cfg(cfg, registry, default_args=None):
    return registry.classes[cfg["type"]](**{key: value for key, value in cfg.items() if key != "type"})


def load(folder: Path):
    """The module of mmdet 2's assigners."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("mmdet", "mmcv")]:
        del sys.modules[name]

    def package(name, **contents):
        module = sys.modules[name] = ModuleType(name)
        module.__path__ = [str(folder.joinpath(*name.split(".")))]
        vars(module).update(contents)
        return module

    package("mmcv")
    package("mmcv.utils", Registry=Registry, build_from_cfg=build_from_cfg)
    package("mmdet")
    package("mmdet.core")
    package("mmdet.core.bbox")
    package("mmdet.core.anchor")
    utils = package("mmdet.utils", util_mixins=type("Mixins", (), {"NiceRepr": object}))
    utils.masked_fill = importlib.import_module("mmdet.utils.ascend_util").masked_fill
    flags = importlib.import_module("mmdet.core.anchor.utils").anchor_inside_flags
    sys.modules["mmdet.core"].anchor_inside_flags = flags
    assigners = importlib.import_module("mmdet.core.bbox.assigners")
    source = Path(sys.modules["mmdet.core.bbox.assigners.region_assigner"].__file__).read_text()
    assert source.count(FLAGS) == 1
    corrected = {"__package__": "mmdet.core.bbox.assigners", "__name__": "corrected"}
    exec(source.replace(FLAGS, FLAGS + " == 1"), corrected)
    assigners.RegionAssigner = corrected["RegionAssigner"]
    return assigners


def calls():
    """Yield the case, the arguments and our result of each call."""
    for name in FORMS:
        for count, kind, seed in SCENES if name in OPTIONS else ():
            case, objects = CASES[name], scene(count, kind, seed=seed)
            regions = objects.ignore.bboxes if case.ignores and count else None
            pred = case.pred(objects)
            if name == "PointAssigner":
                pred.priors = pred.priors[:, :3]
            call = FORMS[name](pred, case.gt(objects), regions, objects)
            yield name, call, case.build().assign(*call.values())


def differences(ours, theirs) -> list[str]:
    """What differs: numbers of objects everywhere; classes and overlaps where there are any in both, at positives."""
    positive = ours.gt_inds > 0
    found = [] if torch.equal(ours.gt_inds, theirs.gt_inds) else ["gt_inds"]
    for name in ("labels", "max_overlaps"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine is not None and other is not None and len(mine) == len(other) == len(positive):
            found += [] if torch.equal(mine[positive], other[positive]) else [name]
    if hasattr(theirs, "assign_metrics") and not torch.equal(ours.assign_metrics, theirs.assign_metrics):
        found.append("assign_metrics")
    extras = ours._extra_properties
    found += [
        name for name in extras if not torch.equal(ours.get_extra_property(name), theirs.get_extra_property(name))
    ]
    return found


def main() -> int:
    made = list(calls())
    theirs = load(Path(sys.argv[1]))
    assert {name.split("-")[0] for name in OPTIONS} == MMDET2.keys()
    wrong: dict[str, list[str]] = {name: [] for name in OPTIONS}
    for name, call, ours in made:
        if name == "RegionAssigner":
            call["gt_labels"] = None
        assigner = getattr(theirs, name.split("-")[0])(**OPTIONS[name])
        own = [value.clone() if isinstance(value, torch.Tensor) else value for value in call.values()]
        wrong[name] += [", ".join(told) for told in [differences(ours, assigner.assign(*own))] if told]
    print(f"| mmdet 2's class | of {len(SCENES)} calls equal |\n|---|---:|")
    for name, told in wrong.items():
        print(f"| {name} | {len(SCENES) - len(told)} | {' '.join(sorted(set(told)))}".rstrip("| ") + " |")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
