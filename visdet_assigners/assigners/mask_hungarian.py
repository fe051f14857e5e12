"""Hungarian matching of masks: a class cost and two mask costs, in mmdet 2's form.

Cheng et al., MaskFormer, NeurIPS 2021, arXiv:2107.06278, section 3.3; Zhang et al., K-Net, NeurIPS 2021,
arXiv:2106.14855, which matches without classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import Unpack

from visdet_assigners.assigners.base import Common
from visdet_assigners.assigners.forms import Names
from visdet_assigners.assigners.hungarian import HungarianAssigner
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

    mmdet2: ClassVar[Names] = (
        "cls_pred", "mask_pred", "gt_labels", "gt_mask", "img_meta", "gt_bboxes_ignore", "eps",
    )  # fmt: skip
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
