"""RetinaNet's head for assigners that need more than anchors, ATSS for one.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads import RetinaHead
from torch import Tensor

from visdet_assigners.adapting.adapter import adapt_assigner
from visdet_assigners.registry import MODELS


@MODELS.register_module()
class AnyAssignerRetinaHead(RetinaHead):
    """``RetinaHead`` that also passes the level sizes, and predictions where its assigner reads these.

    Options, weights, losses and predictions are those of ``RetinaHead``, which passes anchors and ground truths alone.
    """

    def loss(self, x: Sequence[Tensor], batch_data_samples: Sequence[Any]) -> dict[str, Any]:
        """Losses of a batch.

        Args:
            x: L feature maps (B, C, h, w).
            batch_data_samples: B samples with ``gt_instances``.
        """
        with adapt_assigner(self, batch_data_samples):
            return super().loss(x, batch_data_samples)
