"""Rotated boxes without mmrotate: a class of boxes, a calculator, and scenes; and mmrotate itself where it is there."""

from functools import cache
from importlib.util import find_spec

import pytest
import torch
from mmcv.ops import box_iou_rotated
from mmdet.structures.bbox import BaseBoxes
from mmengine.structures import InstanceData

from visdet_assigners.functional.boxes import xyxy_to_cxcywh
from visdet_assigners.testing.scenes import Objects, anchors, generator, logits, points, predicted_boxes

needs_mmrotate = pytest.mark.skipif(
    find_spec("mmrotate") is None,
    reason="NO MMROTATE: pip install --no-deps --no-build-isolation onedl-mmrotate==1.2.1 faster-coco-eval",
)


class TurnedBoxes(BaseBoxes):
    """Boxes (centre x and y, width, height, angle), which know what assigners ask for and nothing else."""

    box_dim = 5

    @property
    def centers(self):
        return self.tensor[..., :2]

    @property
    def areas(self):
        return self.tensor[..., 2] * self.tensor[..., 3]

    def find_inside_points(self, points, is_aligned=False):
        boxes = self.tensor if is_aligned else self.tensor[None]
        x, y = ((points if is_aligned else points[:, None]) - boxes[..., :2]).unbind(-1)
        _, _, width, height, angle = boxes.unbind(-1)
        along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        return (along.abs() < width / 2 - 0.01) & (across.abs() < height / 2 - 0.01)


TurnedBoxes.__abstractmethods__ = frozenset()


class TurnedOverlaps:
    """Overlaps of turned boxes, which it takes in their class alone."""

    def __call__(self, bboxes1, bboxes2, mode="iou", is_aligned=False):
        assert isinstance(bboxes1, TurnedBoxes)
        assert isinstance(bboxes2, TurnedBoxes)
        return box_iou_rotated(bboxes1.tensor, bboxes2.tensor, mode, is_aligned)


class RowOverlaps:
    """The same of rows, in tensors or any class."""

    def __call__(self, bboxes1, bboxes2, mode="iou", is_aligned=False):
        first, second = (getattr(boxes, "tensor", boxes) for boxes in (bboxes1, bboxes2))
        return box_iou_rotated(first, second, mode, is_aligned)


def rows_of(boxes: torch.Tensor, seed: int | None = 0) -> torch.Tensor:
    """Boxes (N, 4) xyxy turned by an angle each, or by none: (N, 5)."""
    angle = torch.zeros(len(boxes), 1)
    if seed is not None:
        angle = (torch.rand(len(boxes), 1, generator=generator(seed)) - 0.5) * torch.pi
    return torch.cat([xyxy_to_cxcywh(boxes), angle], dim=1)


def turned(boxes: torch.Tensor, seed: int | None = 0) -> TurnedBoxes:
    """The same in their class."""
    return TurnedBoxes(rows_of(boxes, seed))


def truths(objects: Objects, seed: int | None = 0) -> InstanceData:
    """The ground truths of a scene, turned."""
    return InstanceData(bboxes=turned(objects.boxes, seed), labels=objects.labels)


def anchored(objects: Objects, seed: int | None = 1) -> tuple[InstanceData, list[int]]:
    """Turned anchors with turned predictions and class probabilities, and the sizes of the levels."""
    priors, sizes = anchors(objects)
    boxes = turned(predicted_boxes(priors, objects, seed=1), 0)
    scores = logits(len(priors), objects, seed=2).sigmoid()
    return InstanceData(priors=turned(priors, seed), bboxes=boxes, scores=scores), sizes


def pointed(objects: Objects) -> InstanceData:
    """Points with turned predictions, as rows, and class logits."""
    priors = points(objects)
    reach = 2 * priors[:, 2:]
    boxes = torch.cat([priors[:, :2] - reach, priors[:, :2] + reach], dim=1)
    rows = rows_of(predicted_boxes(boxes, objects, seed=1), 0)
    return InstanceData(priors=priors, bboxes=rows, scores=logits(len(priors), objects, seed=2))


@cache
def mmrotate():
    """The package with its models loaded."""
    from visdet_assigners.testing.packages import load_package

    return load_package("mmrotate")
