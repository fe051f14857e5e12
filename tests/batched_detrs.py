"""The small detectors of DETR's line with mmdet's heads and with ours that match all at once, and a batch for them."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from detectors import batch, seed_everything
from toolbox import ROOT

CONFIGS = {
    "detr": ("detr/detr_r18_50e_bccd.py", "detr/batched-detr_r18_50e_bccd.py"),
    "deformable_detr": (
        "deformable_detr/deformable-detr-refine_r18_50e_bccd.py",
        "deformable_detr/batched-deformable-detr-refine_r18_50e_bccd.py",
    ),
    "dino": ("dino/dino-3scale_r18_12e_bccd.py", "dino/batched-dino-3scale_r18_12e_bccd.py"),
}
BOXES = [[[8.0, 8.0, 60.0, 50.0], [70.0, 30.0, 120.0, 90.0]], [], [[20.0, 10.0, 110.0, 80.0]] * 3]
every_head = pytest.mark.parametrize("name", CONFIGS)


@pytest.fixture(scope="module", autouse=True)
def mmdet_scope():
    init_default_scope("mmdet")


def build(config: str):
    cfg = Config.fromfile(ROOT / "configs" / config).model
    seed_everything()
    model = MODELS.build(cfg)
    model.init_weights()
    return model.train()


def losses(model) -> dict[str, torch.Tensor]:
    images, samples = batch(BOXES, (128, 160), num_classes=3)
    seed_everything()
    return model.loss(images, samples)
