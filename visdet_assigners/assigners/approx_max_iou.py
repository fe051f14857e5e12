"""ApproxMaxIoU: a location overlaps an object as well as the best of its approximating boxes.

Wang et al., Guided Anchoring, CVPR 2019, arXiv:1901.03278, section 3.5; Wang et al., SABL, ECCV 2020, arXiv:1912.04260.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from visdet_assigners.assigners.forms import TRUTHS, Names
from visdet_assigners.assigners.max_iou import MaxIoUAssigner
from visdet_assigners.functional.tensors import as_tensor
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs
from visdet_assigners.registry import register


@register
class ApproxMaxIoUAssigner(MaxIoUAssigner):
    """Assign locations by the best IoU of their approximating boxes: SABL-RetinaNet, Guided Anchoring.

    Reads ``priors`` (N, 4) xyxy, the squares, and ``approxs`` (N, A, 4) xyxy that each stands for.  The constructor is
    that of ``MaxIoUAssigner``.  Ignore regions are compared with the squares, not with the approximating boxes.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace as Instances
        >>> squares = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.]])
        >>> wide = squares + torch.tensor([-4., 2., 4., -2.])
        >>> pred = Instances(priors=squares, approxs=torch.stack([squares, wide], dim=1))
        >>> gt = Instances(bboxes=torch.tensor([[4., 2., 20., 6.]]), labels=torch.tensor([1]))
        >>> ApproxMaxIoUAssigner(0.5, 0.4).assign(pred, gt).max_overlaps
        tensor([0.3333, 1.0000])
    """

    knobs: ClassVar[str] = "lower min_pos_iou, or add scales to the approximating anchors"
    heads: ClassVar[str] = "SABLRetinaHead, and for the shapes of guided anchors GARPNHead and GARetinaHead"
    reads: ClassVar[Mapping[str, Kind]] = {"priors": "boxes", "approxs": "groups"}
    mmdet2: ClassVar[Names] = ("approxs", "squares", "approxs_per_octave", *TRUTHS)
    priors_first: ClassVar[bool] = True

    def from_mmdet2(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Put together the approximating boxes of each square, which mmdet 2 passes one after another."""
        boxes, each = as_tensor(fields["pred_instances.approxs"]), fields.pop("approxs_per_octave")
        each = self.count_of("approxs_per_octave", each)
        if isinstance(boxes, Tensor):
            if boxes.ndim != 2 or len(boxes) % each:
                self.fail(f"approxs must have shape (squares * {each}, 4), got {tuple(boxes.shape)}")
            fields["pred_instances.approxs"] = boxes.view(-1, each, boxes.shape[1])
        return fields

    def candidates(self, image: Inputs) -> Tensor:
        """Boxes (N, A, 4) to compare with ground truths, the approximating ones."""
        return image.fields["approxs"]
