"""The tool that draws assignments: any config, with or without weights, on images and boxes that fit each other."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmcv import imread
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmengine.config import Config
from mmengine.registry import DefaultScope

from toolbox import ROOT, load_tool
from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.observe.detector import shown_image

ATSS = str(ROOT / "configs" / "atss" / "atss_r18_fpn_12e_shapes.py")
CASCADE = str(ROOT / "configs" / "cascade_rcnn" / "cascade-rcnn_r18_fpn_12e_shapes.py")
CROWDDET = str(ROOT / "configs" / "crowddet" / "crowddet-rcnn_r18_fpn_12e_bccd.py")
MASK2FORMER = str(ROOT / "configs" / "mask2former" / "mask2former_r18_12e_shapes.py")
TOOD = str(ROOT / "configs" / "tood" / "tood_r18_fpn_12e_shapes.py")


browse = load_tool("browse_assignments")


pytestmark = pytest.mark.usefixtures("empty_folder")


def run(*argv: str) -> list[str]:
    """Run the tool, writing into ``pictures``; return the names of the pictures."""
    browse.main([*argv, "--out-dir", "pictures"])
    return sorted(path.name for path in Path("pictures").iterdir())


def error_line(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        browse.main(list(argv))
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_one_picture_for_each_image(shapes, capsys):
    names = run(ATSS, "-n", "2", "--cfg-options", f"data_root={shapes}")
    assert len(names) == 2
    assert all(name.endswith(".bbox_head.assigner.png") for name in names)
    output = capsys.readouterr()
    assert "2 pictures in pictures" in output.out
    assert "random" not in output.out  # ATSS looks at anchors alone
    picture = imread(f"pictures/{names[0]}")
    assert picture.shape[1] > 2 * 480  # a panel and the table side by side
    assert picture.std() > 10


@pytest.mark.parametrize(("epoch", "assigner", "warns"), [("0", "assigner", False), ("5", "alignment_assigner", True)])
def test_epoch_chooses_the_assigner_of_tood(shapes, capsys, epoch, assigner, warns):
    (name,) = run(TOOD, "-n", "1", "--epoch", epoch, "--cfg-options", f"data_root={shapes}")
    assert name.endswith(f".bbox_head.{assigner}.png")
    assert ("The weights are random" in capsys.readouterr().out) == warns


def test_the_assigner_can_be_chosen(shapes, capsys):
    data = ["-n", "1", "--cfg-options", f"data_root={shapes}"]
    (name,) = run(CASCADE, "--assigner", "bbox_assigner[1]", *data)
    assert name.endswith(".roi_head.bbox_assigner1.png")
    line = error_line(capsys, CASCADE, "--assigner", "mask_assigner", *data)
    assert "--assigner mask_assigner: the model calls roi_head.bbox_assigner[0], roi_head.bbox_assigner[1]" in line


def test_proposals_for_several_objects(shapes):
    dataset = "train_dataloader.dataset"
    options = [f"{dataset}.data_prefix.img=images/train/", f"{dataset}.metainfo.classes=(circle,)"]
    (name,) = run(CROWDDET, "-n", "1", "--assigner", "roi_head", "--cfg-options", f"data_root={shapes}", *options)
    assert name.endswith(".roi_head.bbox_assigner.png")


def test_masks_and_the_objects_they_are_matched_with(shapes):
    """Each query that predicts an object's own mask is found in the record, at that object, and drawn."""
    cfg = load_config(parsers.browse().parse_args([MASK2FORMER, "--cfg-options", f"data_root={shapes}"]))
    cfg.model.train_cfg.num_points = 20000  # of 76,800 pixels: enough for the small objects, too
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        item = next(browse.with_objects(browse.build_dataset(cfg, "train")))
        model = browse.build_model(cfg, None, None)
    truths = item["data_samples"].gt_instances
    masks = torch.from_numpy(truths.masks.masks.astype(bool))  # (M, 240, 320)
    count = len(masks)

    def foresee(_head, _inputs, outputs):
        """Let query m predict the mask of object m, in a quarter of the resolution, and the others nothing."""
        scores, predicted = outputs
        for layer in predicted:
            layer.fill_(-10)
            layer[0, :count, :60] = torch.where(masks[:, 2::4, 2::4], 10.0, -10.0)
        return [score.fill_(0) for score in scores], predicted

    model.panoptic_head.register_forward_hook(foresee)
    _, _, records = browse.assignments(model, item)
    assert len(records) == 4  # before the decoder and after each of its layers
    for record in records:
        assert record.gt_index.tolist() == [*range(count), *[-1] * (50 - count)]
        assert record.gt_masks[:, :240].equal(masks)  # the model pads the image
        expected = truths.bboxes.tensor
        assert record.gt_boxes.numpy() == pytest.approx(expected.numpy(), abs=2)
        assert record.pred_boxes[:count].numpy() == pytest.approx(expected.numpy(), abs=4)
    assert "preprocess_gt" not in vars(model.panoptic_head)
    (name,) = run(MASK2FORMER, "-n", "1", "--cfg-options", f"data_root={shapes}")
    assert name.endswith(".panoptic_head.assigner.png")


def test_checkpoint_brings_its_weights_and_epoch(shapes, capsys):
    cfg = Config.fromfile(TOOD)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = browse.build_model(cfg, None, None)
    torch.save({"state_dict": model.state_dict(), "meta": {"epoch": 7}}, "weights.pth")
    (name,) = run(TOOD, "weights.pth", "-n", "1", "--cfg-options", f"data_root={shapes}")
    assert name.endswith(".alignment_assigner.png")
    assert "random" not in capsys.readouterr().out
    with DefaultScope.overwrite_default_scope("mmdet"):
        loaded = browse.build_model(cfg, "weights.pth", None)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values()))


def test_boxes_of_the_validation_set_fit_its_resized_images(shapes):
    args = parsers.browse().parse_args([ATSS, "--cfg-options", f"data_root={shapes}"])
    cfg = load_config(args)
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = browse.build_dataset(cfg, "val")
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        original = {info["img_path"]: [i["bbox"] for i in info["instances"] if not i["ignore_flag"]] for info in infos}
        items = list(browse.with_objects(dataset))
    assert 0 < len(items) < len(dataset)  # one of the pictures is empty
    for item in items:
        sample = item["data_samples"]
        assert sample.scale_factor == (2.0, 2.0)
        expected = 2 * np.array(original[sample.img_path])
        assert sample.gt_instances.bboxes.tensor.numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("bgr_to_rgb", [True, False])
def test_the_picture_is_the_image_in_its_own_colours(normalized, bgr_to_rgb):
    settings = {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]} if normalized else {}
    preprocessor = DetDataPreprocessor(**settings, bgr_to_rgb=bgr_to_rgb, pad_size_divisor=32)
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    bgr = torch.from_numpy(rgb[..., ::-1].copy()).permute(2, 0, 1)
    data = preprocessor({"inputs": [bgr], "data_samples": None}, training=True)
    image = shown_image(preprocessor, data["inputs"][0])
    assert image.shape == (32, 32, 3)
    assert np.abs(image[:20, :30].astype(int) - rgb).max() <= 1


def test_mistakes_are_told_in_one_line(shapes, capsys, monkeypatch):
    data = ["--cfg-options", f"data_root={shapes}"]
    monkeypatch.setattr(plt, "figure", lambda: FigureCanvasAgg(Figure()).figure)  # as where there is no display
    assert "--show needs a display" in error_line(capsys, ATSS, "--show", *data)
    assert "checkpoint foo.pth doesn't exist" in error_line(capsys, ATSS, "foo.pth", *data)
    assert "--show-number 0" in error_line(capsys, ATSS, "-n", "0", *data)
    assert "data root data/shapes" in error_line(capsys, ATSS)


def test_a_head_without_an_assigner_has_nothing_to_draw(shapes, capsys):
    config = f"""
_base_ = {str(ROOT / "configs" / "_base_" / "datasets" / "shapes.py")!r}
model = dict(
    type='FCOS',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(1, 2, 3)),
    neck=dict(type='FPN', in_channels=[128, 256, 512], out_channels=32, num_outs=5),
    bbox_head=dict(type='FCOSHead', num_classes=4, in_channels=32, feat_channels=32))
default_scope = 'mmdet'
train_cfg = dict()
"""
    Path("fcos.py").write_text(config)
    line = error_line(capsys, "fcos.py", "-n", "1", "--cfg-options", f"data_root={shapes}")
    assert "FCOS has no assigner" in line
    assert "targets are computed in FCOSHead" in line
