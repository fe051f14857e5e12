"""What priors learn under task-aligned assignment: targets of the scores, and the layout of YOLOv8's heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.functional.tensors import as_float32, as_tensor

EPS = 1e-7
"""Keeps the normalisation of targets finite, as in the published code."""


@dataclass(frozen=True)
class TaskAlignedTargets:
    """What heads of YOLOv8's style learn from, for B images with N priors each.

    Attributes:
        labels: (B, N) int64, class of the matched ground truth, C where nothing is matched.
        boxes: (B, N, 4) xyxy of the matched ground truth, 0 where nothing is matched.
        scores: (B, N, C), the normalised target in the column of the class, 0 elsewhere.
        foreground: (B, N) bool, what is matched.
        gt_index: (B, N) int64, the matched ground truth from 0, -1 where nothing is matched.
    """

    labels: Tensor
    boxes: Tensor
    scores: Tensor
    foreground: Tensor
    gt_index: Tensor


def classification_targets(
    metrics: Tensor, quality: Tensor, gt_index: Tensor, num_gts: int, eps: float = EPS
) -> Tensor:
    """What the score of each positive should become: its alignment, scaled so that the best gets the best IoU.

    For each ground truth, metric / largest metric * largest IoU over its positives (section 3.3), those that are left
    after conflicts.

    Args:
        metrics: (N,) alignments, at least 0.
        quality: (N,) IoUs.
        gt_index: (N,) int64, the matched ground truth from 0, negative where nothing is matched.
        num_gts: M; may be 0.
        eps: added to the largest metric; 1e-7 in TOOD, 1e-9 in YOLOv8.

    Returns:
        (N,), 0 where nothing is matched.

    Example:
        >>> metrics, iou = torch.tensor([0.0706, 0.0, 0.1131]), torch.tensor([0.70, 0.0, 0.85])
        >>> classification_targets(metrics, iou, torch.tensor([0, -1, 0]), 1)
        tensor([0.5306, 0.0000, 0.8500])
    """
    matched = gt_index >= 0
    owner = torch.where(matched, gt_index, num_gts)  # the last takes what nobody has
    largest, best = (
        values.new_zeros(num_gts + 1).scatter_reduce(0, owner, values, "amax") for values in (metrics, quality)
    )
    return torch.where(matched, metrics / (largest[owner] + eps) * best[owner], 0)


def targets_of_images(results: Sequence[Any], gt_list: Sequence[Any], num_classes: int) -> TaskAlignedTargets:
    """Lay out what the priors of B images learn.

    Args:
        results: ``AssignResult`` of each image with ``norm_metrics``, all with the same number of priors.
        gt_list: ``gt_instances`` of each image.
        num_classes: C.
    """
    rows = []
    for result, gt in zip(results, gt_list):
        gts, classes = as_float32(as_tensor(gt.bboxes)), gt.labels.flatten()
        gts = gts.reshape(-1, gts.shape[-1] if gts.ndim == 2 else 4)
        foreground, index = result.gt_inds > 0, (result.gt_inds - 1).clamp(min=-1)
        # A box, a class and a column of scores behind the others are for the background, at index -1.
        labels = torch.cat([classes.long(), classes.new_full((1,), num_classes).long()])[index]
        boxes = torch.cat([gts, gts.new_zeros(1, gts.shape[1])])[index]
        scores = result.norm_metrics.new_zeros(len(labels), num_classes + 1)
        scores = scores.scatter(1, labels[:, None], result.norm_metrics[:, None])[:, :num_classes]
        rows.append((labels, boxes, scores, foreground, index))
    return TaskAlignedTargets(*map(torch.stack, zip(*rows)))
