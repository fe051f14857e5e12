"""Hungarian matching of masks: a class cost and two mask costs, in mmdet 2's form.

Cheng et al., MaskFormer, NeurIPS 2021, arXiv:2107.06278, section 3.3; Zhang et al., K-Net, NeurIPS 2021,
arXiv:2106.14855, which matches without classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners.base import Common
from visdet_assigners.assigners.hungarian import HungarianAssigner
from visdet_assigners.assignment import AssignResult
from visdet_assigners.functional.validity import Kind
from visdet_assigners.registry import build, register


@register
class MaskHungarianAssigner(HungarianAssigner):
    """Match mask predictions one to one by class, mask and Dice costs.

    The class of mmdet 2 that mmdet 3 gave up for ``HungarianAssigner`` with mask costs, on ``InstanceData`` or on
    tensors.  It differs from that one in two points: a cost of weight 0 is not computed, and predictions without
    ``scores`` are matched by their masks alone.

    Args:
        cls_cost: configuration or object of the class cost; ClassificationCost if None.
        mask_cost: of the first mask cost; FocalLossCost with ``binary_input`` if None.
        dice_cost: of the second; DiceCost if None.
        **common: see ``BaseAssigner``.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace as Instances
        >>> gt = Instances(labels=torch.tensor([4]), masks=torch.eye(2)[None])
        >>> pred = Instances(masks=torch.stack([torch.zeros(2, 2), 4 * torch.eye(2) - 2]))
        >>> assigner = MaskHungarianAssigner(dice_cost=dict(type="DiceCost", pred_act=True))
        >>> assigner.assign(pred, gt).gt_inds
        tensor([0, 1])
        >>> assigner.assign(None, pred.masks, gt.labels, gt.masks, img_meta={}).gt_inds  # as in mmdet 2
        tensor([0, 1])
    """

    heads: ClassVar[str] = "MaskFormerHead and its line"
    reads: ClassVar[Mapping[str, Kind]] = {"scores": "scores", "masks": "masks"}

    def __init__(
        self,
        cls_cost: Any = None,
        mask_cost: Any = None,
        dice_cost: Any = None,
        **common: Unpack[Common],
    ) -> None:
        self.cls_cost = build(cls_cost or {"type": "ClassificationCost"})
        self.mask_cost = build(mask_cost or {"type": "FocalLossCost", "binary_input": True})
        self.dice_cost = build(dice_cost or {"type": "DiceCost"})

        super().__init__([self.cls_cost, self.mask_cost, self.dice_cost], **common)

    def costs_for(self, pred_instances: Any) -> Sequence[Any]:
        """The costs of non-zero weight, without the class cost where the predictions have no scores."""
        without_scores = getattr(pred_instances, "scores", None) is None
        costs = [cost for cost in self.match_costs if cost.weight and not (cost is self.cls_cost and without_scores)]
        if not costs:
            self.fail("every cost has weight 0 or lacks its field; give one of cls_cost, mask_cost, dice_cost a weight")
        return costs

    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Match the predictions of one image, given as instances or as mmdet 2's tensors.

        Args:
            *args: those of ``HungarianAssigner.assign``, or of ``assign_tensors``: then the second is a tensor.
            **kwargs: alike; only the latter has a ``mask_pred``.

        Returns:
            AssignResult with ``max_overlaps`` None.

        Raises:
            ValueError: see there.
        """
        are_tensors = "mask_pred" in kwargs or len(args) > 3 or (len(args) > 1 and isinstance(args[1], Tensor))
        return self.assign_tensors(*args, **kwargs) if are_tensors else super().assign(*args, **kwargs)

    def assign_tensors(
        self,
        cls_pred: Tensor | None,
        mask_pred: Tensor,
        gt_labels: Tensor,
        gt_mask: Tensor,
        img_meta: Mapping[str, Any] | None,
        gt_bboxes_ignore: None = None,
        eps: float = 1e-7,
    ) -> AssignResult:
        """Match the predictions of one image in mmdet 2's form, equal to ``assign`` on instances.

        Args:
            cls_pred: (N, C) logits, or None to match by masks alone (K-Net).
            mask_pred: (N, ...) logits of masks, or of points in them; N may be 0.
            gt_labels: (M,); M may be 0.
            gt_mask: (M, ...) of 0 and 1, at the same places.
            img_meta: of the image, named in errors.
            gt_bboxes_ignore: must be None: one-to-one matching has no ignore regions.
            eps: without effect, as in mmdet 2.

        Returns:
            AssignResult with ``max_overlaps`` None.

        Raises:
            ValueError: a tensor is missing or has another length than its partner, a label is no class of the scores,
                a cost is not finite, or there are ignore regions.
        """
        if gt_bboxes_ignore is not None:
            self.fail("gt_bboxes_ignore must be None: one-to-one matching has no ignore regions", img_meta)
        for name, tensor in (("mask_pred", mask_pred), ("gt_labels", gt_labels), ("gt_mask", gt_mask)):
            if not isinstance(tensor, Tensor):
                self.fail(f"{name} must be a tensor, got {type(tensor).__name__}", img_meta)
        if cls_pred is not None and len(cls_pred) != len(mask_pred):
            self.fail(f"cls_pred has {len(cls_pred)} rows but mask_pred has {len(mask_pred)}", img_meta)
        if len(gt_labels) != len(gt_mask):
            self.fail(f"gt_labels has {len(gt_labels)} entries but gt_mask has {len(gt_mask)}", img_meta)
        return super().assign(
            SimpleNamespace(scores=cls_pred, masks=mask_pred),
            SimpleNamespace(labels=gt_labels, masks=gt_mask),
            img_meta,
        )
