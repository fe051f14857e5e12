"""The tool that compares two assigners: the same images, a table, pictures, and trainings from one seed."""

import json
from pathlib import Path

import pytest

from toolbox import ROOT, load_tool

CONFIGS = ROOT / "configs"
ATSS = str(CONFIGS / "atss" / "atss_r18_fpn_12e_shapes.py")
GFL = str(CONFIGS / "gfl" / "gfl_r18_fpn_12e_shapes.py")
YOLOF = str(CONFIGS / "yolof" / "yolof_r18-c4_12e_shapes.py")
FASTER_RCNN = str(CONFIGS / "faster_rcnn" / "faster-rcnn_r18_fpn_12e_shapes.py")
MAX_IOU = ["type=visdet_assigners.MaxIoUAssigner", "pos_iou_thr=0.5", "neg_iou_thr=0.4"]

compare = load_tool("compare_assigners")


pytestmark = pytest.mark.usefixtures("empty_folder")


def run(shapes: str, *argv: str, options: tuple[str, ...] = ()) -> dict:
    compare.main([*argv, "--out-dir", "out", "--cfg-options", f"data_root={shapes}", *options])
    return json.loads(Path("out/comparison.json").read_text())


def test_another_assigner_for_one_config(shapes, capsys):
    result = run(shapes, ATSS, "--to", *MAX_IOU, "--pictures", "2")
    (place,) = result["places"].values()
    first, second = place["assigners"].values()
    assert list(place["assigners"]) == ["ATSSAssigner", "MaxIoUAssigner"]
    assert first["objects"] == second["objects"] > 0
    agreement = place["agreement"]
    both = agreement["agree"] + agreement["another_object"]
    assert both + agreement["only_first"] == first["priors"]["positive"]
    assert both + agreement["only_second"] == second["priors"]["positive"]
    assert 0 < agreement["share"] < 1
    assert len(list(Path("out").glob("*.bbox_head.assigner.png"))) == 2 + 2  # pictures and charts
    assert f"agree on {agreement['share']:.1%}" in capsys.readouterr().out


def test_a_change_of_one_option(shapes):
    result = run(shapes, ATSS, "--to", "type=visdet_assigners.ATSSAssigner", "topk=3", "--pictures", "0")
    (place,) = result["places"].values()
    first, second = place["assigners"].values()
    assert second["priors"]["positive"] < first["priors"]["positive"]


def test_two_configs(shapes):
    result = run(shapes, ATSS, GFL, "--pictures", "0")  # the same assigner on the same anchors
    (place,) = result["places"].values()
    assert place["agreement"]["share"] == 1
    assert list(place["assigners"]) == ["ATSSAssigner, first", "ATSSAssigner, second"]


def test_two_configs_with_other_priors(shapes, capsys):
    result = run(shapes, ATSS, YOLOF, "--pictures", "1", "--max-images", "2")
    (place,) = result["places"].values()
    assert place["agreement"] is None
    output = capsys.readouterr().out
    assert "Their priors differ" in output
    assert "The weights are random" in output  # YOLOF's assigner looks at predictions


@pytest.mark.slow(reason="trains twice")
def test_training(shapes):
    fast = ("train_cfg.max_epochs=1", "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False",
            "val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False",
            "model.test_cfg.score_thr=0.0")  # fmt: skip
    options = ["--to", "type=visdet_assigners.ATSSAssigner", "topk=3", "--pictures", "0", "--train"]
    result = run(shapes, ATSS, *options, options=fast)
    assert list(result["metrics"]) == ["ATSSAssigner, first", "ATSSAssigner, second"]
    assert all("coco/bbox_mAP" in metrics for metrics in result["metrics"].values())
    assert {path.name for path in Path("out").glob("*.png")} >= {"losses.png", "precision.png"}
    assert Path("out/training_a").is_dir()
    assert Path("out/training_b").is_dir()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([ATSS], "give two configs, or one and --to"),
        ([ATSS, GFL, "--to", "type=A"], "give two configs, or one and --to"),
        ([ATSS, "--to", "topk=3"], "--to: say which assigner"),
        ([ATSS, "--to", "type=visdet_assigners.ATSSAssigner", "top=3"], "missing a required argument: 'topk'"),
        ([ATSS, "--to", "type=visdet_assigners.ATSSAssigner", "topk=9"], "--to gives the assigner that the config has"),
        ([FASTER_RCNN, "--to", *MAX_IOU], "choose with --at one of model.train_cfg.rpn.assigner, "),
        ([ATSS, "--to", *MAX_IOU, "--at", "model.x"], "the config has no assigner at model.x"),
        (
            [ATSS, "--to", "type=visdet_assigners.SimOTAAssigner"],
            "SimOTAAssigner can't be asked with what the head gives",
        ),
        ([ATSS, GFL, "--max-images", "0"], "--max-images 0"),
    ],
)
def test_mistakes_are_told_in_one_line(shapes, capsys, argv, message):
    with pytest.raises(SystemExit) as exit_:
        compare.main([*argv, "--cfg-options", f"data_root={shapes}"])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
