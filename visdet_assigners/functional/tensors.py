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
