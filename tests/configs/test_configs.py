"""Every config builds, with our assigners throughout; the large ones change nothing else; the small ones train."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmdet.models")
import yaml
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from toolbox import ROOT, load_tool

CONFIGS = {str(p.relative_to(ROOT / "configs")): p for p in sorted((ROOT / "configs").glob("[!_]*/*.py"))}
FAMILIES = sorted({Path(name).parent.name for name in CONFIGS})
# Recipes of several families for one kind of data; each family's own folder has its two sizes.
COLLECTIONS = ("tiny",)
# Configs of mmdet's own size, and the config of mmdet that each inherits.
INHERITED = {
    name: found[1]
    for name, path in CONFIGS.items()
    if (found := re.search(r'_base_ = \[?"mmdet::([^"]+)"', path.read_text()))
}
SMALL = [name for name in CONFIGS if name not in INHERITED and not name.endswith("_coco.py")]
# Where a config changes more than types: what differs from mmdet's besides, as its README says.
CO_DETR = {".model.type", ".model.aux_branches", ".model.collab", ".strides"}
CO_DETR |= {".atss_branch", ".rcnn_branch", ".retina_branch"}
MORE_DIFFERENCES = {
    "co_detr/co-deformable-detr-atss_r50_8xb2-12e_coco.py": CO_DETR
    | {".max_epochs", ".train_cfg.max_epochs", ".param_scheduler.0.end", ".param_scheduler.0.milestones.0"}
    | {".auto_scale_lr.base_batch_size"},
    "co_detr/co-dino-5scale-atss-rcnn_r50_8xb2-12e_coco.py": CO_DETR
    | {".num_levels", ".model.num_feature_levels", ".model.neck.num_outs", ".model.neck.in_channels"}
    | {".model.backbone.out_indices", ".model.encoder.layer_cfg.self_attn_cfg.num_levels"}
    | {".model.decoder.layer_cfg.cross_attn_cfg.num_levels"},
    "ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py": {".custom_imports"},
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py": {
        f".model.train_cfg.assigner.{key}" for key in ("type", "match_costs", "cls_cost", "mask_cost", "dice_cost")
    },
    "reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py": {".custom_imports"},
    "static_retinanet/static-retinanet_r50_fpn_1x_coco.py": {".model.bbox_head.type", ".model.train_cfg.assigner.type"},
}
# What each small config is trained on here: drawn shapes, under the names of its own classes if it is meant for others.
TRAINED = {
    family: sorted((name for name in SMALL if name.startswith(f"{family}/")), key=lambda name: "_shapes" not in name)[0]
    for family in FAMILIES
}

make_shapes = load_tool("make_shapes")


@pytest.fixture(scope="module", autouse=True)
def mmdet_scope():
    register_all_modules(init_default_scope=False)
    init_default_scope("mmdet")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Ten pictures to train on, of which one is empty and one has a crowd."""
    folder = tmp_path_factory.mktemp("shapes")
    assert make_shapes.main([str(folder), "--train", "10", "--val", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def cells(shapes) -> Path:
    """The same pictures, as BCCD names its classes and lays out its files."""
    names = dict(zip(make_shapes.CLASSES, Config.fromfile(ROOT / "configs/_base_/datasets/bccd.py").metainfo.classes))
    folder = shapes.parent / f"{shapes.name}-as-cells"
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").symlink_to(shapes / "images")
    for phase in ("train", "val"):
        data = json.loads((shapes / f"annotations/{phase}.json").read_text())
        for image in data["images"]:
            image["file_name"] = f"{phase}/{image['file_name']}"
        for category in data["categories"]:
            category["name"] = names.get(category["name"], category["name"])
        (folder / f"annotations/{phase}.json").write_text(json.dumps(data))
    return folder


def load(name: str) -> Config:
    """Read a config; its drop-in, if it asks for it, lasts for one test."""
    cfg = Config.fromfile(CONFIGS[name])
    if "visdet_assigners.dropin" in cfg.get("custom_imports", {}).get("imports", []):
        sys.modules["visdet_assigners.dropin"].enable()  # an import does so once alone
    return cfg


def assigners_of(model: torch.nn.Module) -> list:
    """All that the heads hold, alone or in a list, and call ``assign`` on."""
    held = [value for module in model.modules() for value in vars(module).values()]
    held += [item for value in held if isinstance(value, (list, tuple)) for item in value]
    return [value for value in held if hasattr(value, "assign") and not isinstance(value, torch.nn.Module)]


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, our value, their value) wherever two configs differ; the scopes that mmengine notes don't count."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in (ours.keys() | theirs.keys()) - {"_scope_"}:
            yield from differences(ours.get(key), theirs.get(key), f"{path}.{key}")
    elif isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs)):
            yield from differences(*pair, f"{path}.{index}")
    elif ours != theirs:
        yield path, ours, theirs


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_both_sizes_and_its_page(family):
    assert family in COLLECTIONS or any(name.startswith(f"{family}/") for name in INHERITED)
    assert any(name.startswith(f"{family}/") for name in SMALL)
    page = (ROOT / "configs" / family / "README.md").read_text()
    for name in CONFIGS:
        if name.startswith(f"{family}/"):
            assert f"({Path(name).name})" in page
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page):
        assert (ROOT / "configs" / family / link).exists(), link


@pytest.mark.parametrize("name", CONFIGS)
def test_model_builds_with_our_assigners_alone(name):
    model = MODELS.build(load(name).model)
    assigners = assigners_of(model)
    assert assigners
    for assigner in assigners:
        parts = [assigner, *getattr(assigner, "match_costs", [])]
        assert {type(part).__module__.partition(".")[0] for part in parts} == {"visdet_assigners"}


@pytest.mark.parametrize("name", INHERITED)
def test_inherited_config_changes_assigner_types_alone(name):
    ours, theirs = load(name), get_config(f"mmdet::{INHERITED[name]}")
    found = list(differences(ours.to_dict(), theirs.to_dict()))
    assert found
    more = MORE_DIFFERENCES.get(name, set())
    assert more <= {path for path, _, _ in found}
    for path, our_type, their_type in found:
        if path in more:
            continue
        assert path.startswith(".model.train_cfg")
        assert "assigner" in path
        assert path.endswith(".type")
        assert our_type == f"visdet_assigners.{their_type}"


@pytest.mark.parametrize("name", SMALL)
def test_small_config_trains_from_scratch_on_its_own_classes(name):
    cfg = load(name)
    assert "Pretrained" not in str(cfg.model)
    assert cfg.load_from is None
    assert cfg.randomness.seed == 0
    assert cfg.auto_scale_lr == {"enable": False, "base_batch_size": cfg.train_dataloader.batch_size}
    classes = cfg.train_dataloader.dataset.get("metainfo", CocoDataset.METAINFO)["classes"]
    heads = cfg.model.get("bbox_head") or cfg.model.get("roi_head", {}).get("bbox_head") or []
    for head in heads if isinstance(heads, list) else [heads]:
        assert head.num_classes == len(classes)
    if "panoptic_head" in cfg.model:
        assert cfg.model.panoptic_head.num_things_classes == len(classes)
    if name.endswith("_shapes.py"):
        assert classes == make_shapes.CLASSES


SHORT = ("atss", "co_detr", "deformable_detr", "faster_rcnn", "tood", "yolox")
LONGER = [
    pytest.param(name, marks=pytest.mark.slow(reason="trains"))
    for name in FAMILIES
    if name not in (*SHORT, *COLLECTIONS)
]


@pytest.mark.parametrize("family", [*SHORT, *LONGER])
def test_small_config_trains_and_evaluates(family, shapes, cells, tmp_path, monkeypatch):
    monkeypatch.setenv("VISDET_SHAPES", str(shapes))
    monkeypatch.setenv("VISDET_BCCD", str(cells))
    cfg = load(TRAINED[family])
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.update(
        {"max_iters": 2, "val_interval": 2}
        if cfg.train_cfg.type == "IterBasedTrainLoop"
        else {"max_epochs": 1, "val_interval": 1}
    )
    cfg.train_dataloader.update(batch_size=5, num_workers=0, persistent_workers=False)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    runner = Runner.from_cfg(cfg)
    before = {key: value.clone() for key, value in runner.model.named_parameters()}
    runner.train()
    losses, _ = runner.message_hub.get_scalar("train/loss").data
    assert len(losses) == 2
    assert torch.tensor(losses).isfinite().all()
    assert any(not torch.equal(before[key], value) for key, value in runner.model.named_parameters())
    assert "val/time" in runner.message_hub.log_scalars  # the evaluation ran; after two steps it may find nothing


def test_model_index_names_every_config():
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    listed = []
    for metafile in index["Import"]:
        content = yaml.safe_load((ROOT / metafile).read_text())
        (collection,) = content["Collections"]
        assert (ROOT / collection["README"]).is_file()
        for model in content["Models"]:
            assert model["In Collection"] == collection["Name"]
            assert model["Name"] == Path(model["Config"]).stem
            listed.append(model["Config"])
    assert sorted(listed) == [f"configs/{name}" for name in CONFIGS]
