"""Every config builds, with our assigners throughout; the COCO ones change nothing else; the small ones train."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmdet.models")
import yaml
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

ROOT = Path(__file__).parents[2]
CONFIGS = {str(p.relative_to(ROOT / "configs")): p for p in sorted((ROOT / "configs").glob("[!_]*/*.py"))}
COCO = [name for name in CONFIGS if name.endswith("_coco.py")]
SHAPES = [name for name in CONFIGS if name.endswith("_shapes.py")]
FAMILIES = {"rpn", "faster_rcnn", "atss", "tood", "yolox", "detr", "deformable_detr"}

spec = importlib.util.spec_from_file_location("make_shapes", ROOT / "tools" / "make_shapes.py")
make_shapes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_shapes)


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


def test_each_family_has_its_three_configs():
    assert {Path(name).parent.name for name in CONFIGS} == FAMILIES
    for data_set in ("coco", "bccd", "shapes"):
        assert {Path(name).parent.name for name in CONFIGS if name.endswith(f"_{data_set}.py")} == FAMILIES


@pytest.mark.parametrize("name", CONFIGS)
def test_model_builds_with_our_assigners_alone(name):
    model = MODELS.build(Config.fromfile(CONFIGS[name]).model)
    assigners = assigners_of(model)
    assert assigners
    for assigner in assigners:
        parts = [assigner, *getattr(assigner, "match_costs", [])]
        assert {type(part).__module__.partition(".")[0] for part in parts} == {"visdet_assigners"}


@pytest.mark.parametrize("name", COCO)
def test_coco_config_changes_assigner_types_alone(name):
    ours, theirs = Config.fromfile(CONFIGS[name]), get_config(f"mmdet::{name}")
    found = list(differences(ours.to_dict(), theirs.to_dict()))
    assert found
    for path, our_type, their_type in found:
        assert path.startswith(".model.train_cfg")
        assert "assigner" in path
        assert path.endswith(".type")
        assert our_type == f"visdet_assigners.{their_type}"


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in COCO])
def test_small_config_trains_from_scratch_on_its_own_classes(name):
    cfg = Config.fromfile(CONFIGS[name])
    assert "Pretrained" not in str(cfg.model)
    assert cfg.load_from is None
    assert cfg.randomness.seed == 0
    assert cfg.auto_scale_lr == {"enable": False, "base_batch_size": cfg.train_dataloader.batch_size}
    classes = cfg.train_dataloader.dataset.metainfo.classes
    head = cfg.model.get("bbox_head") or cfg.model.get("roi_head", {}).get("bbox_head")
    assert head is None or head.num_classes == len(classes)
    if name in SHAPES:
        assert classes == make_shapes.CLASSES


@pytest.mark.parametrize("name", SHAPES)
def test_small_config_trains_and_evaluates(name, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("VISDET_SHAPES", str(shapes))
    cfg = Config.fromfile(CONFIGS[name])
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.train_dataloader.update(batch_size=5)
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
