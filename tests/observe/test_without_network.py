"""Detectors without their network assign as with it, where priors alone decide."""

import pytest
import torch

from detectors import batch, build_detector
from visdet_assigners import AssignResult
from visdet_assigners.observe.detector import assignments
from visdet_assigners.observe.without_network import ask_without_network, without_network

BOXES = [[8.0, 8.0, 60.0, 50.0], [70.0, 30.0, 120.0, 90.0], [30.0, 60.0, 42.0, 72.0]]
CONFIGS = {
    "atss": "atss/atss_r50_fpn_1x_coco.py",
    "retinanet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "faster_rcnn": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "gfl": "gfl/gfl_r50_fpn_1x_coco.py",
    "fsaf": "fsaf/fsaf_r50_fpn_1x_coco.py",
    "yolo": "yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py",
}


def item():
    images, samples = batch([BOXES])
    return {"inputs": (images[0] * 50 + 120).clamp(0, 255).byte(), "data_samples": samples[0]}


@pytest.mark.parametrize("name", CONFIGS)
def test_same_assignments_without_the_network(name):
    model = build_detector(CONFIGS[name])
    before = {key: dict(vars(module)) for key, module in model.named_modules()}
    whole = {record.where: record for record in assignments(model, item())[2] if not record.reads_predictions}
    with without_network(model):
        bare = {record.where: record for record in assignments(model, item())[2]}
    assert sorted(bare) == sorted(whole)
    for where, record in bare.items():
        assert not record.reads_predictions
        assert record.gt_index.tolist() == whole[where].gt_index.tolist()
        assert (record.gt_index >= 0).any()
    assert {key: vars(module).keys() for key, module in model.named_modules()} == {
        key: attributes.keys() for key, attributes in before.items()
    }


@pytest.mark.parametrize(
    ("config", "places"),
    [
        (CONFIGS["atss"], {"bbox_head.assigner"}),
        (CONFIGS["faster_rcnn"], {"rpn_head.assigner"}),
        ("yolox/yolox_tiny_8xb8-300e_coco.py", set()),
        ("detr/detr_r50_8xb2-150e_coco.py", set()),
    ],
)
def test_which_assigners_look_at_priors_alone(config, places):
    assert ask_without_network(build_detector(config), [item()]) == places


class Fickle:
    """Decides otherwise each time, as an assigner whose priors are predicted does when predictions change."""

    def assign(self, pred_instances, gt_instances, gt_instances_ignore=None):
        gt_inds = torch.randint(0, 2, (len(pred_instances.priors),))
        return AssignResult(len(gt_instances), gt_inds, gt_inds.float(), gt_inds)


def test_what_changes_with_the_network_is_not_asked_without():
    model = build_detector(CONFIGS["retinanet"])
    assert ask_without_network(model, [item()]) == {"bbox_head.assigner"}
    model.bbox_head.assigner = Fickle()
    assert ask_without_network(model, [item()]) == set()


def test_what_needs_its_network_says_so():
    with (
        pytest.raises(ValueError, match="DETR has no dense head"),
        without_network(build_detector("detr/detr_r50_8xb2-150e_coco.py")),
    ):
        pass
