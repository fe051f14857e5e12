"""The walk over configs: each in a process of its own, what it came to is told rightly, and results are kept."""

import json
import shutil
from pathlib import Path

import pytest

from toolbox import ROOT, load_tool

zoo = load_tool("walk_zoo")

GIGABYTE = 1024**3
SMALL = f"""
_base_ = {str(ROOT / "configs" / "atss" / "atss_r18_fpn_12e_shapes.py")!r}
model = dict(backbone=dict(depth=18))
"""


@pytest.fixture(scope="module")
def data(shapes, tmp_path_factory) -> Path:
    """The drawn pictures in COCO's layout."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "annotations").mkdir()
    shutil.copy(f"{shapes}/annotations/train.json", folder / "annotations" / "instances_train2017.json")
    (folder / "train2017").symlink_to(f"{shapes}/images/train")
    return folder


def write(folder: Path, **configs: str) -> Path:
    """Write ``FAMILY__CONFIG`` as ``FAMILY/CONFIG.py``."""
    for name, text in configs.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.slow(reason="two commands for each config")
def test_a_walk(data, tmp_path, capsys, monkeypatch):
    configs = write(tmp_path / "configs", atss__small=SMALL, parts__schedule="max_epochs = 12")
    out = tmp_path / "out"
    argv = ["--configs", str(configs), "--data", str(data), "--out-dir", str(out), "--max-images", "1"]
    assert zoo.main(argv) == 0
    results = json.loads((out / "results.json").read_text())
    small, part = results["atss/small.py"], results["parts/schedule.py"]
    assert (small["report"]["outcome"], small["browse"]["outcome"]) == ("works", "works")
    assert small["data"] == ["CocoDataset"]
    assert small["report"]["assigners"] == {"bbox_head.assigner": "ATSSAssigner"}
    assert small["report"]["objects"] > 0
    assert small["browse"]["pictures"] == 1
    assert len(list((out / "atss" / "small" / "browse").glob("*.bbox_head.assigner.png"))) == 1
    assert (part["report"]["outcome"], part["browse"]["outcome"]) == ("refused", "refused")
    assert part["report"]["word"].startswith("the config has no model")
    printed = capsys.readouterr().out
    assert "| atss | `small.py` | Coco | works | works | ATSS |" in printed
    assert "| works | works |  | 1 | atss |" in printed
    assert "| refused | refused | a part of other configs, or not trained | 1 | parts |" in printed
    assert "2 configs of 2 folders" in printed

    # What is known is not walked again, unless that is asked for; a traceback is told and makes the status 1.
    def fail(argv):
        raise ValueError("unforeseen")

    monkeypatch.setattr(zoo.browse, "main", fail)
    assert zoo.main(argv) == 0
    assert zoo.main([*argv, "--again", "--only", "parts/*"]) == 1
    assert "| parts | `schedule.py` |  | refused | traceback |" in capsys.readouterr().out
    assert zoo.main(["--table", "--out-dir", str(out)]) == 1
    assert "ValueError: unforeseen" in capsys.readouterr().out


def exit_with_a_line():
    print("something before")
    raise SystemExit("report: error: no such thing")


def exit_as_refused():
    print("report: error: there is no head here")
    raise SystemExit(2)


def take_memory():
    return bytearray(3 * GIGABYTE)


def take_time():
    while True:
        pass


@pytest.mark.parametrize(
    ("job", "kind", "word"),
    [
        (lambda: print("all is well"), "works", ""),
        (exit_as_refused, "refused", "there is no head here"),
        (exit_with_a_line, "traceback", "something before"),  # status 1 is no refusal
        (lambda: {}["key"], "traceback", "KeyError: 'key'"),
        (take_memory, "traceback", "MemoryError"),
        (take_time, "wrong", "killed by SIGXCPU after 1 s"),
    ],
)
def test_what_a_command_comes_to(job, kind, word, tmp_path):
    log = tmp_path / "log"
    result = zoo.outcome(*zoo.run_apart(job, log, 1, GIGABYTE), log)
    assert (result["outcome"], result["word"]) == (kind, word)


def test_of_each_folder_the_smallest_and_another_kind(tmp_path):
    head = "train_dataloader = dict(dataset=dict(type='CocoDataset'))\nmodel = dict(type='{}')\n"
    configs = write(
        tmp_path,
        one__a_r101=head.format("A"), one__a_r50_long=head.format("A"), one__a_r50=head.format("A"),
        one__a_x101=head.format("B"), one__broken_r18="1 / 0",
        parts__b="x = 1", parts__long="x = 1",
    )  # fmt: skip
    write(tmp_path / "_base_", c__d=head.format("A"))
    assert zoo.choose(configs, [], 2) == ["one/a_r50.py", "one/a_x101.py", "parts/b.py"]
    assert zoo.choose(configs, [], 1) == ["one/a_r50.py", "parts/b.py"]
    assert zoo.choose(configs, ["one/a_r1*", "parts/b.py"], 1) == ["one/a_r101.py", "parts/b.py"]


def test_images_are_made_small_wherever_a_pipeline_says_how_large():
    pipeline = [
        {"type": "Mosaic", "img_scale": (640, 640)},
        {"type": "RandomAffine", "border": (-320, -320)},
        {"type": "RandomChoice", "transforms": [[{"type": "Resize", "scales": [(480, 1333), (400, 4200)]}]]},
        {"type": "RandomCrop", "crop_size": (511, 511), "ratios": (0.5, 1.5)},
        {"type": "RandomFlip", "prob": 0.5},
    ]
    dataset = {"type": "RepeatDataset", "dataset": {"type": "CocoDataset", "pipeline": pipeline}}
    options = list(zoo.small_images(dataset, "d", 512))
    assert options == [
        "d.dataset.pipeline.0.img_scale=(256,256)",
        "d.dataset.pipeline.1.border=(-128,-128)",
        "d.dataset.pipeline.2.transforms.0.0.scales=[(192,512),(160,1600)]",
        "d.dataset.pipeline.3.crop_size=(191,191)",
    ]
    assert list(zoo.small_images([{"type": "Resize", "scale": (300, 300)}], "p", 256)) == []  # SSD takes no others


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("FCOS has no assigner, so there is nothing to look at: targets are computed in FCOSHead", ("no assigner", "")),
        ("the config needs the package torchvision, which isn't installed: pip install torchvision",
         ("a package is missing", "torchvision")),
        ("the config needs a package that is missing: albumentations is not installed",
         ("a package is missing", "albumentations")),
        ('the config needs a package that is missing: Please run "pip install instaboostfast" to install it',
         ("a package is missing", "instaboostfast")),
        ('Please run "pip install openmim" and run "mim install mmpretrain" to install mmpretrain first',
         ("a package is missing", "mmpretrain")),
        ("custom_imports of a.py: Failed to import mmpretrain.models; install its package, or add its folder",
         ("a package is missing", "mmpretrain")),
        ("the training step fails on a.jpg: mmcv has no carafe for the device cpu",
         ("an operator that mmcv has for a GPU alone", "carafe")),
        ("something else", ("something else", "")),
    ],
)  # fmt: skip
def test_refusals_are_put_together_by_their_reason(word, kind):
    assert zoo.reason(word) == kind


def test_what_looks_right_and_is_not_is_found(tmp_path):
    section = {"assigner": "ATSSAssigner", "objects": 0, "priors": {"total": 5}}
    (tmp_path / "report.json").write_text(json.dumps({"assigners": {"head.assigner": section}, "notes": []}))
    (tmp_path / "report.html").write_text("page")
    facts = {"assigners": ["ATSSAssigner", "TaskAlignedAssigner"]}
    found = zoo.look_at_report(tmp_path, facts)
    assert found["outcome"] == "wrong"
    assert found["word"] == "head.assigner: no objects; not a word of TaskAlignedAssigner"
    zoo.Image.new("RGB", (8, 8), "white").save(tmp_path / "1.head.assigner.png")
    assert zoo.look_at_pictures(tmp_path, facts)["word"] == "1.head.assigner.png is empty"


def test_mistakes_are_told_in_one_line(tmp_path, capsys):
    for argv, words in (
        ([], "--data is needed"),
        (["--data", "."], "annotation file annotations/instances_train2017.json doesn't exist"),
        (["--data", ".", "--each", "0"], "--each is 0"),
    ):
        with pytest.raises(SystemExit) as exit_:
            zoo.main([*argv, "--out-dir", str(tmp_path)])
        assert exit_.value.code == 2
        assert words in capsys.readouterr().err
