"""Hungarian matching: one prediction for each ground truth at the lowest total cost.

Carion et al., DETR, ECCV 2020, arXiv:2005.12872, section 3.1, eq. 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch  # noqa: F401  (the example)
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.base import Common
from visdet_assigners.assigners.calling import assigner_method
from visdet_assigners.assigners.checking import checked
from visdet_assigners.assigners.forms import Names, in_any_form
from visdet_assigners.assigners.matching import Image, MatchingAssigner
from visdet_assigners.assignment import Assignment, AssignResult, to_assign_results
from visdet_assigners.functional.boxes import cxcywh_to_xyxy
from visdet_assigners.functional.lsap import matched_columns
from visdet_assigners.inputs import image_size
from visdet_assigners.registry import build, register
from visdet_assigners.scheduled_costs import costs_of_now


@checked(cost="numbers")
def hungarian(cost: Tensor) -> Assignment:
    """Match predictions and ground truths one to one at the lowest total cost.

    Args:
        cost: (N, M), finite; either may be 0.  With M > N only N ground truths are matched.

    Returns:
        Assignment without ``quality``; unmatched predictions are negative.

    Example:
        >>> hungarian(torch.tensor([[4., 1.], [2., 0.], [3., 2.]])).gt_index
        tensor([ 1,  0, -1])
    """
    return Assignment(matched_columns([cost[None]], [[cost.shape[1]]])[0][0])


@register
class HungarianAssigner(MatchingAssigner):
    """Match predictions one to one by a sum of costs: DETR and its descendants, Sparse R-CNN, mask transformers.

    Args:
        match_costs: configurations or objects of the costs, or one of them; ``ScheduledCosts`` stands for other costs
            in other epochs.
        cls_cost: class cost of mmdet 2's form, used with ``reg_cost`` and ``iou_cost`` in place of ``match_costs``;
            where only some of the three are given, the others are mmdet 2's defaults (ClassificationCost, BBoxL1Cost,
            IoUCost giou, each of weight 1), and so are all three without any argument.
        reg_cost: box cost of that form.
        iou_cost: overlap cost of that form.
        **common: see ``BaseAssigner``.

    Raises:
        ValueError: both forms are given, or an empty list.

    Example:
        >>> assigner = HungarianAssigner([dict(type="ClassificationCost"), dict(type="BBoxL1Cost", weight=5.0)])
        >>> from types import SimpleNamespace as Instances
        >>> boxes = torch.tensor([[0., 0., 4., 4.], [4., 4., 8., 8.], [0., 0., 8., 8.]])
        >>> gt = Instances(bboxes=torch.tensor([[4., 4., 8., 7.]]), labels=torch.tensor([1]))
        >>> assigner.assign(Instances(scores=torch.eye(3), bboxes=boxes), gt, dict(img_shape=(8, 8))).gt_inds
        tensor([0, 1, 0])
    """

    mmdet2: ClassVar[Names] = (
        "bbox_pred", "cls_pred", "gt_bboxes", "gt_labels", "img_meta", "gt_bboxes_ignore", "eps",
    )  # fmt: skip

    def __init__(
        self,
        match_costs: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        cls_cost: Any = None,
        reg_cost: Any = None,
        iou_cost: Any = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        old_form = {"cls_cost": cls_cost, "reg_cost": reg_cost, "iou_cost": iou_cost}
        if match_costs is not None:
            given = [name for name, cost in old_form.items() if cost is not None]
            if given:
                self.fail(f"match_costs and {', '.join(given)} are given; choose one form")
            if isinstance(match_costs, Mapping) or callable(match_costs):
                match_costs = [match_costs]
            if not match_costs:
                self.fail("match_costs is empty; at least one cost is needed")
        else:
            match_costs = [
                {"type": "ClassificationCost"} if cls_cost is None else cls_cost,
                {"type": "BBoxL1Cost"} if reg_cost is None else reg_cost,
                {"type": "IoUCost", "iou_mode": "giou"} if iou_cost is None else iou_cost,
            ]
        self.match_costs = [build(cost) for cost in match_costs]

    def costs_for(self, pred_instances: Any) -> Sequence[Any]:
        """All match costs, of ``ScheduledCosts`` those of now; a subclass may leave some out."""
        costs = costs_of_now(self.match_costs)
        if not costs:
            self.fail("match_costs has no cost for this epoch; add one to the stage of ScheduledCosts")
        return costs

    def from_mmdet2(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Bring predicted boxes from shares of the image, centre and size, to corners in pixels.

        Raises:
            AssignerInputError: there are ignore regions.
        """
        if fields.pop("gt_instances_ignore.bboxes", None) is not None:
            text = "gt_bboxes_ignore must be None: one-to-one matching has no ignore regions"
            self.fail(text, fields.get("img_meta"))
        boxes = fields.get("pred_instances.bboxes")
        if isinstance(boxes, Tensor) and boxes.ndim == 2 and boxes.shape[1] == 4:
            size = image_size(type(self).__name__, fields.get("img_meta"), [fields.get("img_meta")])
            fields["pred_instances.bboxes"] = cxcywh_to_xyxy(boxes, size)
        return fields

    @in_any_form
    @assigner_method
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        img_meta: Mapping[str, Any] | None = None,
        *,
        gt_instances_ignore: Any = None,
        num_level_priors: Sequence[int] | None = None,
    ) -> AssignResult:
        """Match the predictions of one image.

        Also takes mmdet 2's tensors, see ``mmdet2``: there ``bbox_pred`` is centre and size in shares of the image.

        Args:
            pred_instances: with what the costs read: ``scores`` (N, C) logits, ``bboxes`` (N, 4) xyxy pixels,
                ``masks``.
            gt_instances: ``labels`` (M,) and what the costs read: ``bboxes`` (M, 4) xyxy, ``masks``; M may be 0.
            img_meta: of the image, third as in mmdet; ``img_shape`` (height, width) for the box cost.
            gt_instances_ignore: not used: one-to-one matching has no ignore regions.
            num_level_priors: accepted so that assigners can be exchanged; not used.

        Returns:
            AssignResult with ``max_overlaps`` None.

        Raises:
            ValueError: a field is missing, a label is no class of the scores, or a cost is not finite: named with the
                cost and, where ``img_meta`` tells, the image.
        """
        if img_meta is not None and not isinstance(img_meta, Mapping):
            img_meta = None  # ignore regions, third as in dense heads
        return self.match([(pred_instances, gt_instances, img_meta)])[0]

    @assigner_method
    def assign_batch(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any] | None] | None = None,
        **shared: Any,
    ) -> list[AssignResult]:
        """Match B images, or the decoder layers of B images, with one copy to the host and one back.

        On a device the costs of images alike are worked out at once, see ``total_costs``.  The arguments are those of
        ``BaseAssigner.assign_batch``.
        """
        return self.match(self.zip_images(pred_list, gt_list, img_metas))

    def match(self, images: Sequence[Image]) -> list[AssignResult]:
        """Match images, each given as predictions, ground truths and meta data."""
        read = self.read_images(images)
        batches = self.total_costs(read)
        decided = self.solve(read, batches, matched_columns) if batches else []
        results: dict[int, AssignResult] = {}
        for (own, _), gt_index in zip(batches, decided):
            results.update(zip(own, to_assign_results(gt_index, None, [read[number].labels for number in own])))
        return [results[number] for number in range(len(images))]
