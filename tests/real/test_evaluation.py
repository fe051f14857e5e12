"""The nuclei's configs count every nucleus: neither a detector nor the evaluation stops at 100 in a picture."""

import json
import logging

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config

from real.data_sets import DATA_SETS
from scenes import needs
from toolbox import ROOT

NUCLEI = DATA_SETS["nuclei"].train
CONFIGS = sorted((ROOT / "configs").glob("*/*_nuclei.py"))


@needs("nuclei")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_detectors_can_find_the_nuclei_of_the_fullest_picture(config):
    fullest = max(len(NUCLEI.objects(image)) for image in NUCLEI.image_ids)
    assert fullest > 100
    cfg = Config.fromfile(config)
    test_cfg = cfg.model.test_cfg.get("rcnn", cfg.model.test_cfg)
    assert test_cfg.max_per_img >= fullest
    assert cfg.model.get("num_queries", fullest) >= fullest
    assert cfg.val_evaluator.proposal_nums[-1] >= test_cfg.max_per_img


@needs("nuclei")
@pytest.mark.parametrize(
    ("settings", "precision"), [({"proposal_nums": (1, 10, 200), "use_mp_eval": True}, 1.0), ({}, 0.99)]
)
def test_all_nuclei_found_is_an_average_precision_of_one(settings, precision, tmp_path, caplog):
    """COCO's evaluation takes its mean AP from the best 100 detections, whatever ``proposal_nums`` say."""
    cfg = Config.fromfile(CONFIGS[0])
    if settings:
        assert {key: cfg.val_evaluator[key] for key in settings} == settings
    image = NUCLEI.image_ids[NUCLEI.telling(1)[0]]
    nuclei = NUCLEI.objects(image)
    content = {"images": [NUCLEI.coco.imgs[image]], "annotations": nuclei, "categories": NUCLEI.coco.cats}
    content["categories"] = list(content["categories"].values())
    (tmp_path / "one.json").write_text(json.dumps(content))
    caplog.set_level(logging.ERROR)
    metric = CocoMetric(ann_file=str(tmp_path / "one.json"), metric="bbox", **settings)
    metric.dataset_meta = {"classes": ("nucleus",)}
    boxes = torch.tensor([one["bbox"] for one in nuclei]).double()
    boxes[:, 2:] += boxes[:, :2]
    found = {"bboxes": boxes, "scores": torch.linspace(1, 0.1, len(boxes)), "labels": torch.zeros(len(boxes)).long()}
    metric.process({}, [{"img_id": image, "ori_shape": (256, 256), "pred_instances": found}])
    metrics = metric.evaluate(size=1)
    assert metrics["coco/bbox_mAP"] == pytest.approx(precision, abs=1e-3)
    assert metrics["coco/bbox_mAP_50"] == 1.0
