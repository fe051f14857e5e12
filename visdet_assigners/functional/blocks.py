"""Work over pairs of priors and ground truths in blocks, so that memory doesn't grow with their number.

A block takes at most the memory budget of `settings`.  On a CPU blocks are small enough to stay in its cache, and
priors and ground truths that are far apart are left out of them, which makes shapes depend on the data.  On a device
that would synchronise with it, so shapes there depend on the numbers of priors and ground truths alone;
``VISDET_ASSIGNERS_DEVICE_PATH=1`` takes that way on a CPU, too.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from torch import Tensor

from visdet_assigners.settings import memory_budget

CACHE = 2 * 1024**2
"""Bytes of temporaries that stay in the cache of a CPU."""


class Reach(NamedTuple):
    """How far from a ground truth a box may lie and still overlap it by more than 0, as a measure defines overlap.

    The gap between their borders is at most ``pixels``, and the size of the ground truth times ``widths`` in x and
    ``heights`` in y more.
    """

    pixels: float = 0.0
    widths: float = 0.0
    heights: float = 0.0


def static_shapes(device: torch.device) -> bool:
    """Whether shapes may not depend on data: on every device but the CPU, while compiling, and where asked for."""
    if torch.compiler.is_compiling() or device.type != "cpu":
        return True
    return os.environ.get("VISDET_ASSIGNERS_DEVICE_PATH") == "1"


def split(count: int, bytes_each: int, device: torch.device, least: int = 1) -> list[slice]:
    """Cut ``count`` rows or columns into blocks whose temporaries fit the budget, and on a CPU its cache.

    A compiler gets one block: it fuses the temporaries away itself.

    Args:
        count: in all; 0 gives no block.
        bytes_each: what the temporaries of one of them take.
        device: that the work is done on.
        least: blocks on a CPU have as many if the budget allows, whatever its cache.

    Returns:
        Slices of at least one each.

    Example:
        >>> from visdet_assigners.settings import using
        >>> with using(memory_budget=250):
        ...     split(5, bytes_each=100, device=torch.device("cpu"))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    if torch.compiler.is_compiling():
        return [slice(0, count)]
    step = memory_budget() // max(1, bytes_each)
    if not static_shapes(device):
        step = min(step, max(least, CACHE // max(1, bytes_each)))
    step = max(1, step)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def bucket(count: int) -> int:
    """The number of objects to pad to, so that shapes are few: the next power of two, at least 8.

    Example:
        >>> [bucket(count) for count in (1, 8, 9, 100)]
        [8, 8, 16, 128]
    """
    return max(8, 1 << (count - 1).bit_length())


def bounding_boxes(boxes: Tensor, blocks: list[slice]) -> Tensor:
    """The box around the boxes of each block: (N, ..., 4) xyxy -> (number of blocks, 4)."""
    around = [boxes[block].reshape(-1, 4) for block in blocks]
    return torch.stack([torch.cat([each[:, :2].amin(0), each[:, 2:].amax(0)]) for each in around])


def touching(bounds: Tensor, boxes: Tensor, reach: float | Reach = 0.0) -> Tensor:
    """Which boxes come within reach, in pixels or in their own sizes, of others; borders touch.

    Args:
        bounds: (B, 4) xyxy, the others.
        boxes: (M, 4) xyxy, ground truths.
        reach: pixels, or more in sizes of the ground truths.

    Returns:
        (B, M) bool.
    """
    x1, y1, x2, y2 = bounds[:, None].unbind(-1)
    pixels, widths, heights = reach if isinstance(reach, Reach) else (reach, 0.0, 0.0)
    across = pixels + widths * (boxes[:, 2] - boxes[:, 0])
    down = pixels + heights * (boxes[:, 3] - boxes[:, 1])
    near_x = (boxes[:, 0] <= x2 + across) & (boxes[:, 2] >= x1 - across)
    return near_x & (boxes[:, 1] <= y2 + down) & (boxes[:, 3] >= y1 - down)
