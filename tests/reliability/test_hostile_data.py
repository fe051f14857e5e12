"""Images and annotations that are damaged, too large, or reach outside their folder: named, and never decoded first."""

import json
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile as LoadOfMMCV
from mmdet.visualization import DetLocalVisualizer

from toolbox import ROOT, load_tool
from visdet_assigners.commands.config import read_config
from visdet_assigners.registry import typed_nodes
from visdet_assigners.training.annotations import AnnotationError, check_annotations, read_json
from visdet_assigners.training.datasets import guard_images
from visdet_assigners.training.images import (
    ImageError,
    LoadImageFromFile,
    header_fault,
    is_below,
    leads_out,
    real_folders,
)

CONFIG = str(ROOT / "configs/atss/atss_r18_fpn_12e_shapes.py")
SHORT = ["train_dataloader.batch_size=2", "train_cfg.max_epochs=1", "val_cfg=None", "val_dataloader=None",
         "val_evaluator=None", "train_dataloader.num_workers=1"]  # fmt: skip


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "shapes"
    load_tool("make_shapes").main([str(folder), "--train", "4", "--val", "2", "--size", "64", "64"])
    monkeypatch.setenv("VISDET_SHAPES", str(folder))
    monkeypatch.chdir(tmp_path)
    yield folder
    DetLocalVisualizer._instance_dict.clear()  # that of a training that was stopped holds its folder


def picture(path, extension=".jpg", size=(40, 30)):
    image = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(extension, image)[1].tobytes())
    return path


def vast_png(path, side=12_000):
    """Some hundred kilobytes that unfold to 432 MB."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes(side * 3 + 1) * side, 1)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])
    return path


def text(path, content="no picture"):
    path.write_text(content)
    return path


# --------------------------------------------------------------------------------------------------------- one image

BAD = {
    "empty": (lambda path: text(path, ""), "it is empty"),
    "text": (text, "no image that can be read"),
    "cut off": (lambda path: cut(picture(path)), "it is cut off"),
    "cut off PNG": (lambda path: cut(picture(path, ".png")), "it is cut off"),
    "too large": (vast_png, "12000x12000 pixels are more than 67,108,864; set VISDET_MAX_PIXELS"),
    "missing": (lambda path: path, "No such file"),
    "folder": (lambda path: path.mkdir() or path, "Is a directory"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image(kind, tmp_path, monkeypatch, capsys):
    make, reason = BAD[kind]
    path = str(make(tmp_path / "a.jpg"))
    monkeypatch.setattr("mmcv.imfrombytes", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ImageError) as caught:
        LoadImageFromFile()(dict(img_path=path))
    assert path in str(caught.value)
    assert reason in str(caught.value)
    skipping = LoadImageFromFile(on_bad="skip")
    assert skipping(dict(img_path=path)) is None
    assert skipping(dict(img_path=path)) is None
    assert capsys.readouterr().err.count(path) == 1
    assert LoadImageFromFile(ignore_empty=True)(dict(img_path=path)) is None
    assert not capsys.readouterr().err


def test_what_only_decoding_shows(tmp_path):
    path = picture(tmp_path / "a.png", ".png")
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 4
    content[start : start + 8] = bytes(8)
    path.write_bytes(content)
    assert header_fault(path) is None
    with pytest.raises(ImageError, match=f"{path} can't be used: it can't be decoded"):
        LoadImageFromFile()(dict(img_path=str(path)))


GRAY = dict(imdecode_backend="pillow", color_type="grayscale")


@pytest.mark.parametrize("options", [{}, dict(to_float32=True), GRAY], ids=["plain", "float", "gray"])
@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_a_sound_image_is_as_mmcvs(options, extension, tmp_path):
    path = str(picture(tmp_path / "a", extension))
    ours, theirs = (one(**options)(dict(img_path=path)) for one in (LoadImageFromFile, LoadOfMMCV))
    assert ours.keys() == theirs.keys()
    assert ours["img"].dtype == theirs["img"].dtype
    assert np.array_equal(ours["img"], theirs["img"])
    assert (ours["img_shape"], ours["ori_shape"]) == (theirs["img_shape"], theirs["ori_shape"])


def test_the_limit_can_be_set(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.jpg")
    monkeypatch.setenv("VISDET_MAX_PIXELS", "1199")
    assert "40x30 pixels are more than 1,199" in header_fault(path)
    monkeypatch.setenv("VISDET_MAX_PIXELS", "1200")
    assert header_fault(path) is None
    monkeypatch.setenv("VISDET_MAX_PIXELS", "many")
    with pytest.raises(ImageError, match="'many'; give a number"):
        header_fault(path)


MASKS = {
    "too large": (dict(size=[40_000, 40_000], counts="x"), "40000x40000 pixels are more than the image has"),
    "counts": (dict(size=[30, 40], counts=[0, 1201]), "don't add up to 30x40"),
    "negative": (dict(size=[30, 40], counts=[-1, 1201]), "don't add up to 30x40"),
    "no size": (dict(counts=[0, 1200]), r"size None is not \[height, width\]"),
    "no counts": (dict(size=[30, 40]), "it has no counts"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_bad_mask(kind, tmp_path):
    mask, reason = MASKS[kind]
    instances = [dict(mask=[[1, 1, 5, 5, 1, 5]]), dict(mask=mask)]
    results = dict(img_path=str(picture(tmp_path / "a.jpg")), instances=instances)
    with pytest.raises(ImageError, match=f"a.jpg can't be used: a mask of it: .*{reason}"):
        LoadImageFromFile()(results)
    image = dict(id=1, file_name="a.jpg", width=40, height=30)
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 5, 5], area=25, segmentation=mask)
    content = dict(images=[image], annotations=[box], categories=[dict(id=1, name="a")])
    (tmp_path / "a.json").write_text(json.dumps(content))
    (defect, *_) = check_annotations(tmp_path / "a.json").fatal
    assert str(defect).startswith("masks that can't be drawn: annotation 1 of image a.jpg (")


# ------------------------------------------------------------------------------------------- out of the image folder

OUT = ["/etc/passwd", "../a.jpg", "b/../../a.jpg", "..\\a.jpg", "C:\\a.jpg", "C:a.jpg", "\\\\host\\a.jpg", "\\a.jpg"]


def test_names_that_lead_out():
    assert all(leads_out(name) for name in OUT)
    assert not any(leads_out(name) for name in ("a.jpg", "b/a.jpg", "..a.jpg", "a..jpg", "b..c/d.jpg", "ä b.jpg"))


def test_links(tmp_path):
    inside, outside = tmp_path / "root" / "images", tmp_path / "elsewhere"
    inside.mkdir(parents=True)
    outside.mkdir()
    picture(outside / "a.jpg")
    (inside / "link.jpg").symlink_to(outside / "a.jpg")
    (inside / "folder").symlink_to(outside)
    (tmp_path / "root2").symlink_to(tmp_path / "root")
    picture(inside / "b.jpg")
    for name, root, is_in in (
        ("link.jpg", "root", False),
        ("folder/a.jpg", "root", False),
        ("b.jpg", "root", True),
        ("b.jpg", "root2", True),
        ("link.jpg", "", True),
        ("../../elsewhere/a.jpg", "root", False),
    ):
        load = LoadImageFromFile(roots=[str(tmp_path / root)], on_bad="skip")
        results = dict(img_path=str(inside / name))
        if is_in:
            assert load(results)["img_shape"] == (30, 40)
        else:
            with pytest.raises(ImageError, match=f"{name} lies outside .*root; mend the file name, or, for a link"):
                load(results)
    assert not is_below(tmp_path / "root2x/a", real_folders([tmp_path / "root2"]))


TOOLS = {
    "train": [CONFIG],
    "browse_assignments": [CONFIG, "--out-dir", "out"],
    "assignment_report": [CONFIG, "--out-dir", "out"],
    "compare_assigners": [
        CONFIG,
        "--to",
        "type=MaxIoUAssigner",
        "pos_iou_thr=0.5",
        "neg_iou_thr=0.4",
        "--out-dir",
        "out",
    ],
    "compare_losses": [CONFIG, "--iterations", "2"],
    "time_training": [CONFIG, "--iterations", "3"],
    "hook_cost": [CONFIG, "--iterations", "2"],
    "test": [CONFIG, "model.pth"],
    "test --tta": [CONFIG, "model.pth", "--tta"],
}


@pytest.mark.parametrize("how", ["name", "link"])
@pytest.mark.parametrize("tool", TOOLS)
def test_no_tool_reads_outside(tool, how, shapes, capsys):
    """The picture outside is a sound one: nothing but the place is wrong with it."""
    split, name = "val" if tool.startswith("test") else "train", "000000.jpg"
    secret, first = shapes.parents[1] / "secret.jpg", shapes / f"images/{split}/{name}"
    shutil.move(first, secret)
    if how == "link":
        first.symlink_to(secret)
    else:
        path = shapes / f"annotations/{split}.json"
        path.write_text(path.read_text().replace(name, "../../../../secret.jpg"))
    torch.save(dict(state_dict={}), "model.pth")
    with pytest.raises(SystemExit) as stopped:
        load_tool(tool.split()[0]).main(TOOLS[tool])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "secret.jpg" in line or name in line
    assert "lead out of" in line or "lies outside" in line


def test_every_config_is_guarded():
    """mmdet's own configs, those of the package, and pipelines inside other data sets."""
    configs = sorted((ROOT / "configs").glob("[a-z]*/*_r18*_12e_shapes.py"))[::3]
    theirs = ("atss/atss_r50_fpn_1x_coco", "yolox/yolox_s_8xb8-300e_coco", "rtmdet/rtmdet-ins_s_8xb32-300e_coco")
    configs += [Path(mmdet.__file__).parent / f".mim/configs/{name}.py" for name in theirs]
    for path in configs:
        cfg = read_config(str(path))
        guard_images(cfg, ["train", "val", "test"])
        for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
            kinds = {str(node["type"]) for _, node in typed_nodes(cfg[loader].dataset, "")}
            assert {kind for kind in kinds if "LoadImage" in kind} == {"visdet_assigners.LoadImageFromFile"}, path


@pytest.mark.parametrize("setting", ["ann_file=a.pkl", "ann_file=a.YAML", "proposal_file=p.pickle"])
def test_files_that_are_code(setting, shapes, capsys):
    with pytest.raises(SystemExit):
        load_tool("train").main([CONFIG, "--cfg-options", f"train_dataloader.dataset.{setting}"])
    assert f"{setting.replace('=', ' ')} of train_dataloader.dataset could run code" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- a training with it


def train(*options, more=()):
    load_tool("train").main([CONFIG, "--work-dir", "work", *options, "--cfg-options", *SHORT, "log_level=ERROR", *more])


@pytest.mark.slow(reason="trains")
@pytest.mark.parametrize("workers", ["1", "0"])
def test_met_while_training(workers, shapes, capsys, monkeypatch):
    bad = cut(shapes / "images/train/000002.jpg")
    monkeypatch.setattr("sys.argv", ["train.py"])
    more = [f"train_dataloader.num_workers={workers}", f"train_dataloader.persistent_workers={workers == '1'}"]
    with pytest.raises(SystemExit) as stopped:
        train(more=more)
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"train.py: error: the image {bad} can't be used: it is cut off"


def test_skipped_while_training(shapes, capfd):
    bad = cut(shapes / "images/train/000002.jpg")
    train("--bad-images", "skip")
    assert f"left out: the image {bad} can't be used: it is cut off" in capfd.readouterr().err
    assert Path("work/epoch_1.pth").exists()


@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_seen_before_the_start(choice, shapes, capsys, monkeypatch):
    (shapes / "images/train/000001.jpg").write_bytes(b"")
    (shapes / "images/train/000003.jpg").write_text("no picture")
    tool, begun = load_tool("train"), []
    monkeypatch.setattr(tool, "build_runner", lambda cfg: begun.append(cfg) or type("", (), {"train": list})())
    arguments = [CONFIG, "--check-images", "--bad-images", choice]
    if choice == "stop":
        with pytest.raises(SystemExit):
            tool.main(arguments)
    else:
        tool.main(arguments)
    error = capsys.readouterr().err
    assert "train.json: 2 images are left out: images that can't be read: " in error or choice == "stop"
    assert "images that can't be read: image 000001.jpg (it is empty); image 000003" in error
    assert bool(begun) == (choice == "skip")


def test_an_image_to_validate_on_is_never_skipped(shapes, capsys):
    (shapes / "images/val/000001.jpg").write_bytes(b"")
    with pytest.raises(SystemExit):
        load_tool("train").main([CONFIG, "--check-images", "--bad-images", "skip"])
    assert "val.json: images that can't be read: image 000001.jpg" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- annotations

TEXTS = {
    "deep": ("[" * 100_000, "nests lists deeper"),
    "digits": ('{"images": ' + "9" * 5000 + "}", "can't be read"),
    "NaN": ('{"images": [{"id": NaN}]}', "holds NaN, which is no JSON"),
    "Infinity": ('{"images": [{"id": -Infinity}]}', "holds -Infinity, which is no JSON"),
    "cut off": ('{"images": [{"id": 1', "is no whole JSON file"),
    "not UTF-8": (b'{"images": "\xff"}', "can't be read"),
    "a number": ("3", "has no list of images"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts(kind, tmp_path):
    content, reason = TEXTS[kind]
    path = tmp_path / "train.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AnnotationError, match=reason) as caught:
        check_annotations(path)
    assert str(path) in str(caught.value)


HUGE = 10**400
VALUES = [None, [], {}, [1], True, "x", "", "\0", HUGE, -1, 0, 1.5, 1e999, [[]], [None] * 4, [HUGE] * 4]


@pytest.mark.parametrize("value", VALUES, ids=lambda one: repr(one)[:12])
def test_any_value_anywhere(value, tmp_path):
    """A COCO file with any value in any place is reported on, and never crashes the report."""
    sound = dict(
        images=[dict(id=1, file_name="a.jpg", width=40, height=30)],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 5, 5], area=25, iscrowd=0, segmentation=[])],
        categories=[dict(id=1, name="a")],
    )
    path = tmp_path / "train.json"
    path.write_text(json.dumps(sound))
    picture(tmp_path / "a.jpg")
    assert read_json(path) == sound
    for part, (item,) in sound.items():
        for key in item:
            changed = {**sound, part: [{**item, key: value}]}
            path.write_text(json.dumps(changed).replace("Infinity", "1e999"))
            report = check_annotations(path, tmp_path)
            assert all(str(defect) for defect in report.fatal + report.dropped)
