"""What heads read of a result beside the object of each prior, for results of assigners that don't give it."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from visdet_assigners.adapting.needs import Dialect
from visdet_assigners.functional.boxes import box_overlaps


def complete_result(
    result: Any, dialect: Dialect, predicted: Any, gts: Any, reads_boxes: bool, alpha: float = 1, beta: float = 6
) -> Any:
    """Fill in what a head makes targets of.

    ``max_overlaps`` becomes the IoU of the predicted with the matched box where the assigner has none, or one of
    anchors: RTMDet, YOLOX and TOOD train their scores to it.  ``assign_metrics`` becomes TOOD's alignment,
    score^alpha * IoU^beta.  YOLOF's pairs become the positives and their predictions, which keep their gradient.

    Args:
        result: with ``gt_inds`` (N,), changed in place.
        dialect: of the head.
        predicted: instances with what the head passed: ``bboxes`` (N, 4) xyxy and ``scores`` (N, C) probabilities for
            the first two, ``decoder_priors`` (N, 4) for the third.
        gts: instances with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.  Of turned boxes nothing is made.
        reads_boxes: whether the assigner decides by predicted boxes, and so has their IoU.
        alpha: exponent of the score.
        beta: exponent of the IoU.
    """
    boxes = get_box_tensor(gts.bboxes)
    if dialect.pairs and result.get_extra_property("pos_idx") is None:
        positive = (result.gt_inds > 0).nonzero()[:, 0]
        result.set_extra_property("pos_idx", torch.ones_like(positive, dtype=torch.bool))
        result.set_extra_property("pos_predicted_boxes", predicted.decoder_priors[positive])
        result.set_extra_property("target_boxes", boxes[result.gt_inds[positive] - 1])
    if not (dialect.quality and "bboxes" in predicted and boxes.shape[-1] == 4):
        return result
    fits = result.max_overlaps is not None and result.max_overlaps.shape == result.gt_inds.shape
    if not (reads_boxes and fits):
        result.max_overlaps = matched_overlaps(predicted.bboxes.detach(), boxes, result.gt_inds)
    metrics = getattr(result, "assign_metrics", None)
    if dialect.alignment and (metrics is None or metrics.shape != result.gt_inds.shape):
        scores = predicted.scores.detach()
        label = result.labels.clamp(min=0)[:, None]
        own = scores.gather(1, label)[:, 0] if scores.shape[1] else scores.new_zeros(len(scores))
        metrics = own.pow(alpha) * result.max_overlaps.to(own.dtype).pow(beta)
        result.assign_metrics = torch.where(result.gt_inds > 0, metrics, 0)
    return result


def matched_overlaps(boxes: Tensor, gts: Tensor, gt_inds: Tensor) -> Tensor:
    """IoU of each box with the ground truth that it matches, 0 where there is none.

    Args:
        boxes: (N, 4) xyxy.
        gts: (M, 4) xyxy; M may be 0.
        gt_inds: (N,) int64 from 1, 0 and below where nothing is matched.

    Example:
        >>> boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 4.]])
        >>> matched_overlaps(boxes, torch.tensor([[0., 0., 4., 8.]]), torch.tensor([1, 0]))
        tensor([0.5000, 0.0000])
    """
    if len(gts) == 0 or len(boxes) == 0:
        return boxes.new_zeros(len(boxes))
    own = gts[(gt_inds - 1).clamp(min=0)].to(boxes.dtype)
    return torch.where(gt_inds > 0, box_overlaps(boxes, own, aligned=True), 0)
