"""Detectors of mmdet from its own configs, with a small backbone, and something to train on."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

HEIGHT, WIDTH = 96, 128
# Channels of ResNet-50's stages, and those of ResNet-18's.
_CHANNELS = {256: 64, 512: 128, 1024: 256, 2048: 512}


def build_detector(config: str, epoch: int = 0) -> torch.nn.Module:
    """Build ``mmdet::config`` in training mode, with random weights and, for ResNet-50, a ResNet-18 in its place."""
    model_cfg = get_config(f"mmdet::{config}").model
    if model_cfg.backbone.type == "ResNet":
        model_cfg.backbone.update(depth=18, init_cfg=None)
        for neck in model_cfg.neck if isinstance(model_cfg.neck, list) else [model_cfg.neck]:
            channels = neck.in_channels
            neck.in_channels = (
                _CHANNELS[channels] if isinstance(channels, int) else [_CHANNELS[number] for number in channels]
            )
    if "num_queries" in model_cfg:
        model_cfg.num_queries = 50  # the images are small
    torch.manual_seed(0)
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel("WARNING")  # mmengine tells of every parameter how it was initialised
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(ConfigDict(model_cfg))
        model.init_weights()
    logger.setLevel(level)
    MessageHub.get_current_instance().update_info("epoch", epoch)  # TOOD asks for it
    return model.train()


def batch(gt_boxes: list[list[list[float]]]) -> tuple[torch.Tensor, list[DetDataSample]]:
    """Noise images of ``HEIGHT`` x ``WIDTH`` with these boxes; labels count up from 0."""
    samples = []
    for boxes in gt_boxes:
        sample = DetDataSample()
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.arange(len(boxes), dtype=torch.long)
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        shape = (HEIGHT, WIDTH)
        sample.set_metainfo(
            {"img_shape": shape, "pad_shape": shape, "batch_input_shape": shape, "scale_factor": (1.0, 1.0)}
        )
        samples.append(sample)
    images = torch.randn(len(samples), 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    return images, samples
