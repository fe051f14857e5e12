"""Tensors as they come in: out of mmdet's box containers, half precision widened."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_tensor(boxes: Any) -> Any:
    """The tensor inside mmdet's ``BaseBoxes``; anything else as it is."""
    return getattr(boxes, "tensor", boxes)


def as_float32(tensor: Tensor) -> Tensor:
    """Half precision to float32; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def finite_fault(value: Tensor) -> str:
    """Say where a floating tensor on CPU is not finite: ``"[3, 0] is nan; not finite: 1 of 40 entries"`` or nothing.

    Tensors on a device are not looked at, since the look would wait for it.
    """
    if value.device.type != "cpu" or not value.is_floating_point() or torch.isfinite(value.sum()):
        return ""
    bad = (~torch.isfinite(value)).nonzero()  # a sum of finite entries may overflow, hence the second look
    if not len(bad):
        return ""
    index = bad[0].tolist()
    return f"{index} is {value[tuple(index)].item()}; not finite: {len(bad)} of {value.numel()} entries"


def label_fault(labels: Tensor, num_classes: int) -> str:
    """Say which label is no class from 0 to ``num_classes`` - 1, or nothing; a device is not waited for."""
    if labels.device.type != "cpu" or not len(labels):
        return ""
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < num_classes:
        return ""
    wrong = low if low < 0 else high
    return f"gt_instances.labels holds {wrong} but scores have {num_classes} classes; check num_classes"
