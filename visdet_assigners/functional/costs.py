"""Pairwise matching costs of predictions and ground truths: all (N, M), the lower the better, unweighted.

Where shapes say (..., N, C), further dimensions in front are images, and each has the costs that it has by itself, to
the last bit.  Products of matrices round by their shapes: the costs of masks take one image.

The costs of DETR (Carion et al., ECCV 2020, arXiv:2005.12872), Deformable DETR (Zhu et al., ICLR 2021,
arXiv:2010.04159), MaskFormer (Cheng et al., NeurIPS 2021, arXiv:2107.06278), SimOTA (Ge et al., arXiv:2107.08430),
Rank-DETR (Pu et al., NeurIPS 2023, arXiv:2310.08854) and Stable-DINO (Liu et al., ICCV 2023, arXiv:2304.04742).
The order of operations is that of mmdet 3's match costs, so that sums of them tie and round alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.boxes import box_overlaps, l1_distance, xyxy_to_cxcywh
from visdet_assigners.functional.tensors import evenly

SMALL = 1e-8
"""In place of a largest value of 0 that others are divided by."""


def of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """The columns of the labels' classes: (..., N, C), (..., M) int64 -> (..., N, M)."""
    if labels.ndim == 1:
        return values.index_select(1, labels)
    return values.gather(-1, labels[..., None, :].expand(*values.shape[:-1], labels.shape[-1]))


def softmax_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative softmax probability of the right class: (..., N, C) logits, (..., M) labels -> (..., N, M)."""
    return -of_labels(logits.softmax(-1), labels)


def focal_terms(p: Tensor, alpha: float, gamma: float, eps: float) -> tuple[Tensor, Tensor]:
    """Focal loss of each probability if its target were 1, and if it were 0 (Lin et al., arXiv:1708.02002, eq. 5)."""
    rest = 1 - p
    if_negative = -(rest + eps).log() * (1 - alpha) * p.pow(gamma)
    if_positive = -(p + eps).log() * alpha * rest.pow(gamma)
    return if_positive, if_negative


def focal_cost(logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0, eps: float = 1e-12) -> Tensor:
    """Focal loss of the right class less what it costs as background.

    Args:
        logits: (..., N, C).
        labels: (..., M) int64, 0 to C - 1.
        alpha: weight of positive targets.
        gamma: focusing exponent.
        eps: inside the logarithms.

    Returns:
        (..., N, M).
    """
    # On a CPU, how a sigmoid rounds depends on its place in the tensor (see `evenly`), so each image has its own.  So
    # does how powers round, squares excepted: other powers are computed for all classes.
    apart = logits.ndim > 2 and logits.device.type == "cpu"
    p = torch.stack([image.sigmoid() for image in logits]) if apart else logits.sigmoid()
    of_few = gamma == 2 and labels.shape[-1] < logits.shape[-1]
    if_positive, if_negative = focal_terms(of_labels(p, labels) if of_few else p, alpha, gamma, eps)
    difference = if_positive - if_negative
    return difference if of_few else of_labels(difference, labels)


def binary_target_cost(if_positive: Tensor, if_negative: Tensor, targets: Tensor) -> Tensor:
    """Sum over P positions of a binary loss: two (N, P) losses and (M, ...) targets of 0 and 1 -> (N, M)."""
    targets = targets.flatten(1).to(if_positive.dtype)
    return torch.einsum("nc,mc->nm", if_positive, targets) + torch.einsum("nc,mc->nm", if_negative, 1 - targets)


def binary_focal_cost(
    logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, eps: float = 1e-12
) -> Tensor:
    """Focal loss summed over positions: (N, ...) logits, (M, ...) targets of 0 and 1 -> (N, M)."""
    if_positive, if_negative = focal_terms(logits.flatten(1).sigmoid(), alpha, gamma, eps)
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


def box_l1_cost(boxes: Tensor, gts: Tensor, image_size: tuple[int, int] | Tensor, box_format: str = "xyxy") -> Tensor:
    """Sum of absolute differences of the coordinates, in parts of the image's width and height.

    Args:
        boxes: (..., N, 4) xyxy, pixels.
        gts: (..., M, 4) xyxy, pixels.
        image_size: (height, width) of the image, pixels; or (B, 2) of B images.
        box_format: the coordinates to compare, "xyxy" or "xywh" (centre and size).

    Returns:
        (..., N, M).
    """
    if box_format == "xywh":
        boxes, gts = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(gts)
    if isinstance(image_size, Tensor):
        scale = image_size.to(gts.dtype).flip(-1).repeat(1, 2)[:, None]  # (B, 1, 4)
    else:
        height, width = image_size
        scale = gts.new_full((4,), width)
        scale[1::2] = height  # filled, not copied from the host: that would synchronise with a device
    return l1_distance(boxes / scale, gts / scale)


def overlap_cost(boxes: Tensor, gts: Tensor, mode: str = "giou") -> Tensor:
    """Negative overlap of (..., N, 4) and (..., M, 4) xyxy boxes -> (..., N, M); ``mode`` as in ``box_overlaps``."""
    return box_overlaps(boxes, gts, mode).neg_()


def high_order_cost(logits: Tensor, labels: Tensor, boxes: Tensor, gts: Tensor, alpha: float = 4.0) -> Tensor:
    """Negative product of the right class's probability and a power of the IoU (Rank-DETR's high-order matching cost).

    A sum of costs lets a sure class make up for a box that is far off; a product doesn't.

    Args:
        logits: (..., N, C).
        labels: (..., M) int64, 0 to C - 1.
        boxes: (..., N, 4) xyxy, pixels.
        gts: (..., M, 4) xyxy, pixels.
        alpha: exponent of the IoU, at least 0.

    Returns:
        (..., N, M), from -1 to 0.

    Example:
        >>> box = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 5.]])
        >>> high_order_cost(torch.zeros(2, 3), torch.tensor([1]), box, box[:1]).T
        tensor([[-0.5000, -0.0312]])
    """
    # Powers and sigmoids round by their place in a tensor, see `focal_cost`, so each is taken `evenly`.
    quality = evenly(lambda iou: iou.pow(alpha), box_overlaps(boxes, gts))
    return evenly(torch.sigmoid, of_labels(logits, labels)).mul_(quality).neg_()


def position_modulated_cost(
    logits: Tensor,
    labels: Tensor,
    boxes: Tensor,
    gts: Tensor,
    beta: float = 0.5,
    alpha: float = 0.25,
    gamma: float = 2.0,
    eps: float = 1e-12,
    is_object: Tensor | None = None,
) -> Tensor:
    """Focal cost of a probability that the place of the box lowers: p * g^beta (Stable-DINO).

    g is (GIoU + 1) / 2, divided by its largest of the image, so that the best box keeps its probability.  Pairs that
    are never matched, those of NaN and of inverted boxes, don't count for the largest.

    Differs from the published code: there g is stored by class, so that of several objects of one class the last one's
    counts for all; here each object has its own, and the largest is over all pairs.

    Args:
        logits: (..., N, C).
        labels: (..., M) int64, 0 to C - 1.
        boxes: (..., N, 4) xyxy, pixels.
        gts: (..., M, 4) xyxy, pixels.
        beta: exponent of g, at least 0.
        alpha: weight of positive targets.
        gamma: focusing exponent.
        eps: inside the logarithms.
        is_object: (..., M) bool, False on padding, which doesn't count for the largest; None where there is none.

    Returns:
        (..., N, M).
    """
    place = box_overlaps(boxes, gts, "giou").add_(1).div_(2).clamp_(min=0)  # rounding may go below -1
    p = evenly(torch.sigmoid, of_labels(logits, labels))
    upright = (boxes[..., 2:] >= boxes[..., :2]).all(dim=-1)[..., None]
    matchable = (p >= 0) & (place >= 0) & upright  # neither is NaN
    if is_object is not None:
        matchable &= is_object[..., None, :]
    largest = place.where(matchable, 0).flatten(-2).amax(dim=-1)[..., None, None]
    place = place.div_(largest.clamp(min=SMALL)).clamp_(max=1)
    p *= evenly(lambda g: g.pow(beta), place)
    del place  # what follows takes its room

    def difference(p: Tensor) -> Tensor:
        if_positive, if_negative = focal_terms(p, alpha, gamma, eps)
        return if_positive - if_negative

    return evenly(difference, p)


def one_hot_cost(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of all class scores against the one-hot label, summed over classes (SimOTA, eq. 1).

    Args:
        scores: (N, C) probabilities.
        labels: (M,) int64, 0 to C - 1.

    Returns:
        (N, M) in the dtype of the scores; computed in float32.
    """
    cost, number = one_hot_costs(scores, labels)
    return cost[number].T


def one_hot_costs(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The costs of `one_hot_cost`, once for each class that the ground truths have.

    Returns:
        Costs (K, N), and for each ground truth (M,) its row in them.  Where shapes may not depend on the data, K is C
        or M, whichever is less.
    """
    if not static_shapes(scores.device):
        classes, number = labels.unique(return_inverse=True)
    elif scores.shape[1] <= len(labels):
        classes, number = torch.arange(scores.shape[1], device=labels.device), labels
    else:
        classes, number = labels, torch.arange(len(labels), device=labels.device)
    wide = scores.float()
    with torch.autocast(scores.device.type, enabled=False):
        if_absent = F.binary_cross_entropy(wide, torch.zeros_like(wide), reduction="none")
        own = wide[:, classes]
        if_present = F.binary_cross_entropy(own, torch.ones_like(own), reduction="none")
    return sum_with_one_replaced(if_absent, if_present, classes).to(scores.dtype), number


def soft_label_cost(logits: Tensor, labels: Tensor, iou: Tensor, if_absent: Tensor | None = None) -> Tensor:
    """Binary cross entropy of all classes against the IoU at the right one, weighted by the squared gap (RTMDet, eq.
    2).

    Args:
        logits: (N, C).
        labels: (M,) int64, 0 to C - 1.
        iou: (N, M), the soft labels.
        if_absent: (N, C), what every class costs as the wrong one, for callers that come with blocks of ground truths.

    Returns:
        (N, M).
    """
    if_absent = soft_label_terms(logits, torch.zeros_like(logits)) if if_absent is None else if_absent
    return sum_with_one_replaced(if_absent, soft_label_terms(logits[:, labels], iou), labels).T


def soft_label_terms(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy times the squared gap of probability and target, entry by entry."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return entropy * (targets - evenly(torch.sigmoid, logits)).abs().pow(2.0)


def sum_with_one_replaced(terms: Tensor, replacement: Tensor, classes: Tensor) -> Tensor:
    """Sum over C classes where one class has another term; the same to the last bit as a sum over (N, K, C).

    Worked on in blocks of priors: nothing of size (N, K, C) is made.

    Args:
        terms: (N, C).
        replacement: (N, K), what takes the place of a term.
        classes: (K,) int64, of which class.

    Returns:
        (K, N).
    """
    num_priors, num_classes = terms.shape
    sums = terms.new_empty(len(classes), num_priors)
    for rows in split(num_priors, 2 * terms.element_size() * len(classes) * num_classes, terms.device):
        each = terms[rows, None].repeat(1, len(classes), 1)  # (n, K, C)
        each.scatter_(2, classes[None, :, None].expand(len(each), -1, 1), replacement[rows, :, None])
        sums[:, rows] = each.sum(dim=-1).T
    return sums
