"""Geometry of masks."""

from __future__ import annotations

import torch
from torch import Tensor


def center_of_mass(masks: Tensor, eps: float = 1e-7) -> Tensor:
    """Mean position of the pixels of each mask.

    Args:
        masks: (M, H, W) of 0 and 1, or bool.
        eps: least number of pixels divided by.

    Returns:
        (M, 2) x and y in pixel indices; (0, 0) for an empty mask.

    Example:
        >>> center_of_mass(torch.tensor([[[0, 0, 0], [0, 1, 1]]]))
        tensor([[1.5000, 1.0000]])
    """
    # Sums along one axis first: nothing of the masks' size is made.
    by_column, by_row = masks.sum(dim=1), masks.sum(dim=2)  # (M, W), (M, H)
    pixels = by_row.sum(dim=1).float().clamp(min=eps)
    x = (by_column * torch.arange(masks.shape[2], device=masks.device)).sum(dim=1) / pixels
    y = (by_row * torch.arange(masks.shape[1], device=masks.device)).sum(dim=1) / pixels
    return torch.stack([x, y], dim=1)


def mask_boxes(masks: Tensor) -> Tensor:
    """Smallest box around each mask.

    Args:
        masks: (M, H, W) of 0 and 1, or bool; H and W at least 1.

    Returns:
        (M, 4) float32 xyxy, from the edge of the first pixel to that of the last; zeros for an empty mask.

    Example:
        >>> mask_boxes(torch.tensor([[[0, 0, 0], [0, 1, 1]]]))
        tensor([[1., 1., 3., 2.]])
    """
    edges = []
    for along in (masks.any(dim=1), masks.any(dim=2)):  # (M, W), (M, H)
        place = torch.arange(along.shape[1], device=masks.device)
        edges.append(torch.where(along, place, along.shape[1]).amin(dim=1))
        edges.append(torch.where(along, place + 1, 0).amax(dim=1))
    boxes = torch.stack([edges[0], edges[2], edges[1], edges[3]], dim=1).float()
    return torch.where(masks.flatten(1).any(dim=1, keepdim=True), boxes, 0.0)
