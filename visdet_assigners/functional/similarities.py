"""Similarities of boxes that lie apart: what may take the place of the IoU where objects have few pixels.

A box is seen as a Gaussian around its centre, or as a place and a shape.  All are 1 for equal boxes and fall with the
distance, but never reach 0.  So each has a ``floor``: what isn't above it counts as 0, and boxes beyond a certain reach
needn't be compared.  A box of no area is similar to nothing.

Every pairwise result is (A, B), every other one (A,).  An entry doesn't depend on what else is in the call, to the last
bit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from visdet_assigners.functional.blocks import Reach
from visdet_assigners.functional.boxes import box_area, box_center
from visdet_assigners.functional.tensors import evenly
from visdet_assigners.functional.validity import NOWHERE

LEAST_SIDE = 1e-6
"""Pixels that a side counts at least, so that nothing is divided by 0."""


class Shapes(NamedTuple):
    """Centres and sides of boxes, (...) each."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor


def shapes_of(boxes1: Tensor, boxes2: Tensor, aligned: bool) -> tuple[Shapes, Shapes]:
    """Centres and sides of two sets of boxes, laid out so that they broadcast to the result.

    Args:
        boxes1: (..., A, 4) xyxy; A may be 0.
        boxes2: (..., B, 4) xyxy, with the same leading dimensions; B may be 0.
        aligned: row i belongs to row i.

    Returns:
        Two `Shapes`; the centres of boxes of no area are so far away from everything that squares are infinite.

    Raises:
        ValueError: ``aligned`` with A != B.
    """
    if aligned and boxes1.shape[:-1] != boxes2.shape[:-1]:
        counts = f"{boxes1.shape[-2]} and {boxes2.shape[-2]}"
        raise ValueError(f"aligned similarities need as many boxes on both sides, got {counts}")
    found = []
    for boxes, nowhere, axis in ((boxes1, NOWHERE, -1), (boxes2, -NOWHERE, -2)):
        boxes = boxes.double() if boxes.dtype == torch.float64 else boxes.float()
        x, y = box_center(boxes)
        width, height = ((boxes[..., i + 2] - boxes[..., i]).clamp(min=LEAST_SIDE) for i in (0, 1))
        x = x.where((box_area(boxes) > 0) & (boxes[..., 2] > boxes[..., 0]), nowhere)
        found.append(Shapes(*(side if aligned else side.unsqueeze(axis) for side in (x, y, width, height))))
    return found[0], found[1]


def squared(difference: Tensor) -> Tensor:
    """The square, in place: of a matrix that the caller has just made."""
    return difference.mul_(difference)


def above(similarity: Tensor, floor: float) -> Tensor:
    """What is above the floor, 0 in place of the rest; in place."""
    return F.threshold(similarity, floor, 0.0, inplace=True)


def nwd(boxes1: Tensor, boxes2: Tensor, constant: float = 12.8, floor: float = 0.0, aligned: bool = False) -> Tensor:
    """Normalised Gaussian Wasserstein distance, as a similarity (Wang et al., arXiv:2110.13389, section 3.2).

    exp(-W / C), where W^2 = dx^2 + dy^2 + (dw^2 + dh^2) / 4 with the differences of centres and of sides.  Symmetric.

    Args:
        boxes1: (..., A, 4) xyxy, pixels; A may be 0.
        boxes2: (..., B, 4) xyxy, alike; B may be 0.
        constant: C in pixels, above 0: the mean size of the objects, as the root of their area.
        floor: a similarity that isn't above it is 0.
        aligned: compare row i with row i.

    Returns:
        (..., A, B), or (..., A) when ``aligned``, 0 to 1.

    Example:
        >>> a = torch.tensor([[0., 0., 8., 8.]])
        >>> b = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [0., 0., 16., 16.]])
        >>> nwd(a, b, constant=8.0)
        tensor([[1.0000, 0.3679, 0.3679]])
    """
    first, second = shapes_of(boxes1, boxes2, aligned)
    square = squared(first.x - second.x).add_(squared(first.y - second.y))
    for one, other in ((first.width, second.width), (first.height, second.height)):
        square.add_(squared(one / 2 - other / 2))
    return above(evenly(torch.exp, square.sqrt_().div_(-constant)), floor)


def nwd_reach(constant: float, floor: float) -> Reach | None:
    """Beyond which `nwd` is 0; None without a floor."""
    return Reach(pixels=constant * math.log(1 / floor)) if floor > 0 else None


def kld(boxes1: Tensor, boxes2: Tensor, floor: float = 0.0, aligned: bool = False) -> Tensor:
    """Kullback-Leibler divergence of two Gaussians, as a similarity (Xu et al., RFLA, arXiv:2208.08738, section 3.2).

    1 / (1 + KL) with 2 KL = (w2^2 + 4 dx^2) / w1^2 + (h2^2 + 4 dy^2) / h1^2 + ln(w1^2 / w2^2) + ln(h1^2 / h2^2) - 2.
    Not symmetric: 1 is the ground truth, in whose sizes distances count, and 2 the prior.

    Args:
        boxes1: (..., A, 4) xyxy, ground truths; A may be 0.
        boxes2: (..., B, 4) xyxy, priors; B may be 0.
        floor: a similarity that isn't above it is 0.
        aligned: compare row i with row i.

    Returns:
        (..., A, B), or (..., A) when ``aligned``, 0 to 1.

    Example:
        >>> a = torch.tensor([[0., 0., 8., 8.]])
        >>> b = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.]])
        >>> kld(a, b)
        tensor([[1.0000, 0.3333]])
    """
    first, second = shapes_of(boxes1, boxes2, aligned)
    divergence = squared(2 * first.x - 2 * second.x).add_(second.width.square()).div_(first.width.square())
    divergence += squared(2 * first.y - 2 * second.y).add_(second.height.square()).div_(first.height.square())
    logs = [evenly(torch.log, each.width) + evenly(torch.log, each.height) for each in (first, second)]
    divergence.div_(2).add_(logs[0]).sub_(logs[1]).sub_(1).clamp_(min=0)
    return above(divergence.add_(1).reciprocal_(), floor)


def kld_reach(floor: float) -> Reach | None:
    """Beyond which `kld` is 0; None without a floor.  KL is at least 2 (dx / w1)^2 + 2 (dy / h1)^2."""
    if floor <= 0:
        return None
    sizes = math.sqrt((1 / floor - 1) / 2)
    return Reach(widths=sizes, heights=sizes)


def sim_d(boxes1: Tensor, boxes2: Tensor, m: float, n: float, floor: float = 0.0, aligned: bool = False) -> Tensor:
    """Similarity distance of place and shape (Shi et al., SimD, arXiv:2407.02394, section III).

    exp(-(a + b)), where a^2 = (m dx / (w1 + w2))^2 + (n dy / (h1 + h2))^2, and b is the same of the differences of the
    widths and heights.  Symmetric.

    Args:
        boxes1: (..., A, 4) xyxy; A may be 0.
        boxes2: (..., B, 4) xyxy; B may be 0.
        m: weight of what lies across, above 0: the mean of dx / (w1 + w2) over all pairs of an object and a prior of
            its image, see `mean_gaps`; 6.13 in VisDrone.
        n: weight of what lies down, likewise; 4.59 in VisDrone.
        floor: a similarity that isn't above it is 0.
        aligned: compare row i with row i.

    Returns:
        (..., A, B), or (..., A) when ``aligned``, 0 to 1.

    Example:
        >>> a = torch.tensor([[0., 0., 8., 8.]])
        >>> b = torch.tensor([[0., 0., 8., 8.], [4., 0., 12., 8.]])
        >>> sim_d(a, b, m=4.0, n=4.0)
        tensor([[1.0000, 0.3679]])
    """
    first, second = shapes_of(boxes1, boxes2, aligned)
    width, height = first.width / m + second.width / m, first.height / n + second.height / n
    place = squared((first.x - second.x).div_(width)).add_(squared((first.y - second.y).div_(height)))
    shape = squared((first.width - second.width).div_(width))
    shape.add_(squared((first.height - second.height).div_(height)))
    return above(evenly(torch.exp, place.sqrt_().add_(shape.sqrt_()).neg_()), floor)


def sim_d_reach(m: float, n: float, floor: float) -> Reach | None:
    """Beyond which `sim_d` is 0; None where that isn't known.

    With q = ln(1 / floor) / m, dx + |w1 - w2| is at most q (w1 + w2), and so the gap dx - (w1 + w2) / 2 at most
    (2 q - 1) w1 as long as q < 1.5; above, a wide prior may be far away.
    """
    if floor <= 0:
        return None
    across, down = (math.log(1 / floor) / weight for weight in (m, n))
    return None if max(across, down) >= 1.5 else Reach(widths=max(0.0, 2 * across - 1), heights=max(0.0, 2 * down - 1))


def mean_gaps(priors: Tensor, gts: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of |dx| / (w1 + w2) and of |dy| / (h1 + h2) over all pairs: (N, 4), (M, 4) xyxy -> two () float64.

    Divided by the number of pairs of a data set, they are SimD's m and n.  Works through the ground truths one at a
    time: it is for a command, not for training.
    """
    across = down = priors.new_zeros((), dtype=torch.float64)
    for gt in gts:
        first, second = shapes_of(gt[None], priors, aligned=False)
        across = across + ((first.x - second.x).abs() / (first.width + second.width)).sum(dtype=torch.float64)
        down = down + ((first.y - second.y).abs() / (first.height + second.height)).sum(dtype=torch.float64)
    return across, down
