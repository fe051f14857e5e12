"""The tool that reports on a data set: right numbers, one self-contained page, with weights and without."""

import json
import shutil
import signal
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from toolbox import ROOT, load_tool
from visdet_assigners.observe.detector import build_model

CONFIGS = ROOT / "configs"
ATSS = str(CONFIGS / "atss" / "atss_r18_fpn_12e_shapes.py")
FASTER_RCNN = str(CONFIGS / "faster_rcnn" / "faster-rcnn_r18_fpn_12e_shapes.py")
DETR = str(CONFIGS / "detr" / "detr_r18_50e_shapes.py")
DEFORMABLE = str(CONFIGS / "deformable_detr" / "deformable-detr-refine_r18_50e_shapes.py")

report = load_tool("assignment_report")


pytestmark = pytest.mark.usefixtures("empty_folder")


def run(shapes: str, *argv: str) -> dict:
    report.main([*argv, "--out-dir", "out", "--cfg-options", f"data_root={shapes}"])
    return json.loads(Path("out/report.json").read_text())


class Addresses(HTMLParser):
    """Collects what a page loads, links to, and the anchors it has."""

    def __init__(self):
        super().__init__()
        self.loaded, self.links, self.anchors = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.loaded += [attrs[name] for name in ("src", "srcset") if name in attrs]
        (self.loaded if tag == "link" else self.links).extend(
            [attrs["href"]] if "href" in attrs and tag != "use" else []
        )
        self.anchors += [attrs["id"]] if "id" in attrs else []


def test_ctrl_c_keeps_what_is_done(shapes, monkeypatch):
    asked = []

    def assignments(*args):
        asked.append(args)
        if len(asked) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    real = report.assignments
    monkeypatch.setattr("visdet_assigners.commands.report.assignments", assignments)
    argv = [ATSS, "--out-dir", "out", "--cfg-options", f"data_root={shapes}"]
    assert report.main(argv) == 130
    found = json.loads(Path("out/report.json").read_text())
    assert found["images"] == 3
    assert any(note.startswith("Interrupted after 3 of ") for note in found["notes"])
    assert "Interrupted after 3 of " in Path("out/report.html").read_text()


def test_annotations_are_enough_for_atss(shapes, capsys):
    annotations = json.loads((Path(shapes) / "annotations" / "train.json").read_text())
    whole = run(shapes, ATSS, "--pictures", "2")
    page = Path("out/report.html").read_text()
    output = capsys.readouterr()
    assert "ATSSAssigner (bbox_head.assigner)" in output.out
    assert "assigning" in output.err  # the progress bar
    (section,) = whole["assigners"].values()
    assert section["objects"] == len([found for found in annotations["annotations"] if not found["iscrowd"]])
    assert section["priors"]["positive"] == sum(section["by_level"].values()) > 0
    assert sum(row["objects"] for row in section["by_size"]) == section["objects"]
    assert {row["class"] for row in section["by_class"]} <= {"circle", "rectangle", "triangle", "star"}
    assert len(section["objects_without"]) == round(section["without"] * section["objects"])

    found = Addresses()
    found.feed(page)
    assert len([address for address in found.loaded if address.startswith("data:image/jpeg;base64,")]) == 2
    assert all(address.startswith("data:") for address in found.loaded)  # the page needs no other file
    assert all(link[1:] in found.anchors for link in found.links)
    assert page.count("<svg") == 3

    # the same numbers from the network and the images, and no image read without pictures
    weights = {"state_dict": build(ATSS).state_dict()}
    torch.save(weights, "weights.pth")
    with_network = run(shapes, ATSS, "weights.pth", "--pictures", "0")
    for section in with_network["assigners"].values():
        assert section.pop("random_weights") is False
    for section in whole["assigners"].values():
        assert section.pop("random_weights") is True
    assert with_network["assigners"] == whole["assigners"]
    copied = Path(shutil.copytree(shapes, "shapes"))
    for image in (copied / "images" / "train").iterdir():
        image.unlink()
    blank = run(str(copied), ATSS, "--pictures", "0")["assigners"]["bbox_head.assigner"]
    assert blank["by_class"] == section["by_class"]
    assert blank["priors"] == section["priors"]


def build(config):
    with DefaultScope.overwrite_default_scope("mmdet"):
        return build_model(Config.fromfile(config), None)


def test_second_stages_need_a_checkpoint(shapes):
    bare = run(shapes, FASTER_RCNN, "--pictures", "1")
    assert list(bare["assigners"]) == ["rpn_head.assigner"]
    assert "MaxIoUAssigner (roi_head.bbox_assigner); with a CHECKPOINT" in bare["notes"][0]
    assert len(bare["assigners"]["rpn_head.assigner"]["by_class"]) > 1  # though a proposal network sees one class
    torch.save({"state_dict": build(FASTER_RCNN).state_dict()}, "weights.pth")
    whole = run(shapes, FASTER_RCNN, "weights.pth", "--pictures", "0")
    assert list(whole["assigners"]) == ["rpn_head.assigner", "roi_head.bbox_assigner"]
    assert whole["assigners"]["rpn_head.assigner"]["priors"] == bare["assigners"]["rpn_head.assigner"]["priors"]
    assert whole["notes"] == []


def test_queries_have_layers(shapes, capsys):
    data = run(shapes, DEFORMABLE, "--max-images", "2", "--pictures", "1")
    (section,) = data["assigners"].values()
    assert data["images"] == 2
    assert section["median_positives"] == 1
    assert len(section["layer_quality"]) == len(section["layer_changes"]) + 1 == 3
    assert np.all((np.array(section["layer_changes"]) >= 0) & (np.array(section["layer_changes"]) <= 1))
    assert "the weights are random" in capsys.readouterr().out


def test_mistakes_are_told_in_one_line(shapes, capsys):
    for argv, message in [
        (["--max-images", "0"], "--max-images 0"),
        (["nothing.pth"], "checkpoint nothing.pth doesn't exist"),
    ]:
        with pytest.raises(SystemExit) as exit_:
            report.main([ATSS, *argv, "--cfg-options", f"data_root={shapes}"])
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
