"""Any config's data set and model: what they give to be looked at, and what is refused."""

import numpy as np
import pytest
import torch
from mmdet.models.data_preprocessors import TrackDataPreprocessor
from mmdet.structures import DetDataSample, ReIDDataSample, TrackDataSample
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

from detectors import batch, build_detector, stock_config
from visdet_assigners.errors import UserError
from visdet_assigners.observe.detector import (
    BlankImage,
    assignments,
    build_model,
    check_detector,
    load_item,
    objects_of,
    picture_path,
    uncalled,
)
from visdet_assigners.observe.records import MaskRecord

BOXES = [[8.0, 8.0, 60.0, 50.0], [70.0, 30.0, 120.0, 90.0], [30.0, 60.0, 42.0, 72.0]]


def item():
    images, samples = batch([BOXES])
    return {"inputs": (images[0] * 50 + 120).clamp(0, 255).byte(), "data_samples": samples[0]}


class Loader:
    def transform(self, results):
        return {**results, "img": np.ones((2, 3, 3))}


def test_a_blank_image_has_the_size_of_the_annotations():
    results = BlankImage(Loader())({"height": 20, "width": 30})
    assert results["img"].shape == (20, 30, 3)
    assert results["img_shape"] == results["ori_shape"] == (20, 30)
    assert BlankImage(Loader())({"img_path": "a.jpg"})["img"].shape == (2, 3, 3)


def test_the_image_comes_back_as_it_was():
    model = build_detector("retinanet/retinanet_r50_fpn_1x_coco.py")
    image, sample, _ = assignments(model, item())
    expected = item()["inputs"].permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(image[:96, :128].astype(int) - expected).max() <= 1
    assert sample.gt_instances.bboxes.tolist() == torch.tensor(BOXES).tolist()


# ------------------------------------------------------------------------------ what else mmdet's configs may hold


def frames(tracked):
    """Two frames of a video, the second the key frame, in which all objects are two pixels further right."""
    images, samples = batch([BOXES, BOXES], num_classes=1)
    for number, sample in enumerate(samples):
        sample.gt_instances.bboxes += 2 * number
        sample.gt_instances.instances_ids = torch.tensor(tracked)
        sample.set_metainfo({"img_path": f"{number}.jpg"})
    whole = TrackDataSample()
    whole.video_data_samples = samples
    whole.set_metainfo({"key_frames_inds": [1], "ref_frames_inds": [0]})
    return {"inputs": (images * 50 + 120).clamp(0, 255).byte(), "data_samples": whole}


def built(model):
    with DefaultScope.overwrite_default_scope("mmdet"):
        return build_model(Config({"model": model}), None)


def test_a_tracker_is_shown_by_its_key_frame():
    cfg = get_config("mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py")
    cfg.model.detector.backbone.depth = 18
    cfg.model.detector.neck.in_channels = [64, 128, 256, 512]
    item = frames([4, 8, 9])
    assert objects_of(item).bboxes[:, 0].tolist() == [10, 72, 32]
    image, sample, records = assignments(built(cfg.model), item)
    expected = frames([4, 8, 9])["inputs"][1].permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(image[:96, :128].astype(int) - expected).max() <= 1
    assert sample.img_path == "1.jpg"
    assert [record.where for record in records] == [
        "detector.rpn_head.assigner", "detector.roi_head.bbox_assigner", "track_head.bbox_assigner"
    ]  # fmt: skip
    for record in records:
        assert record.gt_boxes[:, 0].tolist() == [10, 72, 32]


def test_masks_over_several_frames_are_those_of_the_key_frame():
    model = get_config("mmdet::mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py").model
    model.backbone.depth = 18
    model.track_head.in_channels = [64, 128, 256, 512]
    model.track_head.num_queries = 10
    whole = built(model)
    item = frames([4, 8, 9])
    masks = item["data_samples"][1].gt_instances.masks.masks.copy()
    records = assignments(whole, item)[2]
    assert len(records) == 10
    for record in records:
        assert isinstance(record, MaskRecord)
        assert record.gt_masks.shape == (3, 96, 128)
        assert np.array_equal(record.gt_masks, masks)
        assert record.pred_masks.shape[0] == 10
        assert record.pred_masks.ndim == 3


def test_a_mean_for_videos_is_taken_back_too():
    from visdet_assigners.observe.detector import shown_image

    preprocessor = TrackDataPreprocessor(mean=[100.0, 110.0, 120.0], std=[50.0, 55.0, 60.0], bgr_to_rgb=True)
    item = frames([1, 2, 3])
    data = preprocessor({"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]}, training=True)
    image = shown_image(preprocessor, data["inputs"][0][1])
    expected = frames([1, 2, 3])["inputs"][1].permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(image[:96, :128].astype(int) - expected).max() <= 1


def refusal(function, *args):
    with pytest.raises(UserError) as error:
        function(*args)
    message = str(error.value)
    assert "\n" not in message
    return message


SAMPLE = DetDataSample()
WHOLE = TrackDataSample()


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"inputs": {"sup": torch.zeros(3, 4, 4)}, "data_samples": {"sup": SAMPLE}}, "several branches of images"),
        ({"inputs": torch.zeros(3, 4, 4), "data_samples": SAMPLE}, "no objects but a DetDataSample"),
        ({"inputs": torch.zeros(4, 3, 4, 4), "data_samples": ReIDDataSample()}, "no objects but a ReIDDataSample"),
        ({"inputs": torch.zeros(4, 3, 4, 4), "data_samples": WHOLE}, "whole videos without a key frame"),
    ],
)
def test_data_without_images_of_objects_are_refused(item, words):
    assert words in refusal(load_item, [item], 0)


def test_a_pipeline_that_fails_is_told_with_the_image_and_the_place():
    class Data(BaseDataset):
        def __getitem__(self, index):
            raise ValueError("bad\nscale")

    message = refusal(load_item, Data(lazy_init=True), 3)
    assert message.startswith("the data set fails to give its image 3: ValueError: bad scale (")
    assert "test_detector.py, line " in message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"train_dataloader": {"dataset": {}}}, "no model"),
        ({"model": {"type": "DETR"}}, "no train_dataloader"),
        ({"model": {"type": "DETR"}, "train_dataloader": None}, "no train_dataloader"),
    ],
)
def test_parts_of_configs_are_refused(config, words):
    assert words in refusal(check_detector, Config(config), "train")


def test_models_that_assign_nothing_or_cant_be_built_are_refused():
    fcos = stock_config("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py")
    assert "FCOS has no assigner, so there is nothing to look at: targets are computed in FCOSHead" in refusal(
        built, fcos
    )

    def broken(**options):
        raise ValueError("no such stride")

    message = refusal(built, {"type": broken})
    assert message.startswith("the model of the config can't be built: ValueError: no such stride (")
    assert "test_detector.py, line " in message
    fcos.bbox_head.centre = 3
    with pytest.raises(KeyError, match="Nothing is not in the mmdet::model registry"):  # it has a line of its own
        built({"type": "Nothing"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'centre'"):  # likewise
        built(fcos)


def test_nothing_is_downloaded_and_no_other_process_asked_for_random_weights():
    """mmdet looks for a teacher's config in its repository, PVT names no ``type`` for weights, MMSyncBN asks torch."""
    model = get_config("mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py").model
    assert model.teacher_config.startswith("configs/")
    assert model.teacher_ckpt.startswith("https://")
    model.neck.norm_cfg = {"type": "MMSyncBN"}
    distilled = built(model)
    assert type(distilled.teacher_model).__name__ == "GFL"
    model = get_config("mmdet::pvt/retinanet_pvt-t_fpn_1x_coco.py").model
    assert model.backbone.init_cfg.checkpoint.startswith("https://")
    assert type(built(model).backbone).__name__ == "PyramidVisionTransformer"
    model = get_config("mmdet::detectors/cascade-rcnn_r50-rfp_1x_coco.py").model  # it loads its weights by itself
    assert model.backbone.init_cfg.type == "Pretrained"
    assert type(built(model).backbone).__name__ == "DetectoRS_ResNet"


def test_assigners_that_are_not_called_are_named():
    model = build_detector("tood/tood_r50_fpn_1x_coco.py")
    places = {"bbox_head.initial_assigner", "bbox_head.assigner", "bbox_head.alignment_assigner"}
    found = uncalled(model, ())
    assert set(found) <= places
    assert found["bbox_head.alignment_assigner"] == "TaskAlignedAssigner (bbox_head.alignment_assigner)"
    assert set(uncalled(model, set(found) - {"bbox_head.alignment_assigner"})) == {"bbox_head.alignment_assigner"}


def test_pictures_of_images_with_one_name_are_kept_apart(tmp_path):
    taken = set()
    for path, name in (("a/1.jpg", "1"), ("b/1.jpg", "b_1"), ("b/1.png", "1_2"), (None, "image")):
        sample = DetDataSample(metainfo={} if path is None else {"img_path": path})
        found = picture_path(tmp_path, sample, "roi_head.bbox_assigner[1]", taken)
        assert found == tmp_path / f"{name}.roi_head.bbox_assigner1.png"
        taken.add(found)
