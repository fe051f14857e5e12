"""Stock detectors of mmdet from its own configs, with a small backbone, and something to train on."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

HEIGHT, WIDTH = 96, 128
# Channels of ResNet-50's stages, and those of ResNet-18's.
_CHANNELS = {256: 64, 512: 128, 1024: 256, 2048: 512}


def seed_everything(seed: int = 0) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def stock_config(config: str, queries: int | None = 50) -> ConfigDict:
    """Return the model of ``mmdet::config`` with, for a ResNet, a ResNet-18 with random weights in its place.

    Args:
        config: below mmdet's configs.
        queries: that many in place of the config's, where it has a number of them; None leaves them.
    """
    model_cfg = get_config(f"mmdet::{config}").model
    for node in _nodes(model_cfg):
        if "init_cfg" in node and "Pretrained" in str(node.init_cfg):
            node.init_cfg = None
        if node.get("type") == "SyncBN":
            node.type = "BN"  # the other needs a GPU
        if "use_torchvision" in node:
            node.use_torchvision = False  # the same operator, from a package that mmdet doesn't need
    if model_cfg.backbone.type == "ResNet":
        model_cfg.backbone.depth = 18
        parts = model_cfg.neck if isinstance(model_cfg.get("neck"), list) else [model_cfg.get("neck")]
        for part in [*parts, model_cfg.get("panoptic_head")]:
            if part and "in_channels" in part and part.in_channels != 256:
                channels = part.in_channels
                part.in_channels = (
                    _CHANNELS[channels] if isinstance(channels, int) else [_CHANNELS[number] for number in channels]
                )
    if queries and "num_queries" in model_cfg:
        model_cfg.num_queries = queries
    return ConfigDict(model_cfg)


def build(model_cfg: ConfigDict) -> torch.nn.Module:
    """Build a model in training mode, with the same random weights each time."""
    seed_everything()
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # mmengine tells of every parameter how it was initialised
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(copy.deepcopy(model_cfg))
        model.init_weights()
    logger.setLevel(level)
    return model.train()


def build_detector(config: str, epoch: int = 0, queries: int | None = 50) -> torch.nn.Module:
    """Build ``stock_config(config, queries)`` in training mode, and tell it the epoch."""
    model = build(stock_config(config, queries))
    MessageHub.get_current_instance().update_info("epoch", epoch)  # TOOD asks for it
    return model


def _nodes(value: Any) -> Iterator[ConfigDict]:
    """Yield every dictionary at or below ``value``."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _nodes(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _nodes(item)


def batch(
    gt_boxes: list[list[list[float]]],
    shape: tuple[int, int] = (HEIGHT, WIDTH),
    num_classes: int = 80,
    semantic: bool = False,
    crowd: bool = False,
) -> tuple[torch.Tensor, list[DetDataSample]]:
    """Noise images with these boxes, and masks that fill them.

    Args:
        gt_boxes: xyxy pixels, of each image.
        shape: height and width of the images.
        num_classes: labels count up from 0, and again from 0 after so many.
        semantic: whether there is a map of semantic classes: class 0 above, 1 below.
        crowd: whether there is a crowd region in the lower right corner.
    """
    height, width = shape
    samples = []
    for boxes in gt_boxes:
        sample = DetDataSample()
        masks = np.zeros((len(boxes), height, width), dtype=np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, np.array(boxes).reshape(-1, 4).astype(int)):
            mask[y1:y2, x1:x2] = 1
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes).reshape(-1, 4),
            labels=torch.arange(len(boxes)) % num_classes,
            masks=BitmapMasks(masks, height, width),
        )
        corner = [[width - 30.0, height - 20.0, width - 2.0, height - 2.0]] if crowd else []
        sample.ignored_instances = InstanceData(
            bboxes=torch.tensor(corner).reshape(-1, 4),
            labels=torch.full((len(corner),), -1),
            masks=BitmapMasks(np.ones((len(corner), height, width), dtype=np.uint8), height, width),
        )
        if semantic:
            classes = torch.zeros(1, height, width, dtype=torch.long)
            classes[:, height // 2 :] = 1
            sample.gt_sem_seg = PixelData(sem_seg=classes)
        sample.set_metainfo(
            {"img_shape": shape, "pad_shape": shape, "batch_input_shape": shape, "scale_factor": (1.0, 1.0)}
        )
        samples.append(sample)
    images = torch.randn(len(samples), 3, height, width, generator=torch.Generator().manual_seed(0))
    return images, samples
