"""Boxes, priors, predictions and objects as hypothesis draws them for a small scene.

Drawn are above all sizes at which something changes (none, one, around k), and boxes that meet: on a grid, sharing
edges, twice the same, of no area, tiny, outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from visdet_assigners.testing.scenes import generator

NUM_CLASSES = 3
Draw = Callable[[st.SearchStrategy[Any]], Any]
BOX_KINDS = (
    *("ordinary", "ordinary", "ordinary", "like anchors", "like anchors", "grid", "grid", "beside", "copy"),
    *("flat", "tiny", "whole", "partly", "out", "far"),
)


def draw_box(draw: Draw, earlier: list[list[float]], image: tuple[int, int]) -> list[float]:
    """One box x1, y1, x2, y2 with x1 <= x2 and y1 <= y2, in pixels."""
    kind = draw(st.sampled_from(BOX_KINDS))
    if kind == "whole":
        return [0.0, 0.0, float(image[1]), float(image[0])]
    if kind == "copy" and earlier:
        return draw(st.sampled_from(earlier))
    x, y, width, height = (draw(st.integers(0, 23)) for _ in range(4))
    if kind == "beside" and earlier:
        left, top, right, bottom = earlier[-1]
        return [right, top, right + width, bottom] if x % 2 else [left, bottom, right, bottom + height]
    if kind in ("ordinary", "like anchors"):  # thirds and sevenths of a pixel are no floats
        center_x, center_y = x * image[1] / 21, y * image[0] / 21
        half_x, half_y = (width + 2) * 6 / 7, (height + 2) * 6 / 7
        if kind == "like anchors":
            size = 4 * 2 ** (width % 4)
            half_x, half_y = size * (1 + height % 3 / 9), size * (1 - height % 5 / 9)
        return [center_x - half_x, center_y - half_y, center_x + half_x, center_y + half_y]
    if kind == "flat":
        width, height = (0, height) if x % 3 == 0 else (width, 0) if x % 3 == 1 else (0, 0)
        return [x * 4.0, y * 4.0, x * 4.0 + width, y * 4.0 + height]
    if kind == "tiny":
        return [x * 2.5, y * 2.5, x * 2.5 + (width + 1) / 64, y * 2.5 + (height + 1) / 64]
    if kind == "partly":
        return [x - 20.0, y - 20.0, x - 20.0 + 2 * width + 1, y - 20.0 + 2 * height + 1]
    offset = {"out": 2000.0, "far": 1e6}.get(kind, 0.0)
    return [offset + 4 * x, offset + 4 * y, offset + 4 * (x + width + 1), offset + 4 * (y + height + 1)]


@st.composite
def boxes(draw: Draw, image: tuple[int, int], most: int = 9, least: int = 0) -> Tensor:
    """Boxes (M, 4) of every kind."""
    count = draw(st.sampled_from([size for size in (0, 1, 1, 2, 2, 3, 4, 6, 9, 14) if least <= size <= most]))
    made: list[list[float]] = []
    for _ in range(count):
        made.append(draw_box(draw, made, image))
    return torch.tensor(made).view(-1, 4)


@st.composite
def ground_truths(draw: Draw, image: tuple[int, int], most: int = 9) -> dict[str, Tensor]:
    """Boxes and labels; labels mostly int64."""
    gts = draw(boxes(image, most))
    labels = torch.tensor(draw(st.lists(st.integers(0, NUM_CLASSES - 1), min_size=len(gts), max_size=len(gts))))
    return {"bboxes": gts, "labels": labels.to(draw(st.sampled_from([torch.int64] * 8 + [torch.int32])))}


def drawn_sizes(around: int) -> st.SearchStrategy[int | None]:
    """How many to keep, all if None: none, one, and as many as something turns on."""
    few = [0, 1, 2, max(0, around - 1), around, around + 1, 7, 16, 33]
    return st.sampled_from([*[None] * 3 * len(few), *few])


@dataclass(frozen=True)
class Priors:
    """Priors of several levels: boxes (N, 4), points (N, 4) x, y and stride twice, and what describes the levels."""

    boxes: Tensor
    points: Tensor
    sizes: list[int]
    featmap_sizes: list[tuple[int, int]]
    strides: list[int]
    scale: int


@st.composite
def priors(draw: Draw, image: tuple[int, int], around: int, ratios: bool = True, cut: bool = True) -> Priors:
    """Anchors on a grid, sometimes off it, piled up, of no area, or only some of them."""
    strides = draw(st.sampled_from([[8, 16, 32], [8, 16], [8], [8, 32], [16, 32], [16]]))
    scale = draw(st.sampled_from([1, 2, 4]))
    shapes = draw(st.sampled_from([[1.0], [1.0], [0.5, 1.0, 2.0]])) if ratios else [1.0]
    found, points, sizes, featmap_sizes = [], [], [], []
    for stride in strides:
        height, width = -(-image[0] // stride), -(-image[1] // stride)
        y, x = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing="ij")
        center = torch.stack([x, y], dim=-1).float().view(-1, 1, 2)
        half = torch.tensor(
            [[(scale * stride / 2) * ratio**0.5, (scale * stride / 2) / ratio**0.5] for ratio in shapes]
        )
        found.append(torch.cat([center - half, center + half], dim=-1).view(-1, 4))
        points.append(torch.cat([center[:, 0] + stride / 2, center.new_full((len(center), 2), stride)], dim=1))
        sizes.append(len(found[-1]))
        featmap_sizes.append((height, width))
    anchors, grid = torch.cat(found), torch.cat(points)
    kind = draw(st.sampled_from(["grid", "grid", "off", "off", "piled", "flat"]))
    if kind == "off":
        g = generator(draw(st.integers(0, 999)))
        anchors = anchors + torch.rand(anchors.shape, generator=g) * 3 * torch.tensor([-1, -1, 1, 1])
        grid[:, :2] += torch.rand(len(grid), 2, generator=g)
    elif kind == "piled":
        anchors, grid = anchors[: len(anchors) // 2 * 2].clone(), grid.clone()
        anchors = torch.cat([anchors[::2].repeat_interleave(2, dim=0), torch.cat(found)[len(anchors) :]])
        grid[1 : len(grid) // 2 * 2 : 2, :2] = grid[0 : len(grid) // 2 * 2 : 2, :2]
    elif kind == "flat":
        anchors[::5, 2] = anchors[::5, 0]
    kept = draw(drawn_sizes(around)) if cut else None
    if kept is not None and kept < len(anchors):
        anchors, left = anchors[:kept], kept
        for level, size in enumerate(sizes):
            sizes[level] = min(size, left)
            left -= sizes[level]
        grid = grid[:kept]
    return Priors(anchors, grid, sizes, featmap_sizes, strides, scale)


@st.composite
def predicted(draw: Draw, own: Tensor, gts: Tensor) -> Tensor:
    """Boxes (N, 4) predicted from priors (N, 4): as they are, near the objects, on a grid, some of no area."""
    g, kind = generator(draw(st.integers(0, 999))), draw(st.sampled_from(["near", "near", "priors", "grid", "flat"]))
    if kind == "priors" or not len(own):
        return own.clone()
    found = own + 2 * torch.randn(own.shape, generator=g)
    if len(gts):
        chosen = gts[torch.randint(len(gts), (len(own),), generator=g)]
        noisy = chosen + draw(st.sampled_from([0.0, 0.5, 3.0])) * torch.randn(own.shape, generator=g)
        found = torch.where(torch.rand(len(own), 1, generator=g) < 0.6, noisy, found)
    if kind == "grid":
        found = (found / 4).round() * 4
    low, high = torch.minimum(found[:, :2], found[:, 2:]), torch.maximum(found[:, :2], found[:, 2:])
    if kind == "flat":
        high[::3] = low[::3]
    return torch.cat([low, high], dim=1)


@st.composite
def logits(draw: Draw, count: int) -> Tensor:
    """Class logits (N, C), sometimes many equal, sometimes very sure."""
    values = 2 * torch.randn(count, NUM_CLASSES, generator=generator(draw(st.integers(0, 999)))) - 1
    kind = draw(st.sampled_from(["", "", "equal", "rounded", "sure"]))
    if kind == "equal":
        return torch.full_like(values, -1.0)
    return values.round() if kind == "rounded" else values * 40 if kind == "sure" else values


IMAGES = st.sampled_from([(64, 64), (64, 64), (48, 80), (96, 33), (30, 40), (16, 16), (7, 50)])


@st.composite
def regions(draw: Draw, image: tuple[int, int]) -> dict[str, Tensor] | None:
    """Ignore regions, or none of them."""
    return {"bboxes": draw(boxes(image, 2))} if draw(st.booleans()) else None


def from_afar(draw: Draw, *fields: Tensor) -> tuple[Tensor, ...]:
    """Boxes (N, 4) sometimes moved to where float32 tells quarters of a pixel, as in maps; all fields alike."""
    if draw(st.integers(0, 7)):
        return fields
    offset = torch.tensor(draw(st.sampled_from([(1, 1, 1, 1), (1, 0, 1, 0), (0, -1, 0, -1)]))) * 2.0**21
    return tuple(field + offset for field in fields)
