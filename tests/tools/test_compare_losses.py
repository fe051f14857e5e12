"""Drop-in: the same seed with mmdet's assigners and with ours gives the same losses, to the last bit.

A short version, on drawn shapes; configs/README.md has the long one on real images.
"""

import pytest
from mmengine.config import Config

from toolbox import ROOT, load_tool
from visdet_assigners.assigners import atss
from visdet_assigners.commands.config import set_data_root

compare = load_tool("compare_losses")

FAMILIES = {
    "faster-rcnn": ("faster_rcnn/faster-rcnn_r18_fpn_12e_shapes.py", {}),
    "atss": ("atss/atss_r18_fpn_12e_shapes.py", {}),
    "tood": ("tood/tood_r18_fpn_12e_shapes.py", {"model.train_cfg.initial_epoch": 0}),
    "yolox": ("yolox/yolox_nano_24e_shapes.py", {}),
    "deformable-detr": ("deformable_detr/deformable-detr-refine_r18_50e_shapes.py", {}),
    "detr": ("detr/detr_r18_50e_shapes.py", {}),
    "reppoints": ("reppoints/reppoints-moment_r18_fpn-gn_head-gn_12e_shapes.py", {}),
    "rpn": ("rpn/rpn_r18_fpn_12e_shapes.py", {}),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("shapes")
    load_tool("make_shapes").main([str(folder), "--train", "8", "--val", "1", "--size", "160", "120"])
    return str(folder)


def run(shapes: str, family: str, iterations: int = 3) -> int:
    config, settings = FAMILIES[family]
    settings = {
        **settings,
        "data_root": shapes,
        "train_dataloader.batch_size": 2,
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
    }
    options = [f"{key}={value}" for key, value in settings.items()]
    return compare.main([str(ROOT / "configs" / config), "--iterations", str(iterations), "--cfg-options", *options])


SHORT = ("atss",)
LONGER = [pytest.param(name, marks=pytest.mark.slow(reason="trains twice")) for name in FAMILIES if name not in SHORT]


@pytest.mark.parametrize("family", [*SHORT, *LONGER])
def test_losses_are_equal_to_the_last_bit(shapes, family, capsys):
    assert run(shapes, family) == 0
    assert "equal to the last bit" in capsys.readouterr().out


THE_SAME_OTHERWISE = {
    "mask2former": (
        "mask2former/mask2former_r18_12e_shapes.py",
        {
            "model.train_cfg.assigner": {
                "_delete_": True,
                "type": "mmdet.HungarianAssigner",
                "match_costs": [
                    {"type": "mmdet.ClassificationCost", "weight": 2.0},
                    {"type": "mmdet.CrossEntropyLossCost", "weight": 5.0, "use_sigmoid": True},
                    {"type": "mmdet.DiceCost", "weight": 5.0, "pred_act": True, "eps": 1.0},
                ],
            }
        },
    ),
    "static-retinanet": (
        "static_retinanet/static-retinanet_r18_fpn_12e_bccd.py",
        {"model.bbox_head.type": "RetinaHead", "model.train_cfg.assigner.type": "mmdet.MaxIoUAssigner"},
    ),
}


@pytest.mark.slow(reason="trains twice")
@pytest.mark.parametrize("family", THE_SAME_OTHERWISE)
def test_assigners_that_mmdet_lacks_train_as_those_that_do_the_same_there(shapes, family):
    config, changes = THE_SAME_OTHERWISE[family]
    runs = []
    for options in ({}, changes):
        cfg = Config.fromfile(ROOT / "configs" / config)
        cfg.merge_from_dict(options)
        set_data_root(cfg, shapes)
        loader = cfg.train_dataloader
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.metainfo = {"classes": ("circle", "rectangle", "triangle", "star")[: num_classes(cfg)]}
        loader.dataset.data_prefix = {"img": "images/train/"}
        cfg.launcher = "none"
        runs.append(compare.record_losses(cfg, 3, family))
    assert compare.first_difference(*runs) == ""
    assert len(runs[0]) == 3


def num_classes(cfg: Config) -> int:
    head = cfg.model.get("bbox_head") or cfg.model.panoptic_head
    return head.get("num_classes") or head.num_things_classes


def test_a_difference_is_found(shapes, capsys, monkeypatch):
    monkeypatch.setattr(atss, "INSIDE", 3.0)
    assert run(shapes, "atss", iterations=2) == 1
    assert "different: iteration" in capsys.readouterr().out


def test_the_first_difference_is_told():
    nan = float("nan")
    assert compare.first_difference([{"loss": 1.0}, {"loss": nan}], [{"loss": 1.0}, {"loss": nan}]) == ""
    assert "iteration 2, loss" in compare.first_difference([{"loss": 1.0}] * 2, [{"loss": 1.0}, {"loss": 1.0 + 1e-15}])
    assert "iteration 1, b: 'absent'" in compare.first_difference([{"a": 1.0}], [{"a": 1.0, "b": 2.0}])


def test_more_iterations_than_the_schedule_has(shapes, capsys):
    with pytest.raises(SystemExit) as exit_:
        compare.main(
            [str(ROOT / "configs/atss/atss_r18_fpn_12e_shapes.py"), "--iterations", "9", "--cfg-options",
             f"data_root={shapes}", "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False",
             "train_cfg.max_epochs=1"]
        )  # fmt: skip
    assert exit_.value.code == 2
    assert "ends after" in capsys.readouterr().err
