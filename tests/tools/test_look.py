"""Every command begins with the same look at config and data, and takes data sets as the training does.

What these tests hold was met in public: configs and data that passed, or failed without a word on why.
"""

import json
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from scenes import DATA
from toolbox import ROOT, load_tool

ATSS = str(ROOT / "configs" / "atss" / "atss_r18_fpn_12e_shapes.py")
FASTER_RCNN = str(ROOT / "configs" / "faster_rcnn" / "faster-rcnn_r18_fpn_12e_shapes.py")
MASK2FORMER = str(ROOT / "configs" / "mask2former" / "mask2former_r18_12e_shapes.py")
CO_DETR = str(ROOT / "configs" / "co_detr" / "co-deformable-detr-atss_r18_400it_shapes-128x128.py")
CLASSES = ("circle", "rectangle", "triangle", "star")

pytestmark = pytest.mark.usefixtures("empty_folder")

TO = ["--to", "type=MaxIoUAssigner", "pos_iou_thr=0.5", "neg_iou_thr=0.4"]
COMMANDS = {
    "train": [],
    "test": ["model.pth"],
    "assignment_report": [],
    "browse_assignments": [],
    "compare_assigners": TO,
    "compare_losses": [],
    "codetr_conflicts": [],
    "time_training": [],
    "hook_cost": [],
}


@pytest.fixture
def data(shapes, monkeypatch) -> Path:
    monkeypatch.setenv("VISDET_SHAPES", shapes)
    torch.save(dict(state_dict={}), "model.pth")
    return Path(shapes)


def config(name: str, base: str, text: str) -> str:
    Path(name).write_text(f"_base_ = {base!r}\n{text}\n")
    return name


def line_of(capsys, tool: str, *argv: str) -> str:
    """The line in which a command tells a mistake; before it, mmengine may log where it has the data root from."""
    with pytest.raises(SystemExit) as stopped:
        load_tool(tool).main(list(argv))
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def report(*argv: str) -> dict:
    load_tool("assignment_report").main([*argv, "--pictures", "0", "--out-dir", "out"])
    return json.loads(Path("out/report.json").read_text())["assigners"]


# ---------------------------------------------------------------------------------------------------- the same look

SWAPPED = """
m = dict(classes=("star", "rectangle", "triangle", "circle"))
train_dataloader = dict(dataset=dict(metainfo=m))
val_dataloader = dict(dataset=dict(metainfo=m))
test_dataloader = val_dataloader
"""
WRONG = {
    "order of the classes": (
        ATSS, SWAPPED, ["classes in another order than the categories of the file", "label 0 is circle in the file and "
                        "star in the config", 'metainfo=dict(classes=("circle", "rectangle", "triangle", "star"))'],
    ),
    "a class that the file lacks": (
        ATSS, SWAPPED.replace('"star"', '"hexagon"'),
        ["classes that no category of the file bears", "hexagon", 'classes=("circle", "rectangle", "triangle"))'],
    ),
    "classes of a head": (
        ATSS, "model = dict(bbox_head=dict(num_classes=3))",
        ["model.bbox_head.num_classes is 3, but", "has 4 classes (circle, rectangle, triangle, star); set it to 4"],
    ),
    "classes of an auxiliary head": (
        CO_DETR, "model = dict(aux_branches=[dict(type='visdet_assigners.AuxDenseBranch', head=dict(type='ATSSHead', "
        "num_classes=3))])", ["model.aux_branches.0.head.num_classes is 3, but"],
    ),
    "ground truths among anchors": (
        FASTER_RCNN, "model = dict(train_cfg=dict(rpn=dict(sampler=dict(add_gt_as_proposals=True))))",
        ["model.train_cfg.rpn.sampler", "set add_gt_as_proposals=False"],
    ),
    "a misspelt key": (
        ATSS, "model = dict(train_cfg=dict(asigner=dict(topk=3)))",
        ["model.train_cfg: nothing reads asigner; did you mean assigner?"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("tool", COMMANDS)
def test_every_command_begins_with_it(tool, wrong, data, capsys):
    base, text, words = WRONG[wrong]
    line = line_of(capsys, tool, config("wrong.py", base, text), *COMMANDS[tool])
    for word in words:
        assert word in line


@pytest.mark.parametrize("wrong", WRONG)
def test_the_check_of_data_tells_it_too(wrong, data, capsys):
    base, text, words = WRONG[wrong]
    assert load_tool("check_data").main([config("wrong.py", base, text)]) == 1
    out = capsys.readouterr().out
    for word in words:
        assert word in out
    assert load_tool("check_data").main([base]) == 0


def test_masks_that_the_pipeline_does_not_load(data, capsys):
    text = "p = _base_.train_pipeline\np[1].with_mask = False\ntrain_dataloader = dict(dataset=dict(pipeline=p))"
    wrong = config("wrong.py", MASK2FORMER, text)
    for tool in ("train", "assignment_report", "browse_assignments"):
        assert "loads no masks, from which model.panoptic_head learns; set with_mask=True" in line_of(
            capsys, tool, wrong
        )


def test_classes_in_a_text_file(data, capsys):
    Path("classes.txt").write_text("\n".join(CLASSES))
    text = SWAPPED.replace('("star", "rectangle", "triangle", "circle")', '"classes.txt"')
    assert load_tool("check_data").main([config("right.py", ATSS, text)]) == 0
    assert report("right.py") == report(ATSS)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data sets are not in {DATA}")
def test_real_data_in_another_order(monkeypatch, capsys):
    monkeypatch.setenv("VISDET_BCCD", str(DATA / "bccd"))
    text = SWAPPED.replace('("star", "rectangle", "triangle", "circle")', '("Platelets", "WBC", "RBC")')
    wrong = config("wrong.py", ATSS.replace("_shapes", "_bccd"), text)
    assert 'metainfo=dict(classes=("RBC", "WBC", "Platelets"))' in line_of(capsys, "assignment_report", wrong)
    assert load_tool("check_data").main([ATSS.replace("_shapes", "_bccd")]) == 0
    assert "train.json: 205 images, 2804 objects, 1 left out" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- data sets as in training

STEPS = """
val_dataloader = dict(dataset=dict(pipeline=[
    dict(type="LoadImageFromFile"), dict(type="mmdet.Resize", scale=(320, 240), keep_ratio=True),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"))]))
"""


def pure_python(name: str) -> str:
    """The ATSS config as one whose steps are classes, not names."""
    cfg = Config.fromfile(ATSS).to_dict()
    text = "from mmdet.datasets.transforms import LoadAnnotations, Resize\n\n"
    text += "".join(f"{key} = {value!r}\n" for key, value in cfg.items())
    text += "val_dataloader['dataset']['pipeline'][1]['type'] = Resize\n"
    text += "val_dataloader['dataset']['pipeline'][2]['type'] = LoadAnnotations\n"
    Path(name).write_text(text)
    return name


def test_types_with_a_scope_or_as_classes(data):
    plain = report(ATSS, "--phase", "val")
    assert report(config("scoped.py", ATSS, STEPS), "--phase", "val") == plain
    assert report(pure_python("classes.py"), "--phase", "val") == plain
    (section,) = plain.values()
    assert section["objects"] > 20
    assert section["without"] < 0.05


CONCAT = """
v = _base_.val_dataloader.dataset
val_dataloader = dict(dataset=dict(_delete_=True, type="ConcatDataset", datasets=[v, dict(type="RepeatDataset",
                                                                                         times=2, dataset=v)]))
"""
REPEAT = """
t = _base_.train_dataloader.dataset
train_dataloader = dict(dataset=dict(_delete_=True, type="RepeatDataset", times=3, dataset=t))
"""


def test_data_sets_in_wrappers_to_evaluate_on(data, capsys):
    (plain,), (twice,) = (report(one, "--phase", "val").values() for one in (ATSS, config("two.py", ATSS, CONCAT)))
    assert twice["objects"] == 2 * plain["objects"]  # of the repeated ones each once
    assert twice["without"] == plain["without"]
    assert "val_dataloader.dataset.datasets.1 is a RepeatDataset, which repeats pictures" in capsys.readouterr().out
    load_tool("browse_assignments").main(["two.py", "--phase", "val", "-n", "1", "--out-dir", "pictures"])
    assert len(list(Path("pictures").iterdir())) == 1


def test_repeated_pictures_are_counted_once_and_that_is_said(data, capsys):
    assert report(config("thrice.py", ATSS, REPEAT)) == report(ATSS)
    assert "train_dataloader.dataset is a RepeatDataset, which repeats pictures; each is taken once" in (
        capsys.readouterr().out
    )


def test_a_config_without_the_data_set_that_is_asked_for(data, capsys):
    text = "val_dataloader = None\nval_cfg = None\nval_evaluator = None"
    line = line_of(capsys, "assignment_report", config("no_val.py", ATSS, text), "--phase", "val")
    assert "the config has no val_dataloader with a dataset" in line


@pytest.fixture
def panoptic(tmp_path, monkeypatch) -> Config:
    """Two things and a stuff in one picture, and mmdet's way to read them without the package that it asks for."""
    utils = types.SimpleNamespace(rgb2id=lambda colours: colours[..., 0].astype(int))
    monkeypatch.setitem(sys.modules, "panopticapi", types.SimpleNamespace(utils=utils))
    boxes = {1: [10, 10, 30, 20], 2: [60, 40, 20, 40], 3: [0, 80, 100, 20]}
    segments = np.zeros((100, 100, 3), np.uint8)  # BGR
    for number, (x, y, w, h) in boxes.items():
        segments[y : y + h, x : x + w, 2] = number
    for folder, picture in (("img", segments * 60), ("seg", segments)):
        (tmp_path / folder).mkdir()
        assert cv2.imwrite(str(tmp_path / folder / f"a.{'jpg' if folder == 'img' else 'png'}"), picture)
    info = [dict(id=number, category_id=number // 3, bbox=box, area=box[2] * box[3], iscrowd=0)
            for number, box in boxes.items()]  # fmt: skip
    content = dict(
        images=[dict(id=7, file_name="a.jpg", width=100, height=100)],
        annotations=[dict(image_id=7, file_name="a.png", segments_info=info)],
        categories=[dict(id=0, name="cell", isthing=1), dict(id=1, name="ground", isthing=0)],
    )
    (tmp_path / "a.json").write_text(json.dumps(content))
    cfg = Config.fromfile(MASK2FORMER)
    metainfo = dict(classes=("cell", "ground"), thing_classes=("cell",), stuff_classes=("ground",))
    for phase in ("train", "val"):
        old = cfg[f"{phase}_dataloader"].dataset
        load = [step for step in old.pipeline if step.type not in ("LoadAnnotations", "RandomFlip")]
        load.insert(1 if phase == "train" else 2, dict(type="LoadPanopticAnnotations"))
        cfg[f"{phase}_dataloader"].dataset = dict(
            type="CocoPanopticDataset", data_root=str(tmp_path), ann_file="a.json", metainfo=metainfo, pipeline=load,
            data_prefix=dict(img="img/", seg="seg/"), test_mode=phase == "val",
        )  # fmt: skip
    for head in ("panoptic_head", "panoptic_fusion_head"):
        cfg.model[head].update(num_things_classes=1, num_stuff_classes=1)
    cfg.model.panoptic_head.loss_cls.class_weight = [1.0, 1.0, 0.1]
    cfg.model.data_preprocessor.update(pad_seg=True, seg_pad_value=255)
    return cfg


@pytest.mark.parametrize("phase", ["train", "val"])
def test_panoptic_annotations(phase, panoptic):
    from visdet_assigners.observe.detector import assignments, build_dataset, build_model

    with DefaultScope.overwrite_default_scope("mmdet"):
        (item,) = build_dataset(panoptic, phase)
        truths = item["data_samples"].gt_instances
        assert item["data_samples"].img_shape == (240, 240)
        assert np.allclose(truths.bboxes.tensor.numpy(), 2.4 * np.array([[10, 10, 40, 30], [60, 40, 80, 80]]))
        assert truths.masks.masks.shape == (2, 240, 240)
        records = assignments(build_model(panoptic, None), item)[2]
    assert {len(one.gt_boxes) for one in records} == {3}  # things and stuff


def test_panoptic_heads_and_classes(panoptic):
    from visdet_assigners.training.config_check import find_problems

    def said() -> list[str]:
        return [str(one) for one in find_problems(panoptic, ["train"]) if one.fatal]

    assert not said()
    panoptic.model.panoptic_head.num_stuff_classes = 2
    panoptic.model.panoptic_head.loss_cls.class_weight = [1.0] * 4
    (problem,) = said()
    assert "model.panoptic_head.num_stuff_classes is 2, but train_dataloader.dataset has 2 classes" in problem
    assert "1 things and 1 stuff; set it to 1" in problem


# --------------------------------------------------------------------------------------------- what mmengine is given

RETINANET = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data sets are not in {DATA}")
@pytest.mark.parametrize("tool", ["check_data", "assignment_report", "browse_assignments", "compare_assigners"])
def test_a_config_that_mmdet_ships(tool, capsys):
    more = {
        "assignment_report": ["--max-images", "2", "--pictures", "0", "--out-dir", "out"],
        "browse_assignments": ["-n", "1", "--out-dir", "out"],
        "compare_assigners": [
            "--to",
            "type=visdet_assigners.ATSSAssigner",
            "topk=9",
            "--max-images",
            "2",
            "--out-dir",
            "out",
        ],
    }.get(tool, [])
    argv = [RETINANET, *more, "--cfg-options", f"data_root={DATA / 'tiny_coco'}"]
    assert not load_tool(tool).main(argv)
    assert "470 objects" in capsys.readouterr().out if tool == "check_data" else any(Path("out").iterdir())


@pytest.mark.parametrize("tool", [name for name in COMMANDS if name != "time_training"])
def test_the_data_of_a_config_that_mmdet_ships_are_missed(tool, data, capsys):
    line = line_of(capsys, tool, RETINANET, *COMMANDS[tool], "--cfg-options", "data_root=nowhere/")
    assert "the data root nowhere/ of " in line


@MODELS.register_module()
class NeedsAPackage(torch.nn.Module):
    """Asks for packages that nobody has, in the ways of mmdet and of Python."""

    def __init__(self, how, **kwargs):
        super().__init__()
        if how == "import":
            import no_such_package.models  # noqa: F401
        raise {
            "runtime": RuntimeError("no_such_package is not installed, please install it by: pip install x."),
            "please": ImportError('Please run "pip install no_such_package" to install it'),
        }[how]


@pytest.mark.parametrize("how", ["import", "runtime", "please"])
def test_a_package_that_is_missing(how, data, capsys):
    model = f"model = dict(_delete_=True, type='NeedsAPackage', how={how!r})"
    line = line_of(capsys, "assignment_report", config("needs.py", ATSS, model))[:200]
    assert "no_such_package" in line
    assert "the config needs" in line


def test_packages_of_mmdets_own_configs(data, capsys):
    """transformers, for the language model of Grounding DINO, and mmpretrain, for ConvNeXt."""
    pytest.importorskip("mmdet")
    if any(name in sys.modules for name in ("transformers", "mmpretrain")):
        pytest.skip("the packages are installed")
    text = "model = dict(language_model=dict(type='BertModel', name='bert-base-uncased'))"
    line = line_of(capsys, "assignment_report", config("prompted.py", ATSS, text))
    assert "language_model" in line or "transformers is not installed" in line
    line = line_of(capsys, "check_data", "mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py")
    assert "custom_imports of mmdet::convnext" in line
    assert "Failed to import mmpretrain.models; install its package" in line
    text = "model = dict(backbone=dict(_delete_=True, type='mmpretrain.ConvNeXt'))"
    line = line_of(capsys, "assignment_report", config("scoped.py", ATSS, text))
    assert "the package mmpretrain isn't installed" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = dict(bbox_head=dict(num_clases=4))", "ATSSHead of the config has no option num_clases; did you mean "
                                                       "num_classes?"),
        ("model = dict(backbone=dict(_delete_=True, type='ResNet'))", "ResNet of the config: it lacks options: "),
        ("train_dataloader = dict(dataset=dict(classes=('a',)))", "CocoDataset of the config has no option classes"),
    ],
)  # fmt: skip
def test_options_that_a_class_does_not_have(text, words, data, capsys):
    with pytest.raises(SystemExit):
        load_tool("assignment_report").main([config("wrong.py", ATSS, text)])
    assert words in capsys.readouterr().err.splitlines()[-1]
