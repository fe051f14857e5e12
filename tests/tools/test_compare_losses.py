"""Drop-in: the same seed with mmdet's assigners and with ours gives the same losses, to the last bit.

A short version, on drawn shapes; configs/README.md has the long one on real images.
"""

import sys

import pytest

from toolbox import ROOT, load_tool
from visdet_assigners.assigners import atss

compare = load_tool("compare_losses")

FAMILIES = {
    "faster-rcnn": ("faster_rcnn/faster-rcnn_r18_fpn_12e_shapes.py", {}),
    "atss": ("atss/atss_r18_fpn_12e_shapes.py", {}),
    "tood": ("tood/tood_r18_fpn_12e_shapes.py", {"model.train_cfg.initial_epoch": 0}),
    "yolox": ("yolox/yolox_nano_24e_shapes.py", {}),
    "deformable-detr": ("deformable_detr/deformable-detr-refine_r18_50e_shapes.py", {}),
    "detr": ("detr/detr_r18_50e_shapes.py", {}),
    "rpn": ("rpn/rpn_r18_fpn_12e_shapes.py", {}),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("shapes")
    load_tool("make_shapes").main([str(folder), "--train", "8", "--val", "1", "--size", "160", "120"])
    return str(folder)


@pytest.fixture(autouse=True)
def mmdet_keeps_its_classes():
    yield
    if "visdet_assigners.dropin" in sys.modules:
        sys.modules["visdet_assigners.dropin"].restore()


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


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_equal_to_the_last_bit(shapes, family, capsys):
    assert run(shapes, family) == 0
    assert "equal to the last bit" in capsys.readouterr().out


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
