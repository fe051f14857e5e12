"""Heads of DETR's line that match all images and decoder layers of an iteration at once.

Carion et al., ECCV 2020, arXiv:2005.12872; Zhu et al., ICLR 2021, arXiv:2010.04159; Zhang et al., ICLR 2023,
arXiv:2203.03605.  mmdet's heads match image by image and layer by layer, and synchronise with the device each time.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from mmdet.models.dense_heads import DeformableDETRHead, DETRHead, DINOHead
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from torch import Tensor

from visdet_assigners.assigners import HungarianAssigner
from visdet_assigners.assignment import AssignResult
from visdet_assigners.functional.resolve import union_of_matchings
from visdet_assigners.options import one_of
from visdet_assigners.registry import MODELS
from visdet_assigners.set_losses import layer_losses, targets_of, truths_of

BoxMatching = Literal["own", "union"]
Layer = tuple[Tensor, Tensor, Sequence[Any]]
"""Logits (B, Q, C), boxes (B, Q, 4) cxcywh in parts of the image, and the ground truths of B images."""


class Decided:
    """Stands in for an assigner whose answers are known: gives them one after another.

    Args:
        results: of B images, layer by layer.
        num_layers: how many of the layers in front are the decoder's, whose matchings are united.
    """

    def __init__(self, results: Sequence[AssignResult], num_layers: int) -> None:
        self.all = list(results)
        self.results = iter(self.all)
        self.num_layers = num_layers
        self.layers_asked = 0

    def assign(self, pred_instances: Any, gt_instances: Any, img_meta: Any) -> AssignResult:
        """The next answer."""
        return next(self.results)

    def next_layer(self, num_images: int) -> tuple[Tensor, Tensor]:
        """Ground truths of the next layer, (B, Q), -1 for none: by its own pairs, and by the decoder's union."""

        def pairs_of(layer: int) -> Tensor:
            own = self.all[layer * num_images : (layer + 1) * num_images]
            return torch.stack([result.gt_inds for result in own]) - 1

        own = pairs_of(self.layers_asked)
        self.layers_asked += 1
        if self.layers_asked > self.num_layers:
            return own, own
        if self.layers_asked == 1:
            self.union = union_of_matchings(torch.stack([pairs_of(layer) for layer in range(self.num_layers)]))
        return own, self.union


class BatchedMatchingMixin:
    """Matches everything that a head is about to ask its assigner for with one ``assign_batch``.

    Goes before mmdet's head among the bases.  Losses, weights and predictions are those of that head.

    With ``box_matching='union'`` the boxes of every decoder layer learn from the union of all layers' pairs, in which a
    query keeps its most frequent object (D-FINE, arXiv:2410.13842; see ``union_of_matchings``); classes keep the pairs
    of their own layer.  The encoder's proposals, which are other queries, keep theirs, and so do denoising queries.
    Box losses are then divided by the number of the union's pairs.  It waits for the device less often than 'own', not
    more.

    Args:
        *args: as in the head.
        box_matching: whose pairs the boxes of a layer learn from: 'own', as in mmdet, or 'union'.
        **kwargs: as in the head; ``train_cfg.assigner`` must be a ``HungarianAssigner`` of this package.

    Raises:
        ValueError: another assigner, or another ``box_matching``.
    """

    assigner: Any
    train_cfg: Any
    box_matching: BoxMatching = "own"

    def __init__(self, *args: Any, box_matching: BoxMatching = "own", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.box_matching = one_of(type(self).__name__, "box_matching", box_matching, BoxMatching)
        if self.train_cfg and not isinstance(self.assigner, HungarianAssigner):
            raise ValueError(
                f"{type(self).__name__}: the assigner is {type(self.assigner).__name__}; matching at once needs "
                "train_cfg.assigner.type='visdet_assigners.HungarianAssigner'"
            )

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Losses of the head, after all layers are matched; the arguments are mmdet's."""
        original = super().loss_by_feat  # type: ignore[misc]
        outputs = inspect.signature(original).bind(*args, **kwargs).arguments
        assigner = self.assigner
        results = match_layers(assigner, list(self.layers_of(outputs)), outputs["batch_img_metas"])
        self.assigner = Decided(results, len(outputs["all_layers_cls_scores"]))
        try:
            return original(*args, **kwargs)
        finally:
            self.assigner = assigner

    def loss_by_feat_single(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        batch_gt_instances: Sequence[Any],
        batch_img_metas: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Class, L1 and IoU loss of one layer, (B, Q, C) logits and (B, Q, 4) boxes."""
        if self.box_matching == "own":
            original = super().loss_by_feat_single  # type: ignore[misc]
            return original(cls_scores, bbox_preds, batch_gt_instances, batch_img_metas)
        pairs = self.assigner.next_layer(len(batch_gt_instances))
        targets = targets_of(self, truths_of(batch_gt_instances, batch_img_metas), *pairs)
        return layer_losses(self, cls_scores.flatten(0, 1), bbox_preds.flatten(0, 1), targets)

    def layers_of(self, outputs: Mapping[str, Any]) -> Iterator[Layer]:
        """Yield what will be matched, in the order in which the head does it."""
        for logits, boxes in zip(outputs["all_layers_cls_scores"], outputs["all_layers_bbox_preds"]):
            yield logits, boxes, outputs["batch_gt_instances"]


@torch.no_grad()
def match_layers(
    assigner: HungarianAssigner, layers: Sequence[Layer], img_metas: Sequence[Mapping[str, Any]]
) -> list[AssignResult]:
    """Match L layers of B images with one copy to the host; L * B results, layer by layer."""
    preds, gts = [], []
    for logits, boxes, layer_gts in layers:
        for image_logits, image_boxes, image_gts, meta in zip(logits, boxes, layer_gts, img_metas):
            height, width = meta["img_shape"][:2]
            size = image_boxes.new_full((1, 4), width)
            size[:, 1::2] = height
            preds.append(InstanceData(scores=image_logits, bboxes=bbox_cxcywh_to_xyxy(image_boxes) * size))
            gts.append(image_gts)
    return assigner.assign_batch(preds, gts, img_metas=list(img_metas) * len(layers))


@MODELS.register_module()
class BatchedDETRHead(BatchedMatchingMixin, DETRHead):
    """``DETRHead`` that matches all images and decoder layers at once.

    Args:
        num_classes: C.
        *args: as in ``DETRHead``.
        loss_cls: config of the class loss; its ``class_weight`` is that of the classes, ``bg_cls_weight`` that of the
            background.
        **kwargs: as in ``DETRHead``.
    """

    def __init__(self, num_classes: int, *args: Any, loss_cls: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        loss = dict(loss_cls or dict(type="CrossEntropyLoss", bg_cls_weight=0.1, loss_weight=1.0, class_weight=1.0))
        of_classes, of_background = loss.pop("class_weight", None), loss.pop("bg_cls_weight", None)
        if of_classes is not None:  # mmdet's head does this for its own class alone
            of_background = of_classes if of_background is None else of_background
            loss["class_weight"] = [of_classes] * num_classes + [of_background]
        super().__init__(num_classes, *args, loss_cls=loss, **kwargs)
        self.bg_cls_weight = 0 if of_classes is None else of_background


@MODELS.register_module()
class BatchedDeformableDETRHead(BatchedMatchingMixin, DeformableDETRHead):
    """``DeformableDETRHead`` that matches all images and decoder layers, and the encoder's proposals, at once."""

    def layers_of(self, outputs: Mapping[str, Any]) -> Iterator[Layer]:
        """Yield the decoder's layers, then the encoder's proposals, for which all objects are of one class."""
        yield from super().layers_of(outputs)
        if outputs["enc_cls_scores"] is not None:
            gts = [gt.clone() for gt in outputs["batch_gt_instances"]]
            for gt in gts:
                gt.labels = torch.zeros_like(gt.labels)
            yield outputs["enc_cls_scores"], outputs["enc_bbox_preds"], gts


@MODELS.register_module()
class BatchedDINOHead(BatchedMatchingMixin, DINOHead):
    """``DINOHead`` that matches all images and decoder layers, and the encoder's proposals, at once."""

    def layers_of(self, outputs: Mapping[str, Any]) -> Iterator[Layer]:
        """Yield the decoder's layers without their denoising queries, then the encoder's proposals."""
        names = ("all_layers_cls_scores", "all_layers_bbox_preds")
        matching = self.split_outputs(*(outputs[name] for name in names), outputs["dn_meta"])[:2]
        yield from super().layers_of({**outputs, **dict(zip(names, matching))})
        if outputs["enc_cls_scores"] is not None:
            yield outputs["enc_cls_scores"], outputs["enc_bbox_preds"], outputs["batch_gt_instances"]
