"""TopkHungarian: one-to-one matching with every object repeated, so that each gets several predictions.

Zhang et al., DDQ, CVPR 2023, arXiv:2303.12776, section 3.4.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.base import Common
from visdet_assigners.assigners.calling import assigner_method
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.matching import Image, MatchedImage, MatchingAssigner
from visdet_assigners.assigners.overlapping import OverlapMixin
from visdet_assigners.assignment import Assignment, AssignResult, all_negative, to_assign_result
from visdet_assigners.functional.costs import of_labels
from visdet_assigners.functional.lsap import repeated_assignments
from visdet_assigners.functional.validity import Kind
from visdet_assigners.options import whole_number
from visdet_assigners.registry import build, register


@checked({"topk": whole_number}, cost="numbers")
def topk_hungarian(cost: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """Match each ground truth with several predictions at the lowest total cost.

    Args:
        cost: (N, M), finite; M at least 1.
        topk: predictions per ground truth, cut to N // M.

    Returns:
        The matched predictions (P,), ascending, and their ground truths (P,); P = topk * M.

    Example:
        >>> import torch
        >>> topk_hungarian(torch.tensor([[1., 9.], [9., 1.], [2., 9.], [9., 2.]]), topk=2)
        (tensor([0, 1, 2, 3]), tensor([0, 1, 0, 1]))
    """
    return repeated_assignments([cost[None]], [[cost.shape[1]]], [min(topk, len(cost) // cost.shape[1])])[0]


@register
class TopkHungarianAssigner(OverlapMixin, MatchingAssigner):
    """Match each ground truth with several dense queries: the auxiliary loss of DDQ-DETR.

    Args:
        topk: predictions per ground truth.
        iou_calculator: configuration or object; plain IoU if None.
        cls_cost: configuration or object of the class cost; FocalLossCost of weight 2 if None.
        reg_cost: of the box cost; BBoxL1Cost of weight 5 if None.
        iou_cost: of the overlap cost; IoUCost giou of weight 2 if None.
        **common: see ``BaseAssigner``.

    The class cost applies a sigmoid to scores that DDQ's head has already made probabilities; the published models were
    trained so, and mmdet's results are kept.
    """

    reads: ClassVar[Mapping[str, Kind]] = {"scores": "probabilities", "bboxes": "predicted"}

    def __init__(
        self,
        topk: int,
        iou_calculator: Any = None,
        *,
        cls_cost: Any = None,
        reg_cost: Any = None,
        iou_cost: Any = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.topk = self.count_of("topk", topk)
        self.build_calculator(iou_calculator)
        self.cls_cost = build(cls_cost or {"type": "FocalLossCost", "weight": 2.0})
        self.reg_cost = build(reg_cost or {"type": "BBoxL1Cost", "weight": 5.0})
        self.iou_cost = build(iou_cost or {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0})

    def costs_for(self, pred_instances: Any) -> Sequence[Any]:
        """All three."""
        return self.cls_cost, self.reg_cost, self.iou_cost

    @assigner_method
    def assign_batch(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any] | None] | None = None,
        alpha: float = 1,
        beta: float = 6,
        **shared: Any,
    ) -> list[AssignResult]:
        """Match B images, given as for other assigners, with one copy to the host and one back.

        On a device the costs of images alike are worked out at once, see ``total_costs``.

        Args:
            pred_list: predictions with ``scores`` (N, C) and ``bboxes`` (N, 4), as in ``assign``.
            gt_list: ground truths with ``bboxes`` (M, 4) and ``labels`` (M,).
            ignore_list: not used: one-to-one matching has no ignore regions.
            img_metas: of each image, with ``img_shape``.
            alpha: exponent of the score in the alignment.
            beta: exponent of the IoU in the alignment.
            **shared: accepted so that assigners can be exchanged; not used.
        """
        return self.match(self.zip_images(pred_list, gt_list, img_metas), alpha, beta)

    @assigner_method
    def assign(
        self,
        pred_scores: Tensor,
        decode_bboxes: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        img_meta: Mapping[str, Any],
        alpha: float = 1,
        beta: float = 6,
    ) -> AssignResult:
        """Match the predictions of one image; tensors, not instances, as in mmdet.

        Args:
            pred_scores: (N, C) probabilities; N may be 0.
            decode_bboxes: (N, 4) xyxy, pixels.
            gt_bboxes: (M, 4) xyxy, pixels; M may be 0.
            gt_labels: (M,).
            img_meta: with ``img_shape`` (height, width).
            alpha: exponent of the score in the alignment.
            beta: exponent of the IoU in the alignment.

        Returns:
            AssignResult whose ``max_overlaps`` (P,) is the IoU of the matched pairs alone, by ascending prediction, and
            with the plain attribute ``assign_metrics`` (P,), their alignment score^alpha * IoU^beta; DDQ's loss reads
            both at the positives.  Without ground truths ``max_overlaps`` is None.

        Raises:
            ValueError: a tensor has the wrong shape, a label is no class, or a cost is not finite, named with the
                image.

        Differs from mmdet: where there are more ground truths than predictions, each of these is matched, instead of
        none.
        """
        pred = SimpleNamespace(scores=pred_scores, bboxes=decode_bboxes)
        return self.match([(pred, SimpleNamespace(bboxes=gt_bboxes, labels=gt_labels), img_meta)], alpha, beta)[0]

    def match(self, images: Sequence[Image], alpha: float, beta: float) -> list[AssignResult]:
        """Match images, each given as predictions, ground truths and meta data."""
        read = self.read_images(images)
        batches = self.total_costs(read)
        order = [number for own, _ in batches for number in own]
        topk = [max(1, min(self.topk, read[n].num_preds // max(1, len(read[n].labels)))) for n in order]
        pairs = self.solve(read, batches, functools.partial(repeated_assignments, times=topk))
        results = {number: self.result(read[number], *pair, alpha, beta) for number, pair in zip(order, pairs)}
        return [results[number] for number in range(len(images))]

    def read_image(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> MatchedImage:
        """Fetch what the costs and the alignment need of an image: scores and boxes, whatever the costs read."""
        image = super().read_image(pred_instances, gt_instances, img_meta)
        read = vars(image.pred)
        if not {"scores", "bboxes"} <= read.keys():
            more = {"scores": "scores", "bboxes": "predicted"}
            named = {name: (getattr(pred_instances, name, None), kind) for name, kind in more.items()}
            read.update(zip(more, image.inputs.rows(named, owner="pred_instances.")))  # type: ignore[arg-type]
            image.num_preds = len(read["scores"])
        if "bboxes" not in vars(image.gt):
            num_classes = read["scores"].shape[1]
            image.inputs.read_truths(gt_instances.bboxes, gt_instances.labels, num_classes)
            image.gt.bboxes = image.inputs.gts
        return image

    def result(self, image: MatchedImage, rows: Tensor, columns: Tensor, alpha: float, beta: float) -> AssignResult:
        """The result of the matched pairs (P,) of an image."""
        scores, labels = image.pred.scores, image.labels
        unmatched = all_negative(len(scores), scores)
        if len(labels) == 0:
            return to_assign_result(Assignment(unmatched), labels)
        iou = self.measure.overlaps(image.gt.bboxes, image.pred.bboxes).mT.contiguous()
        alignment = of_labels(scores, labels) ** alpha * iou**beta
        gt_index = unmatched.index_copy(0, rows, columns)
        result = to_assign_result(Assignment(gt_index, iou[rows, columns]), labels)
        result.assign_metrics = alignment[rows, columns]
        return result
