"""The look at a config: what contradicts itself is named, and no config that trains in mmdet is.

A test for each contradiction, hence the length.
"""

import copy
import json
import re
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from scenes import DATA
from toolbox import ROOT
from visdet_assigners.errors import UserError
from visdet_assigners.registry import typed_nodes
from visdet_assigners.training.config_check import check_config, find_problems, look

THEIRS = Path(mmdet.__file__).parent / ".mim" / "configs"
PHASES = ("train", "val", "test")


def load(name: str) -> Config:
    """A config of mmdet, ``mmdet::...``, or of the package."""
    path = THEIRS / name.removeprefix("mmdet::") if name.startswith("mmdet::") else ROOT / "configs" / name
    return Config.fromfile(path, import_custom_modules=False)


def said(cfg: Config, *phases: str) -> list[str]:
    """What is wrong with a config, leaving out that its data aren't here."""
    found = find_problems(cfg, phases or PHASES, annotations=False)
    return [str(one) for one in found if one.fatal and "doesn't exist" not in str(one)]


def change(cfg: Config, path: str, value) -> None:
    """Set what stands at a path."""
    *parents, last = path.split(".")
    node = cfg
    for key in parents:
        node = node[int(key) if isinstance(node, (list, tuple)) else key]
    node[last] = value


# ------------------------------------------------------------------------------------------------------ false alarms


def config_names(every: int) -> list[str]:
    paths = [path.relative_to(THEIRS) for path in sorted(THEIRS.rglob("*.py")) if "_base_" not in path.parts]
    assert len(paths) > 800
    return [f"mmdet::{path}" for path in paths[::every]]


def walk(names) -> int:
    count = 0
    for name in names:
        try:
            cfg = load(name)
        except (ImportError, FileNotFoundError):  # mmengine can't resolve 9 of them: see tools/README.md, the zoo
            continue
        assert not said(cfg), name
        count += 1
    return count


def test_no_config_of_mmdet_is_refused():
    assert walk(config_names(every=9)) >= 88


@pytest.mark.slow
def test_none_of_all_configs_of_mmdet_is_refused():
    assert walk(config_names(every=1)) == 818


def test_no_config_of_the_package_is_refused():
    names = [str(path.relative_to(ROOT / "configs")) for path in sorted((ROOT / "configs").glob("[a-z]*/*.py"))]
    assert walk(names) == len(names) > 80


# -------------------------------------------------------------------------------------- what would pass in their place

NUMBERS = {
    # a number of classes, and what else names the same number wrong
    "mmdet::atss/atss_r50_fpn_1x_coco.py": "model.bbox_head.num_classes",
    "mmdet::yolox/yolox_tiny_8xb8-300e_coco.py": "model.bbox_head.num_classes",  # data in a MultiImageMixDataset
    "mmdet::ssd/ssd300_coco.py": "model.bbox_head.num_classes",  # in a RepeatDataset
    "mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py": "model.roi_head.bbox_head.2.num_classes",
    "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": "model.roi_head.mask_head.num_classes",
    "mmdet::ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py": "model.roi_head.mask_iou_head.num_classes",
    "mmdet::solov2/solov2_r50_fpn_1x_coco.py": "model.mask_head.num_classes",
    "mmdet::queryinst/queryinst_r50_fpn_1x_coco.py": "model.roi_head.mask_head.5.num_classes",
    "mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py":
        "model.detector.roi_head.bbox_head.num_classes",
    "mmdet::seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py":
        "model.roi_head.bbox_head.loss_cls.num_classes",
    "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py": "model.panoptic_head.num_things_classes",
    "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py": "model.panoptic_head.num_stuff_classes",
    "mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py": "model.semantic_head.num_things_classes",
    "co_detr/co-deformable-detr-atss-rcnn_r18_12e_bccd.py": "model.bbox_head.num_classes",
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_a_head_with_other_classes_is_named(name):
    cfg, path = load(name), NUMBERS[name]
    number = next(node[path.rpartition(".")[2]] for where, node in typed_nodes(cfg.model, "model")
                  if where == path.rpartition(".")[0])  # fmt: skip
    change(cfg, path, number - 1)
    problem = said(cfg)[0]
    assert problem.startswith(f"{path} is {number - 1}, but train_dataloader.dataset")
    assert re.search(rf"set it to {number}\b", problem)


# Their classes are one, those of another task, or stand elsewhere than in the config.
OTHER_CLASSES = re.compile(r"rpn_head|semantic_head.num_classes|head\.head|reid\.|^model\.head\.")
OTHER_DATA = re.compile("glip|grounding_dino|v3det|openimages|dsdl|sort|track|youtubevis|reid")


@pytest.mark.slow
def test_each_number_of_classes_of_all_configs_of_mmdet_is_compared():
    """One of each kind and family is made wrong in turn."""
    seen = set()
    for name in config_names(every=1):
        family = name.split("/")[0]
        try:
            cfg = load(name)
        except (ImportError, FileNotFoundError):
            continue
        for path, node in typed_nodes(cfg.get("model"), "model"):
            for key in ("num_classes", "num_things_classes", "num_stuff_classes"):
                kind = (family, re.sub(r"\.\d+", "", path), str(node["type"]), key)
                if key in node and kind not in seen and not OTHER_CLASSES.search(f"{path}.{key}"):
                    seen.add(kind)
                    node[key] += 1
                    found = said(cfg)
                    node[key] -= 1
                    assert any(f"{path}.{key}" in one for one in found) or OTHER_DATA.search(name), (name, path)
    assert len(seen) > 200


@pytest.mark.parametrize("branch", ["0.head", "1.roi.bbox_head"])
def test_an_auxiliary_branch_with_other_classes_is_named(branch):
    cfg = load("co_detr/co-deformable-detr-atss-rcnn_r18_12e_bccd.py")
    change(cfg, f"model.aux_branches.{branch}.num_classes", 2)
    (problem,) = said(cfg)
    assert problem.startswith(f"model.aux_branches.{branch}.num_classes is 2, but train_dataloader.dataset has 3 class")


def test_a_number_by_default_is_named():
    cfg = load("mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py")
    del cfg.model.roi_head.bbox_head.num_classes
    assert not said(cfg)
    for phase in PHASES:
        cfg[f"{phase}_dataloader"].dataset.metainfo = dict(classes=("cat", "dog"))
    (problem,) = said(cfg)
    assert "model.roi_head.bbox_head.num_classes is 80, by default, but" in problem
    assert "has 2 classes (cat, dog); set it to 2" in problem


def test_a_mask_head_that_knows_no_classes_may_have_any_number():
    cfg = load("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    cfg.model.roi_head.mask_head.update(class_agnostic=True, num_classes=1)
    assert not said(cfg)


def test_class_weights_of_mask_classification():
    cfg = load("mask2former/mask2former_r18_12e_shapes.py")
    cfg.model.panoptic_head.loss_cls.class_weight = [1.0] * 80 + [0.1]
    (problem,) = said(cfg)
    assert problem.startswith("model.panoptic_head.loss_cls.class_weight: it has 81 numbers and needs 5, one for each ")


ADDED = "add_gt_as_proposals=True"
SAMPLERS = {
    "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": "model.train_cfg.rpn.sampler",
    "mmdet::rpn/rpn_r50_fpn_1x_coco.py": "model.train_cfg.rpn.sampler",
    "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py": "model.train_cfg.sampler",
    "mmdet::cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py": "model.train_cfg.rpn.1.sampler",
    "mmdet::guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py": "model.train_cfg.ga_sampler",
    "mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py":
        "model.detector.train_cfg.rpn.sampler",
    "co_detr/co-deformable-detr-atss-rcnn_r18_12e_bccd.py": "model.aux_branches.1.rpn.train_cfg.sampler",
}  # fmt: skip


@pytest.mark.parametrize("how", [dict(add_gt_as_proposals=True), {}], ids=["said", "by default"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_adds_ground_truths_to_priors_is_refused(name, how):
    cfg = load(name)
    change(cfg, SAMPLERS[name], dict(type="RandomSampler", num=256, pos_fraction=0.5, **how))
    (problem,) = said(cfg)
    assert problem.startswith(f"{SAMPLERS[name]}: RandomSampler puts the ground truths before the priors ({ADDED}")
    assert ("its default" in problem) == (not how)
    change(cfg, SAMPLERS[name], dict(type="RandomSampler", num=256, pos_fraction=0.5, add_gt_as_proposals=False))
    assert not said(cfg)


def test_mmdets_targets_shift_where_ground_truths_are_added():
    """The oracle of the refusal: labels of the same anchors, with and without."""

    def labels(added: bool) -> torch.Tensor:
        sampler = dict(type="RandomSampler", num=10_000, pos_fraction=1.0, add_gt_as_proposals=added)
        assigner = dict(type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3)
        head = dict(type="RPNHead", in_channels=8, feat_channels=8, num_classes=1,
                    anchor_generator=dict(type="AnchorGenerator", scales=[4], ratios=[1.0], strides=[8]),
                    train_cfg=dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1))  # fmt: skip
        with DefaultScope.overwrite_default_scope("mmdet"):
            head = MODELS.build(head)
        anchors = head.prior_generator.grid_anchors([(8, 8)], device="cpu")
        truths = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]), labels=torch.zeros(1, dtype=torch.long))
        meta = dict(img_shape=(64, 64), pad_shape=(64, 64))
        return head.get_targets([anchors], [[torch.ones(64, dtype=torch.bool)]], [truths], [meta])[0][0]

    ((right,),) = (labels(False)[0] == 0).nonzero().tolist()
    try:
        given = (labels(True)[0] == 0).nonzero().flatten().tolist()
    except IndexError:
        given = []
    assert right not in given


@pytest.mark.parametrize("head", ["DETR", "R-CNN"])
def test_where_ground_truths_may_be_added(head):
    """In a R-CNN head they are proposals; DETR's has no sampler at all."""
    if head == "DETR":
        cfg = load("mmdet::detr/detr_r50_8xb2-150e_coco.py")
        cfg.model.train_cfg.sampler = dict(type="RandomSampler", num=256, pos_fraction=0.5)
    else:
        cfg = load("mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py")
        assert cfg.model.train_cfg.rcnn.sampler.add_gt_as_proposals
    assert not said(cfg)


MASKS = {
    "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": "model.roi_head.mask_head",
    "mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py": "model.bbox_head",
    "mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py": "model.mask_head",
    "mask2former/mask2former_r18_12e_shapes.py": "model.panoptic_head",
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_that_are_not_loaded(name):
    cfg = load(name)
    for _, step in typed_nodes(cfg.train_dataloader.dataset, ""):
        step.pop("with_mask", None)
    problem = said(cfg)[0]
    assert f"LoadAnnotations loads no masks, from which {MASKS[name]} learns; set with_mask=True" in problem
    assert re.match(r"train_dataloader\.dataset[.\w]*\.pipeline\.1: ", problem)


def test_boxes_are_enough_for_box_supervised_masks():
    cfg = load("mmdet::boxinst/boxinst_r50_fpn_ms-90k_coco.py")
    assert "with_mask" not in str(cfg.train_dataloader)
    assert not said(cfg)


def test_segmentation_maps_that_are_not_loaded():
    cfg = load("mmdet::htc/htc_r50_fpn_1x_coco.py")
    dataset = cfg.train_dataloader.dataset
    seg = dataset.data_prefix.pop("seg")
    assert "train_dataloader.dataset.data_prefix: it has no seg" in said(cfg)[0]
    dataset.data_prefix.seg = seg
    dataset.pipeline[1].with_seg = False
    assert "loads no segmentation map, from which model.roi_head.semantic_head learns" in said(cfg)[0]


MISSPELT = [
    ("model.train_cfg.asigner", "model.train_cfg: nothing reads asigner; did you mean assigner?"),
    ("model.train_cfg.allowed_boarder", "did you mean allowed_border?"),
    ("train_dataloader.dataset.metainfo.CLASSES", "metainfo: nothing reads CLASSES; did you mean classes?"),
    ("train_dataloder", "nothing reads train_dataloder; did you mean train_dataloader?"),
    ("optim_wraper", "nothing reads optim_wraper; did you mean optim_wrapper?"),
    ("train_dataloader.dataset.filter_cfg.filter_emtpy_gt", "did you mean filter_empty_gt?"),
]


@pytest.mark.parametrize(("path", "words"), MISSPELT)
def test_keys_that_nobody_reads(path, words):
    cfg = load("atss/atss_r18_fpn_12e_bccd.py")
    change(cfg, path, dict(type="ATSSAssigner"))
    (problem,) = said(cfg)
    assert words in problem


def test_a_head_of_ones_own_may_read_other_keys():
    class Own:
        pass

    cfg = load("atss/atss_r18_fpn_12e_bccd.py")
    cfg.model.bbox_head.own = dict(type=Own)
    cfg.model.train_cfg.update(asigner=1, assigner2=1, strong_assigner=1)
    assert not said(cfg)
    told = [str(one) for one in find_problems(cfg, ["train"], annotations=False) if not one.fatal]
    assert "model.train_cfg: nothing reads asigner; did you mean assigner?" in told


def test_phases_that_have_other_classes():
    cfg = load("atss/atss_r18_fpn_12e_bccd.py")
    cfg.val_dataloader.dataset.metainfo = dict(classes=("WBC", "RBC", "Platelets"))
    (problem,) = said(cfg, "train", "val")
    assert problem.startswith("val_dataloader.dataset: it has 3 classes (WBC, RBC, Platelets), but train_dataloader")
    assert not said(cfg, "train")
    cfg.val_cfg = None
    assert not said(cfg, "train", "val")


# ------------------------------------------------------------------------------------------------------------ notebook


@pytest.fixture
def notebook(tmp_path) -> Config:
    """A config as a notebook makes it, without a loop, and its data."""
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"images/{name}.jpg").touch()
    content = dict(
        images=[dict(id=one, file_name=f"{name}.jpg", width=9, height=9) for one, name in enumerate("ab")],
        categories=[dict(id=0, name="cat"), dict(id=7, name="dog")],
        annotations=[dict(id=1, image_id=0, category_id=0, bbox=[1, 1, 4.5, 4], area=18.0)],
    )
    (tmp_path / "a.json").write_text(json.dumps(content))
    dataset = dict(type="CocoDataset", data_root=str(tmp_path), ann_file="a.json", data_prefix=dict(img="images/"))
    dataset.update(metainfo=dict(classes=("cat", "dog")), pipeline=[dict(type="LoadImageFromFile")])
    return Config(dict(train_dataloader=dict(dataset=dataset)))


def test_a_sound_config_is_passed_and_guarded(notebook, capsys):
    before = copy.deepcopy(notebook.to_dict())
    assert not find_problems(notebook, ["train"])
    assert notebook.to_dict() == before
    check_config(notebook, ["train"])
    assert capsys.readouterr().err == ""
    assert notebook.train_dataloader.dataset.pipeline[0].type == "visdet_assigners.LoadImageFromFile"


def test_all_that_is_wrong_is_told_at_once(notebook):
    notebook.train_dataloader.dataset.metainfo = dict(classes=("dog", "cat"))
    notebook.train_dataloader.dataset.ann_file = "a.json"
    notebook.model = dict(type="RetinaNet", bbox_head=dict(type="RetinaHead", num_classes=3))
    with pytest.raises(UserError) as error:
        check_config(notebook, ["train"])
    text = str(error.value)
    assert text.startswith(
        "2 things are wrong: (1) model.bbox_head.num_classes is 3, but train_dataloader.dataset has 2 "
    )
    assert "; (2) " in text
    assert "a.json: classes in another order than the categories of the file" in text


def test_a_file_that_two_data_sets_read_is_looked_at_once(notebook):
    one = notebook.train_dataloader.dataset
    notebook.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[one, one])
    assert len(look(notebook, ["train"]).reports) == 1


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (dict(ann_file=["a.json", "b.json"]), "ann_file is a list, which mmdet 2 took; make a ConcatDataset"),
        (
            dict(data_prefix=dict(img_path="images/")),
            "it has no img, the folder of the images; write data_prefix=dict(",
        ),
        (dict(metainfo=dict(classes="cat")), 'a single class needs a comma: write metainfo=dict(classes=("cat",))'),
        (dict(metainfo=dict(classes="no/file.txt")), "the file of classes no/file.txt doesn't exist"),
        (dict(metainfo="cat"), "metainfo is 'cat'; write metainfo=dict(classes="),
        (dict(metainfo=dict(classes=[["cat"]])), "write names"),
    ],
)
def test_data_sets_that_mmdet_can_not_build(option, words, notebook):
    for key, value in option.items():
        notebook.train_dataloader.dataset[key] = value
    (problem,) = [str(one) for one in find_problems(notebook, ["train"])]
    assert problem.startswith("train_dataloader.dataset")
    assert words in problem


def test_data_sets_that_are_not_looked_at_are_told(notebook):
    notebook.train_dataloader.dataset.update(type="VOCDataset")
    (problem,) = find_problems(notebook, ["train"])
    assert not problem.fatal
    assert (
        str(problem) == "train_dataloader.dataset: the annotations of VOCDataset aren't looked at, only CocoDataset's"
    )


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data sets are not in {DATA}")
@pytest.mark.parametrize("name", ["bccd", "tiny_coco"])
def test_real_data_are_sound(name, monkeypatch):
    monkeypatch.setenv(f"VISDET_{name.upper()}", str(DATA / name))
    config = {"bccd": "atss/atss_r18_fpn_12e_bccd.py", "tiny_coco": "mask2former/mask2former_r18_24e_tiny-coco.py"}[
        name
    ]
    seen = look(load(config), PHASES)
    assert not [one for one in seen.problems if one.fatal]
    assert len(seen.reports) >= 2
    for _, report in seen.reports:
        assert not report.fatal
        assert report.objects > 300
