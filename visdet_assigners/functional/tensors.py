"""Tensors as they come in: out of mmdet's box containers, half precision widened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from visdet_assigners.functional.blocks import static_shapes

REGISTER = 64
"""Entries that a CPU works on at once, at most."""


def as_tensor(boxes: Any) -> Any:
    """The tensor inside mmdet's ``BaseBoxes``; anything else as it is."""
    return getattr(boxes, "tensor", boxes)


def as_float32(tensor: Tensor) -> Tensor:
    """Half precision to float32; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def padded(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Put tensors of different lengths into one, with zeros behind each, at least one.

    Args:
        tensors: B tensors (N_i, ...); N_i may be 0.

    Returns:
        (B, N, ...) with N above the largest N_i, and (B, N) bool, which rows are no padding.
    """
    lengths = np.array([len(tensor) for tensor in tensors])
    place, start = np.arange(lengths.max() + 1), (lengths.cumsum() - lengths)[:, None]
    rows = torch.from_numpy(np.where(place < lengths[:, None], start + place, lengths.sum()))
    rows = rows.to(tensors[0].device, non_blocking=True)  # made on the host, which knows all lengths
    return torch.cat([*tensors, tensors[0].new_zeros(1, *tensors[0].shape[1:])])[rows], rows < int(lengths.sum())


def evenly(function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Apply a function of single entries so that equal entries have equal results, wherever they stand.

    On a CPU torch computes the last few entries, those that don't fill a register, by other instructions, and sigmoid
    and powers of them may differ in the last bit.  Here all entries fill registers.
    """
    if tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return function(tensor)
    count = tensor.numel()
    return function(F.pad(tensor.reshape(-1), (0, -count % REGISTER)))[:count].view(tensor.shape)


def finite_fault(value: Tensor) -> str:
    """Say where a floating tensor on CPU is not finite: ``"[3, 0] is nan; not finite: 1 of 40 entries"`` or nothing.

    Tensors on a device are not looked at, since the look would wait for it.
    """
    if static_shapes(value.device) or not value.is_floating_point() or torch.isfinite(value.sum()):
        return ""
    bad = (~torch.isfinite(value)).nonzero()  # a sum of finite entries may overflow, hence the second look
    if not len(bad):
        return ""
    index = bad[0].tolist()
    return f"{index} is {value[tuple(index)].item()}; not finite: {len(bad)} of {value.numel()} entries"


def label_fault(labels: Tensor, num_classes: int) -> str:
    """Say which label is no class from 0 to ``num_classes`` - 1, or nothing; a device is not waited for."""
    if static_shapes(labels.device) or not len(labels):
        return ""
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < num_classes:
        return ""
    wrong = low if low < 0 else high
    return f"gt_instances.labels holds {wrong} but scores have {num_classes} classes; check num_classes"
