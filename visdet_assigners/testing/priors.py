"""Priors of scenes, equal to those of mmdet's generators, which need more than torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Size = tuple[int, int]
"""Height and width of a feature map."""


def cells(size: Size, stride: int) -> Tensor:
    """Corners of the cells of a feature map, row by row: (H * W, 2) x and y in pixels."""
    y, x = torch.meshgrid(*(torch.arange(count) * float(stride) for count in size), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def on_cells(base: Tensor, size: Size, stride: int) -> Tensor:
    """The same boxes in each cell: (A, 4) xyxy -> (H * W * A, 4)."""
    return (base + cells(size, stride).repeat(1, 2)[:, None]).view(-1, 4)


def anchor_levels(
    sizes: Sequence[Size], strides: Sequence[int], ratios: Sequence[float], scales: Sequence[float]
) -> list[Tensor]:
    """Anchors of each level, as ``AnchorGenerator`` makes them.

    Args:
        sizes: of the feature maps.
        strides: of the levels, pixels.
        ratios: height over width.
        scales: side of a square anchor, in strides.

    Returns:
        (H * W * A, 4) xyxy of each level; the A anchors of a cell are ordered by ratio, then by scale.
    """
    taller = torch.tensor(ratios).sqrt()[:, None]  # (R, 1)
    levels = []
    for size, stride in zip(sizes, strides):
        half = torch.stack([side.flatten() for side in torch.broadcast_tensors(
            stride * (1 / taller) * torch.tensor(scales), stride * taller * torch.tensor(scales)
        )], dim=1) * 0.5  # (A, 2), half the width and height  # fmt: skip
        levels.append(on_cells(torch.cat([-half, half], dim=1), size, stride))
    return levels


def yolo_levels(sizes: Sequence[Size], strides: Sequence[int], boxes: Sequence[Sequence[Size]]) -> list[Tensor]:
    """Anchors of given widths and heights around the centre of each cell, as ``YOLOAnchorGenerator`` makes them."""
    levels = []
    for size, stride, own in zip(sizes, strides, boxes):
        half = torch.tensor(own) * 0.5
        levels.append(on_cells(torch.cat([stride / 2 - half, stride / 2 + half], dim=1), size, stride))
    return levels


def point_levels(sizes: Sequence[Size], strides: Sequence[int]) -> list[Tensor]:
    """Points at the corners of cells, as ``MlvlPointGenerator`` makes them: (H * W, 4) x, y, and the stride twice."""
    corners = [cells(size, stride) for size, stride in zip(sizes, strides)]
    return [torch.cat([own, torch.full_like(own, stride)], dim=1) for own, stride in zip(corners, strides)]
