"""Pairwise matching costs of predictions and ground truths: all (N, M), the lower the better, unweighted.

The costs of DETR (Carion et al., ECCV 2020, arXiv:2005.12872), Deformable DETR (Zhu et al., ICLR 2021,
arXiv:2010.04159), MaskFormer (Cheng et al., NeurIPS 2021, arXiv:2107.06278) and SimOTA (Ge et al., arXiv:2107.08430).
The order of operations is that of mmdet 3's match costs, so that sums of them tie and round alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from visdet_assigners.functional.blocks import split_rows
from visdet_assigners.functional.boxes import box_overlaps, xyxy_to_cxcywh


def softmax_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative softmax probability of the right class: (N, C) logits, (M,) labels -> (N, M)."""
    return -logits.softmax(-1)[:, labels]


def focal_terms(logits: Tensor, alpha: float, gamma: float, eps: float) -> tuple[Tensor, Tensor]:
    """Focal loss of each logit if its target were 1, and if it were 0 (Lin et al., arXiv:1708.02002, eq. 5)."""
    p = logits.sigmoid()
    if_negative = -(1 - p + eps).log() * (1 - alpha) * p.pow(gamma)
    if_positive = -(p + eps).log() * alpha * (1 - p).pow(gamma)
    return if_positive, if_negative


def focal_cost(logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0, eps: float = 1e-12) -> Tensor:
    """Focal loss of the right class less what it costs as background: (N, C) logits, (M,) labels -> (N, M)."""
    if_positive, if_negative = focal_terms(logits, alpha, gamma, eps)
    return if_positive[:, labels] - if_negative[:, labels]


def binary_target_cost(if_positive: Tensor, if_negative: Tensor, targets: Tensor) -> Tensor:
    """Sum over P positions of a binary loss: two (N, P) losses and (M, ...) targets of 0 and 1 -> (N, M)."""
    targets = targets.flatten(1).to(if_positive.dtype)
    return torch.einsum("nc,mc->nm", if_positive, targets) + torch.einsum("nc,mc->nm", if_negative, 1 - targets)


def binary_focal_cost(
    logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, eps: float = 1e-12
) -> Tensor:
    """Focal loss summed over positions: (N, ...) logits, (M, ...) targets of 0 and 1 -> (N, M)."""
    if_positive, if_negative = focal_terms(logits.flatten(1), alpha, gamma, eps)
    return binary_target_cost(if_positive, if_negative, targets)


def binary_cross_entropy_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy, mean over positions: (N, ...) logits, (M, ...) targets of 0 and 1 -> (N, M)."""
    logits = logits.flatten(1)
    if_positive = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none")
    if_negative = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none")
    return binary_target_cost(if_positive, if_negative, targets) / logits.shape[1]


def dice_cost(masks: Tensor, targets: Tensor, eps: float = 1e-3, squared: bool = False) -> Tensor:
    """One less the Dice coefficient (Milletari et al., V-Net, arXiv:1606.04797).

    Args:
        masks: (N, ...), values from 0 to 1.
        targets: (M, ...), 0 or 1, of the same size.
        eps: added above and below the line.
        squared: sum squares in the denominator, as K-Net and SOLO do.

    Returns:
        (N, M), from 0 to 1.
    """
    masks, targets = masks.flatten(1), targets.flatten(1).to(masks.dtype)
    overlap = 2 * torch.einsum("nc,mc->nm", masks, targets)
    if squared:
        total = masks.pow(2).sum(1)[:, None] + targets.pow(2).sum(1)[None, :]
    else:
        total = masks.sum(-1)[:, None] + targets.sum(-1)[None, :]
    return 1 - (overlap + eps) / (total + eps)


def box_l1_cost(boxes: Tensor, gts: Tensor, image_size: tuple[int, int], box_format: str = "xyxy") -> Tensor:
    """Sum of absolute differences of the coordinates, in parts of the image's width and height.

    Args:
        boxes: (N, 4) xyxy, pixels.
        gts: (M, 4) xyxy, pixels.
        image_size: (height, width) of the image, pixels.
        box_format: the coordinates to compare, "xyxy" or "xywh" (centre and size).

    Returns:
        (N, M).
    """
    if box_format == "xywh":
        boxes, gts = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(gts)
    height, width = image_size
    scale = gts.new_tensor([width, height, width, height])
    return torch.cdist(boxes / scale, gts / scale, p=1)


def overlap_cost(boxes: Tensor, gts: Tensor, mode: str = "giou") -> Tensor:
    """Negative overlap of (N, 4) and (M, 4) xyxy boxes -> (N, M); ``mode`` as in ``box_overlaps``."""
    return -box_overlaps(boxes, gts, mode)


def one_hot_cost(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of all class scores against the one-hot label, summed over classes (SimOTA, eq. 1).

    The cost of a prior depends on the class of the object alone, so that it is computed once for each class or once
    for each object, whichever is fewer, and over blocks of priors: nothing of size (N, M, C) is made.

    Args:
        scores: (N, C) probabilities.
        labels: (M,) int64, 0 to C - 1.

    Returns:
        (N, M) in the dtype of the scores; computed in float32.
    """
    num_classes = scores.shape[1]
    by_class = num_classes <= len(labels)
    classes = torch.arange(num_classes, device=labels.device) if by_class else labels
    targets = F.one_hot(classes, num_classes).float()  # (K, C)
    cost = scores.new_empty(len(scores), len(classes))
    for rows in split_rows(len(scores), bytes_per_row=3 * 4 * targets.numel()):
        block = scores[rows].float()[:, None].expand(-1, len(classes), -1)
        with torch.autocast(scores.device.type, enabled=False):
            entropy = F.binary_cross_entropy(block, targets.expand(len(block), -1, -1), reduction="none")
        cost[rows] = entropy.sum(-1).to(cost.dtype)
    return cost[:, labels] if by_class else cost


def soft_label_cost(logits: Tensor, labels: Tensor, iou: Tensor) -> Tensor:
    """Binary cross entropy of all classes against the IoU at the right one, weighted by the squared gap (RTMDet, eq.
    2).

    Computed over blocks of priors, so that nothing of size (N, M, C) is made.

    Args:
        logits: (N, C).
        labels: (M,) int64, 0 to C - 1.
        iou: (N, M), the soft labels.

    Returns:
        (N, M).
    """
    one_hot = F.one_hot(labels.long(), logits.shape[1]).float()  # (M, C)
    cost = torch.empty_like(iou)
    for rows in split_rows(len(logits), bytes_per_row=5 * 4 * one_hot.numel()):
        target = one_hot * iou[rows, :, None]  # (n, M, C)
        predicted = logits[rows, None].expand_as(target)
        entropy = F.binary_cross_entropy_with_logits(predicted, target, reduction="none")
        cost[rows] = (entropy * (target - predicted.sigmoid()).abs().pow(2.0)).sum(dim=-1)
    return cost
