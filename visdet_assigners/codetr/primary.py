"""A branch without a head: the detector's own queries learn one to many, between cross-attention and the last layers.

Zhao et al., MS-DETR, CVPR 2024, arXiv:2401.03989; Zhang et al., Mr. DETR, CVPR 2025, arXiv:2412.10028.  Co-DETR's
branches need heads, and each sends its positives through the decoder once more; here the states that the decoder has
anyway are read by the layers that the detector has anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.model import BaseModule
from torch import Tensor

from visdet_assigners.functional.blocks import split
from visdet_assigners.functional.boxes import box_overlaps
from visdet_assigners.functional.costs import of_labels
from visdet_assigners.functional.resolve import keep_best
from visdet_assigners.functional.select import top
from visdet_assigners.options import number, whole_number
from visdet_assigners.registry import MODELS
from visdet_assigners.set_losses import Truths, by_layer, layer_losses, targets_of

MATRICES = 8
"""Matrices of the size of an image's pairs that are there at once."""


def one_to_many(quality: Tensor, is_object: Tensor, threshold: float = 0.4, topk: int = 6) -> Tensor:
    """Give each object its best queries, and each query one object at most.

    An object claims at most ``topk`` queries of a quality of at least ``threshold``, and its best query whatever the
    quality.  A query that several claim goes to one whose best it is, else to the one of the highest quality; of equals
    to the first.  So an object whose only claim is the best query of a better one has none.

    Differs from the published code: there a query's row may be chosen by several objects, and serves all of them.

    Args:
        quality: (B, Q, M), from 0 to 1; pairs that are NaN are never chosen.
        is_object: (B, M) bool, False on padding.
        threshold: see above.
        topk: see above.

    Returns:
        (B, Q) int64, the object of each query, -1 for none.

    Example:
        >>> quality = torch.tensor([[[0.9, 0.1], [0.5, 0.2], [0.3, 0.3], [0.6, 0.1]]])
        >>> one_to_many(quality, torch.tensor([[True, True]]), topk=2)
        tensor([[ 0, -1,  1,  0]])
    """
    num_images, num_queries, num_gts = quality.shape
    found, query = top(quality.nan_to_num(nan=-1.0), min(topk, num_queries), dim=1, largest=True)  # (B, K, M)
    is_best = torch.arange(len(found[0]), device=quality.device)[:, None] == 0
    claimed = ((found >= threshold) | is_best) & (found >= 0) & is_object[:, None]
    offered = found + is_best  # above every quality that is no object's best
    image = torch.arange(num_images, device=quality.device)[:, None]
    # As one image with the queries and the objects of all.
    query, claimed, offered = (
        part.transpose(0, 1).flatten(1) for part in (query + image[..., None] * num_queries, claimed, offered)
    )  # (K, B * M)
    gt_index = keep_best(query, claimed, offered, num_images * num_queries)[0].view(num_images, num_queries)
    return torch.where(gt_index < 0, gt_index, gt_index - image * num_gts)


@torch.no_grad()
def match_one_to_many(
    scores: Tensor, boxes: Tensor, truths: Truths, score_weight: float, threshold: float, topk: int
) -> Tensor:
    """Rate queries by a sum of probability and IoU, and match them by `one_to_many`.

    Args:
        scores: (B, Q, C) probabilities.
        boxes: (B, Q, 4) cx, cy, w, h in parts of the image.
        truths: the objects of B images, M each.
        score_weight: of the probability; the IoU has the rest of 1.
        threshold: see `one_to_many`.
        topk: see there.

    Returns:
        (B, Q) int64, the object of each query, -1 for none.
    """
    scale, matched = truths.scale[:, None], []
    for block in split(len(scores), MATRICES * 4 * scores.shape[1] * truths.labels.shape[1], scores.device):
        own, gts = (bbox_cxcywh_to_xyxy(some[block].float()) * scale[block] for some in (boxes, truths.boxes))
        quality = box_overlaps(own, gts).mul_(1 - score_weight)
        quality += score_weight * of_labels(scores[block].float(), truths.labels[block])
        matched.append(one_to_many(quality, truths.is_object[block], threshold, topk))
    return torch.cat(matched)


@MODELS.register_module()
class PrimaryOneToMany(BaseModule):
    """One-to-many training of the detector's own queries, of the states after each layer's cross-attention.

    It has no parameters and no pass through the decoder: the class and box layers of the detector's head read those
    states, in each layer from the references of the main queries.  Losses are those of the head, with its weights, for
    all queries: those without an object learn background.  They are divided by the number of positives.  They count as
    losses of positive queries: factor ``lambda1``, names ``loss_cls_aux0`` ....

    Differs from the published code: MS-DETR puts cross-attention before self-attention, so that self-attention stands
    between its two kinds of states, and may add feed-forward layers for one to many; Mr. DETR has paths of its own
    beside.  Here the decoder is the detector's, so prediction is, too, and feed-forward layers alone stand between.

    Args:
        score_weight: of the probability in the quality that ranks queries, 0.3 in MS-DETR, 0.2 in Mr. DETR; the IoU has
            the rest of 1.
        threshold: least quality of an object's further queries.
        topk: most queries of an object.
        num_classes: not used; the detector tells it to every branch.
        embed_dims: likewise.
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        score_weight: float = 0.3,
        threshold: float = 0.4,
        topk: int = 6,
        num_classes: int | None = None,
        embed_dims: int | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        name = type(self).__name__
        self.score_weight = number(name, "score_weight", score_weight, least=0, most=1)
        self.threshold = number(name, "threshold", threshold)
        self.topk = whole_number(name, "topk", topk)

    def losses(self, head: Any, scores: Tensor, boxes: Tensor, truths: Truths) -> dict[str, Tensor]:
        """Compute the losses of each layer.

        Args:
            head: the detector's.
            scores: (L, B, Q, C) logits that it makes of the states after cross-attention.
            boxes: (L, B, Q, 4) cx, cy, w, h, from 0 to 1, likewise.
            truths: the objects of B images.

        Returns:
            ``loss_cls``, ``loss_bbox`` and ``loss_iou`` of the last layer, and ``d0.loss_cls`` ... of those before it.
        """
        found = []
        for layer_scores, layer_boxes in zip(scores, boxes):
            own = layer_scores.detach()
            probabilities = own.sigmoid() if head.loss_cls.use_sigmoid else own.softmax(-1)
            options = (self.score_weight, self.threshold, self.topk)
            index = match_one_to_many(probabilities, layer_boxes.detach(), truths, *options)
            targets = targets_of(head, truths, index, index)
            found.append(layer_losses(head, layer_scores.flatten(0, 1), layer_boxes.flatten(0, 1), targets))
        return by_layer(found)


@contextmanager
def after_cross_attention(decoder: Any) -> Iterator[list[Tensor]]:
    """Collect the queries' states after the cross-attention of each layer, (B, Q, C), of a pass inside the block.

    A layer normalises them as the second of three times: behind self-attention, cross-attention and feed-forward
    layers. What the decoder computes stays as it is.

    Args:
        decoder: of mmdet's DETRs.
    """
    states: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        states.append(output)

    handles = [layer.norms[1].register_forward_hook(keep) for layer in decoder.layers]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def as_hidden_states(decoder: Any, states: list[Tensor]) -> Tensor:
    """States of L layers as the head reads them, (L, B, Q, C): normalised where the decoder does so at its end."""
    norm = getattr(decoder, "norm", None) or getattr(decoder, "post_norm", None)
    return torch.stack([state if norm is None else norm(state) for state in states])
