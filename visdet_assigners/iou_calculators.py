"""Overlap of boxes as an exchangeable part, in mmdet's form."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from visdet_assigners.functional.boxes import box_overlaps
from visdet_assigners.functional.tensors import as_tensor
from visdet_assigners.registry import register


class IoUCalculator(Protocol):
    """Anything that gives the (A, B) overlaps of (A, 4) and (B, 4) boxes."""

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = "iou") -> Tensor:
        """Pairwise overlaps; ``mode`` is "iou", "iof" or "giou"."""
        ...


@register
class BboxOverlaps2D:
    """Overlap of xyxy boxes; a drop-in for mmdet's calculator of this name.

    Args:
        scale: divisor of the coordinates before they are made half precision, against overflow.
        dtype: "fp16" computes in half precision to save memory; None in the precision of the boxes.

    Example:
        >>> import torch
        >>> BboxOverlaps2D()(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[0., 0., 2., 1.]]))
        tensor([[0.5000]])
    """

    # What it promises to assigners, see `assigners.overlapping`.
    upright = True
    reach = 0.0
    takes_pairs = True
    blockwise = True

    def __init__(self, scale: float = 1.0, dtype: str | None = None) -> None:
        if dtype not in (None, "fp16"):
            raise ValueError(f"BboxOverlaps2D: dtype is {dtype!r}; choose None or 'fp16'")
        self.scale = scale
        self.dtype = dtype

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = "iou", is_aligned: bool = False) -> Tensor:
        """Overlaps of boxes.

        Args:
            bboxes1: (A, 4) or (A, 5) xyxy (and score), tensor or ``BaseBoxes``; A may be 0.
            bboxes2: (B, 4) or (B, 5), alike.
            mode: "iou", "iof" (over the area of ``bboxes1``) or "giou".
            is_aligned: row i with row i; A must equal B.

        Returns:
            (A, B), or (A,) if aligned.  With ``dtype='fp16'`` half precision on a device, float32 on CPU.
        """
        overlaps = box_overlaps(self._prepare(bboxes1), self._prepare(bboxes2), mode, is_aligned)
        return overlaps.float() if self.dtype == "fp16" and overlaps.device.type == "cpu" else overlaps

    def _prepare(self, boxes: Tensor) -> Tensor:
        boxes = as_tensor(boxes)
        if boxes.shape[-1] not in (4, 5) and boxes.numel():
            raise ValueError(f"BboxOverlaps2D: boxes have {boxes.shape[-1]} columns; 4 (xyxy) or 5 are expected")
        boxes = boxes[..., :4] if boxes.ndim > 1 else boxes.reshape(0, 4)
        return (boxes / self.scale).half() if self.dtype == "fp16" else boxes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(scale={self.scale}, dtype={self.dtype})"


@register
class BboxOverlaps2D_GLIP(BboxOverlaps2D):  # noqa: N801  (the name that configs use)
    """IoU of boxes whose right and bottom pixels belong to them, as GLIP (arXiv:2112.03857) was trained.

    Widths and heights count one pixel more; only the plain IoU is defined, as in mmdet, whatever ``mode`` says.
    """

    upright = True
    reach = 1.0
    takes_pairs = True
    blockwise = True

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = "iou", is_aligned: bool = False) -> Tensor:
        """IoU of (A, 4) and (B, 4) xyxy boxes -> (A, B), or (A,) if aligned; ``mode`` changes nothing."""
        first, second = as_tensor(bboxes1)[..., :4], as_tensor(bboxes2)[..., :4]
        if not is_aligned:
            first, second = first[..., :, None, :], second[..., None, :, :]
        (x1, y1, x2, y2), (gt_x1, gt_y1, gt_x2, gt_y2) = first.unbind(-1), second.unbind(-1)
        width = (torch.min(x2, gt_x2) - torch.max(x1, gt_x1) + 1).clamp(min=0)
        height = (torch.min(y2, gt_y2) - torch.max(y1, gt_y1) + 1).clamp(min=0)
        overlap = width * height
        areas = (x2 - x1 + 1) * (y2 - y1 + 1) + (gt_x2 - gt_x1 + 1) * (gt_y2 - gt_y1 + 1)
        return overlap / (areas - overlap)
