"""Tensors as they come in: out of mmdet's box containers, half precision widened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REGISTER = 64
"""Entries that a CPU works on at once, at most."""


def as_tensor(boxes: Any) -> Any:
    """The tensor inside mmdet's ``BaseBoxes``; anything else as it is."""
    return getattr(boxes, "tensor", boxes)


def as_float32(tensor: Tensor) -> Tensor:
    """Numbers of any type, and truth values, as float32."""
    return tensor.float()


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside the ``with`` block autocast is off, so that products are those of the inputs in float32."""
    with ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if autocasts(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def autocasts(kind: str) -> bool:
    """Whether autocast is on for this kind of device."""
    try:
        return torch.is_autocast_enabled(kind)
    except TypeError:  # before torch 2.4
        return torch.is_autocast_cpu_enabled() if kind == "cpu" else torch.is_autocast_enabled()


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


def cat_or_only(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Parts one after another along a dimension; one alone is not copied."""
    return torch.cat(list(parts), dim=dim) if len(parts) > 1 else parts[0]


def row_of_image(counts: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """For each of the T rows of all images: its image, and its row in that image, (T,) int64 each; T is the sum."""
    image = np.repeat(np.arange(len(counts)), counts)
    number = np.concatenate([np.arange(count) for count in counts])
    found = torch.from_numpy(np.stack([image, number])).to(like.device, non_blocking=True)  # made on the host
    return found[0], found[1]


def evenly(function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Apply a function of single entries so that equal entries have equal results, wherever they stand.

    On a CPU torch computes the last few entries, those that don't fill a register, by other instructions, and sigmoid
    and powers of them may differ in the last bit.  Here all entries fill registers.
    """
    if tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return function(tensor)
    count = tensor.numel()
    return function(F.pad(tensor.reshape(-1), (0, -count % REGISTER)))[:count].view(tensor.shape)
