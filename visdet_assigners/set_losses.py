"""Losses of a DETR head for queries whose objects are known: nothing is matched here, and no device is waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.losses import QualityFocalLoss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps, bbox_xyxy_to_cxcywh, get_box_tensor
from mmdet.utils import reduce_mean
from torch import Tensor

from visdet_assigners.functional.tensors import padded


@dataclass(frozen=True, eq=False)
class Truths:
    """The objects of B images, padded to M each, M at least 1.

    Attributes:
        boxes: (B, M, 4) cx, cy, w, h in parts of the image, without its padding; 0 on padding.
        labels: (B, M) int64, 0 on padding.
        is_object: (B, M) bool, False on padding.
        scale: (B, 4) width, height, width, height in pixels.
    """

    boxes: Tensor
    labels: Tensor
    is_object: Tensor
    scale: Tensor


def truths_of(gt_instances: Sequence[Any], img_metas: Sequence[Mapping[str, Any]]) -> Truths:
    """Put the ground truths of B images, ``bboxes`` in xyxy pixels and ``labels``, into one."""
    boxes, is_object = padded([get_box_tensor(gt.bboxes) for gt in gt_instances])
    labels, _ = padded([gt.labels for gt in gt_instances])
    sizes = torch.tensor([meta["img_shape"][1::-1] * 2 for meta in img_metas], dtype=boxes.dtype)
    scale = sizes.to(boxes.device, non_blocking=True)
    return Truths(bbox_xyxy_to_cxcywh(boxes / scale[:, None]), labels, is_object, scale)


@dataclass(frozen=True, eq=False)
class Targets:
    """What the R queries of a decoder layer, those of all images, learn.

    Attributes:
        labels: (R,) int64, the number of classes for background.
        label_weights: (R,).
        label_boxes: (R, 4) the box of the object of the label; quality focal losses ask how well it is met.
        boxes: (R, 4) cx, cy, w, h in parts of the image.
        box_weights: (R,) 0 where there is no box to learn.
        scale: (R, 4) width, height, width, height in pixels.
        label_count: what the class loss is divided by, one number in a tensor.
        box_count: what the box losses are divided by, likewise.
    """

    labels: Tensor
    label_weights: Tensor
    label_boxes: Tensor
    boxes: Tensor
    box_weights: Tensor
    scale: Tensor
    label_count: Tensor
    box_count: Tensor


def targets_of(head: Any, truths: Truths, of_labels: Tensor, of_boxes: Tensor) -> Targets:
    """Targets of queries, of which each may learn its class and its box from different objects.

    Counts are those of mmdet's ``DETRHead``, so that equal pairs have equal losses.

    Args:
        head: with ``num_classes``, ``bg_cls_weight`` and ``sync_cls_avg_factor``.
        truths: the objects of B images.
        of_labels: (B, Q) int64, whose class a query learns, -1 for background.
        of_boxes: (B, Q) int64, whose box it learns, -1 for none.
    """

    def boxes_at(index: Tensor) -> Tensor:
        return truths.boxes.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, 4)).flatten(0, 1)

    positive = of_labels >= 0
    labels = truths.labels.gather(1, of_labels.clamp(min=0)).where(positive, head.num_classes)
    box_weights = (of_boxes >= 0).flatten().to(truths.boxes.dtype)
    label_count = positive.sum().double() + (~positive).sum() * head.bg_cls_weight  # mmdet adds up in double, too
    label_count = label_count.to(box_weights.dtype)
    if head.sync_cls_avg_factor:
        label_count = reduce_mean(label_count[None])  # (1,), as mmdet has it
    return Targets(
        labels=labels.flatten(),
        label_weights=torch.ones_like(box_weights),
        label_boxes=boxes_at(of_labels),
        boxes=boxes_at(of_boxes),
        box_weights=box_weights,
        scale=truths.scale[:, None].expand(-1, of_labels.shape[1], -1).flatten(0, 1),
        label_count=label_count.clamp(min=1),
        box_count=reduce_mean(box_weights.sum()).clamp(min=1),
    )


def layer_losses(head: Any, scores: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Class, L1 and IoU loss of one decoder layer, each with the head's own weight.

    Args:
        head: with ``loss_cls``, ``loss_bbox``, ``loss_iou`` and ``num_classes``.
        scores: (R, C) logits.
        boxes: (R, 4) cx, cy, w, h, from 0 to 1.
        targets: of the same queries.
    """
    corners = bbox_cxcywh_to_xyxy(boxes) * targets.scale
    learned: Any = targets.labels
    if isinstance(head.loss_cls, QualityFocalLoss):
        own = bbox_cxcywh_to_xyxy(targets.label_boxes) * targets.scale
        quality = bbox_overlaps(corners.detach(), own, is_aligned=True)
        learned = (targets.labels, quality * (targets.labels < head.num_classes))
    weights = targets.box_weights[:, None].expand_as(boxes)
    gt_corners = bbox_cxcywh_to_xyxy(targets.boxes) * targets.scale
    return (
        head.loss_cls(scores, learned, targets.label_weights, avg_factor=targets.label_count),
        head.loss_bbox(boxes, targets.boxes, weights, avg_factor=targets.box_count),
        head.loss_iou(corners, gt_corners, weights, avg_factor=targets.box_count),
    )


def by_layer(losses: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    """Name the losses of L layers as mmdet does: ``d0.loss_cls`` ... before the last, ``loss_cls`` ... of the last."""
    named = {}
    for layer, values in enumerate(losses):
        prefix = f"d{layer}." if layer + 1 < len(losses) else ""
        named.update({f"{prefix}loss_{term}": value for term, value in zip(("cls", "bbox", "iou"), values)})
    return named
