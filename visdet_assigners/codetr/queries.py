"""Positive boxes as queries of the decoder, and the losses of queries whose objects are known (section 3.2, 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.layers import coordinate_to_encoding
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule, xavier_init
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from visdet_assigners.codetr.positives import Positives
from visdet_assigners.set_losses import Targets, by_layer, layer_losses

SIDE_LIMITS = (1e-3, 0.99)
"""Least and largest centre and side of a query's box, of the image: the decoder takes their logits."""


@dataclass(frozen=True, eq=False)
class PositiveQueries:
    """One branch's positives of B images, padded to M queries each; boxes are of the image's size, from 0 to 1.

    Attributes:
        boxes: (B, M, 4) cx, cy, w, h of the positives.
        labels: (B, M) int64, class of the object; 0 on padding.
        gt_boxes: (B, M, 4) cx, cy, w, h of the object.
        valid: (B, M) bool, False on padding.
    """

    boxes: Tensor
    labels: Tensor
    gt_boxes: Tensor
    valid: Tensor

    @property
    def blocked(self) -> Tensor:
        """(B, M, M) bool, True where query i may not attend to query j.

        Nobody attends to padding, and padding attends to itself too, since a row of nothing but blocked keys has no
        softmax: it gives NaN, which reaches the valid queries in the next layer.
        """
        oneself = torch.eye(self.valid.shape[1], dtype=torch.bool, device=self.valid.device)
        return ~self.valid[:, None, :] & ~oneself


def pad_positives(positives: Sequence[Positives], image_sizes: Tensor, limit: int) -> PositiveQueries:
    """Bring the positives of B images to a common number of queries.

    M is the largest number of positives in an image, at most ``limit`` and at least 1.  Where there are more, a random
    subset is taken.  No negative query takes a free place: "no negative queries are introduced in the decoder".

    Args:
        positives: of each image.
        image_sizes: (B, 2) width and height in pixels, without padding.
        limit: most queries of an image.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 8.0, 4.0]])
        >>> label = torch.tensor([2])
        >>> found = [Positives(box, label, label * 0, box), Positives(box[:0], label[:0], label[:0], box[:0])]
        >>> queries = pad_positives(found, torch.tensor([[16.0, 16.0], [16.0, 16.0]]), limit=300)
        >>> queries.boxes[0, 0].tolist(), queries.valid.tolist()
        ([0.25, 0.125, 0.5, 0.25], [[True], [False]])
    """
    chosen = [
        one if len(one) <= limit else one.keep(torch.randperm(len(one), device=one.labels.device)[:limit])
        for one in positives
    ]
    size = max([1, *map(len, chosen)])
    whole = image_sizes.new_tensor([0.5, 0.5, *SIDE_LIMITS[1:] * 2])
    boxes = whole.repeat(len(chosen), size, 1)
    gt_boxes = boxes.clone()
    labels = torch.zeros(boxes.shape[:2], dtype=torch.long, device=boxes.device)
    valid = torch.zeros_like(labels, dtype=torch.bool)
    for image, (one, scale) in enumerate(zip(chosen, image_sizes.repeat(1, 2))):
        taken = slice(len(one))
        boxes[image, taken] = bbox_xyxy_to_cxcywh(one.boxes / scale)
        gt_boxes[image, taken] = bbox_xyxy_to_cxcywh(one.gt_boxes / scale)
        labels[image, taken] = one.labels
        valid[image, taken] = True
    return PositiveQueries(boxes, labels, gt_boxes, valid)


def sample_centres(maps: Sequence[Tensor], centres: Tensor) -> Tensor:
    """Read a feature for each point: bilinear samples, averaged over the levels.

    The published code takes the cell of the anchor, or the average over a proposal's RoI feature; a sample at the
    centre needs neither the head's layout nor its features.

    Args:
        maps: L maps (B, C, h, w).
        centres: (B, M, 2) x and y, of the maps' extent, from 0 to 1.

    Returns:
        (B, M, C), at least in float32.
    """
    grid = centres[:, :, None].float() * 2 - 1
    samples = [grid_sample(level.float(), grid, align_corners=False, padding_mode="border") for level in maps]
    return torch.stack(samples).mean(dim=0)[..., 0].transpose(1, 2)


class PositiveQueryEncoder(BaseModule):
    """Make queries of positive boxes: Q = Linear(PE(B)) + Linear(E(F*, pos)) (eq. 4 of the paper), one for each branch.

    Args:
        embed_dims: width C of the transformer, even.
        with_pos: whether a positional query is made too; decoders that make it of the reference need none.
        with_feat: whether the feature at the box's centre is added.
        init_cfg: as in mmengine.
    """

    def __init__(self, embed_dims: int, with_pos: bool, with_feat: bool = True, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        width = embed_dims * 2 if with_pos else embed_dims
        self.embed_dims = embed_dims
        self.position = nn.Sequential(nn.Linear(embed_dims * 2, width), nn.LayerNorm(width))
        self.feature = nn.Sequential(nn.Linear(embed_dims, embed_dims), nn.LayerNorm(embed_dims)) if with_feat else None
        # The published code means one vector a branch, and builds a table that fails for a single branch.
        self.branch = nn.Parameter(torch.empty(embed_dims))

    def init_weights(self) -> None:
        """Initialise as the detectors do their own positional layers."""
        super().init_weights()
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                xavier_init(layer, distribution="uniform")
        nn.init.normal_(self.branch, std=0.02)

    def forward(self, queries: PositiveQueries, maps: Sequence[Tensor], extent: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return content and positional queries, (B, M, C) each; the latter None without ``with_pos``.

        Args:
            queries: the padded positives.
            maps: the encoder's own levels, (B, C, h, w).
            extent: (B, 2) share of the maps that the image covers in x and y; the rest is padding.
        """
        embedded = self.position(coordinate_to_encoding(queries.boxes, num_feats=self.embed_dims // 2))
        content = embedded[..., -self.embed_dims :]
        position = embedded[..., : -self.embed_dims] + self.branch if embedded.shape[-1] > self.embed_dims else None
        if position is None:
            content = content + self.branch
        if self.feature is not None:
            content = content + self.feature(sample_centres(maps, queries.boxes[..., :2] * extent[:, None]))
        return content, position


def reference_boxes(queries: PositiveQueries) -> Tensor:
    """(B, M, 4) cx, cy, w, h for the decoder, inside the limits that its logits need."""
    return queries.boxes.clamp(*SIDE_LIMITS)


def query_losses(
    head: Any, scores: Tensor, boxes: Tensor, queries: PositiveQueries, image_sizes: Tensor
) -> dict[str, Tensor]:
    """Compute a DETR head's losses for queries that need no matching, "all regarded as positive" (eq. 5 of the paper).

    Each layer's classification, L1 and IoU loss has the head's own weight, is divided by the number of queries in the
    batch (over all processes, at least 1), and leaves padding out.

    Args:
        head: with ``loss_cls``, ``loss_bbox``, ``loss_iou`` and ``num_classes``.
        scores: (L, B, M, C) logits of each decoder layer.
        boxes: (L, B, M, 4) cx, cy, w, h, from 0 to 1.
        queries: what went in.
        image_sizes: (B, 2) width and height in pixels.

    Returns:
        ``loss_cls``, ``loss_bbox`` and ``loss_iou`` of the last layer, and ``d0.loss_cls`` ... of those before it.
    """
    if scores.shape[1:3] != queries.valid.shape or boxes.shape[1:] != queries.gt_boxes.shape:
        raise RuntimeError(
            f"the decoder returned scores {tuple(scores.shape)} and boxes {tuple(boxes.shape)} for "
            f"{tuple(queries.valid.shape)} queries; does it change their number?"
        )
    weights = queries.valid.flatten().to(boxes.dtype)  # (B * M,)
    count = reduce_mean(weights.sum()).clamp(min=1)
    gt_boxes = queries.gt_boxes.flatten(0, 1)  # (B * M, 4)
    targets = Targets(
        labels=torch.where(queries.valid, queries.labels, head.num_classes).flatten(),
        label_weights=weights,
        label_boxes=gt_boxes,
        boxes=gt_boxes,
        box_weights=weights,
        scale=image_sizes.repeat(1, 2)[:, None].expand_as(queries.gt_boxes).flatten(0, 1),
        label_count=count,
        box_count=count,
    )
    layers = zip(scores.flatten(1, 2), boxes.flatten(1, 2))
    return by_layer([layer_losses(head, *layer, targets) for layer in layers])
