"""What an auxiliary head learned from: its positive boxes and their objects, read off while it computes its loss.

mmdet's heads keep their assignments to themselves.  For the time of one ``loss`` call the methods that decide are
shadowed on the head itself, so that any stock head serves as it is, its weights and its losses untouched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead, PAAHead, RTMDetHead, YOLOXHead
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from visdet_assigners.adapting.shadowing import listen

POINT_SIDE = 8
"""A point stands for a square of this many strides: FCOS in table 1 of the paper, w = h = 8 * 2^(2+j) on level j."""


@dataclass(frozen=True, eq=False)
class Positives:
    """The positives of one head in one image, P of them; P may be 0.  Nothing here carries a gradient.

    Attributes:
        boxes: (P, 4) xyxy, pixels: the positive anchors or proposals, the points' squares.
        labels: (P,) int64, class of the object.
        gt_index: (P,) int64, which object, from 0.
        gt_boxes: (P, 4) xyxy, pixels: the box of the object.
    """

    boxes: Tensor
    labels: Tensor
    gt_index: Tensor
    gt_boxes: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, chosen: Tensor) -> Positives:
        """Return the positives at ``chosen``, (P,) bool or an index."""
        return Positives(self.boxes[chosen], self.labels[chosen], self.gt_index[chosen], self.gt_boxes[chosen])


@dataclass
class Recording:
    """What a head's targets told, image by image; a head may go over the images several times, the last time counts."""

    head: nn.Module
    samples: Sequence[Any]
    images: list[Positives | None] = field(default_factory=list)
    heard: int = 0

    def objects(self, image: int) -> tuple[Tensor, Tensor]:
        """Boxes (M, 4) and labels (M,) of the ground truths of an image."""
        truths = self.samples[image].gt_instances
        return get_box_tensor(truths.bboxes), truths.labels

    def note(self, boxes: Tensor, gt_index: Tensor) -> None:
        """Note the positives (P, 4) of the next image, and which objects they belong to, (P,)."""
        gt_boxes, gt_labels = self.objects(len(self.images) % len(self.samples))
        gt_index = gt_index.long()
        self.images.append(Positives(boxes.detach(), gt_labels[gt_index], gt_index, gt_boxes[gt_index]))

    def end_targets(self, *_: Any, **__: Any) -> None:
        """Note, when the targets of an image are made, that nothing was said of it."""
        if len(self.images) == self.heard:
            self.images.append(None)
        self.heard = len(self.images)

    def positives(self) -> list[Positives]:
        """Return the positives of each image.

        Raises:
            TypeError: the head said nothing of an image that has objects.
        """
        batch = len(self.samples)
        if not self.images or len(self.images) % batch:
            _refuse(self.head, f"computed targets {len(self.images)} times for {batch} images")
        found = []
        for image, noted in enumerate(self.images[-batch:]):
            gt_boxes, gt_labels = self.objects(image)
            if noted is None and len(gt_boxes):
                _refuse(self.head, f"computed targets for image {image} without its sampler")
            # A head may skip an image without objects.
            found.append(noted or Positives(gt_boxes[:0], gt_labels[:0], gt_labels[:0].long(), gt_boxes[:0]))
        return found


@contextmanager
def record_positives(head: nn.Module, samples: Sequence[Any]) -> Iterator[Recording]:
    """Listen to a dense head inside the ``with`` block, in which its ``loss`` is called once.

    Works for every head that gives its assignment to a sampler (the anchor heads: RetinaNet, ATSS, GFL, VFNet, TOOD,
    DDOD, YOLOF, ...; YOLOX and RTMDet), for PAA, whose second choice counts, and for FCOS.

    Args:
        head: a dense head of mmdet, or one of its parts' subclasses.
        samples: the batch that the loss is computed for, with ``gt_instances``.

    Raises:
        TypeError: the head decides in a way of its own.
    """
    recording = Recording(head, samples)
    with ExitStack() as stack:
        for owner, name, hear in _listeners(head, recording):
            stack.enter_context(listen(owner, name, hear))
        yield recording


@contextmanager
def record_samples(
    sampler: Any, roi_head: nn.Module, samples: Sequence[Any], with_ground_truths: bool
) -> Iterator[Recording]:
    """Listen to the sampler of a RoI head inside the ``with`` block, in which it samples once for each image.

    Args:
        sampler: of proposals, which may add the ground truths to them.
        roi_head: whose it is.
        samples: the batch.
        with_ground_truths: whether the ground truths that it added are kept among the positives.
    """
    recording = Recording(roi_head, samples)
    with listen(sampler, "sample", functools.partial(_hear_roi_sampler, recording, with_ground_truths)):
        yield recording


# A listener: an object, the name of its method, and a function of the method's arguments and its result.
_Listener = tuple[Any, str, Callable[..., None]]


def _listeners(head: Any, recording: Recording) -> list[_Listener]:
    """Choose where a head tells what it decided."""
    if isinstance(head, PAAHead):
        return [(head, "paa_reassign", functools.partial(_hear_paa, recording))]
    if isinstance(head, FCOSHead) and type(head)._get_targets_single is FCOSHead._get_targets_single:
        return [(head, "_get_targets_single", functools.partial(_hear_fcos, recording))]
    if not hasattr(head, "sampler") or not hasattr(head, "_get_targets_single"):
        _refuse(head, "decides in a way of its own")
    as_boxes: Callable[[Tensor], Tensor]
    if isinstance(head, (YOLOXHead, RTMDetHead)):
        as_boxes = _point_squares
    elif any(hasattr(value, "base_anchors") for value in vars(head).values()):
        as_boxes = _as_they_are
    else:
        _refuse(head, "has priors that are neither anchors nor YOLOX's points")
    return [
        (head.sampler, "sample", functools.partial(_hear_sampler, recording, as_boxes)),
        (head, "_get_targets_single", recording.end_targets),
    ]


def _refuse(head: nn.Module, reason: str) -> Any:
    raise TypeError(
        f"{type(head).__name__} {reason}, so its positives are not known; use an anchor head with a sampler, YOLOX's, "
        "RTMDet's, PAA's or FCOS's head, or a branch of your own with a method loss(maps, samples)"
    )


def _as_they_are(priors: Tensor) -> Tensor:
    return priors


def _point_squares(points: Tensor) -> Tensor:
    """(P, 4) squares around points (P, 3 or more): x, y and stride."""
    half = points[:, 2:3] * (POINT_SIDE / 2)
    return torch.cat([points[:, :2] - half, points[:, :2] + half], dim=1)


def _hear_sampler(recording: Recording, as_boxes: Callable[[Tensor], Tensor], result: Any, *_: Any, **__: Any) -> None:
    recording.note(as_boxes(get_box_tensor(result.pos_priors)), result.pos_assigned_gt_inds)


def _hear_roi_sampler(recording: Recording, with_ground_truths: bool, result: Any, *_: Any, **__: Any) -> None:
    kept = slice(None) if with_ground_truths else ~result.pos_is_gt.bool()
    recording.note(get_box_tensor(result.pos_priors)[kept], result.pos_assigned_gt_inds[kept])


def _hear_paa(recording: Recording, result: Any, *args: Any, **kwargs: Any) -> None:
    """PAA's second choice: of the first positives ``pos_inds`` those whose label it left."""
    _, _, _, _, pos_inds, pos_gt_inds, anchors = args
    kept = result[0][pos_inds] < recording.head.num_classes
    recording.note(torch.cat(list(anchors))[pos_inds[kept]], pos_gt_inds[kept])


def _hear_fcos(
    recording: Recording, result: Any, gt_instances: Any, points: Tensor, num_points_per_lvl: Sequence[int], **_: Any
) -> None:
    """FCOS gives label and distances to the sides; the object is the one whose box they lead to."""
    labels, distances = result
    head: Any = recording.head
    positive = labels < head.num_classes
    gt_boxes, gt_labels = get_box_tensor(gt_instances.bboxes), gt_instances.labels
    gt_index = labels[positive]  # empty where there are no objects
    at = points[positive]
    if len(gt_boxes):
        reached = torch.cat([at - distances[positive, :2], at + distances[positive, 2:]], dim=1)  # (P, 4)
        other_class = gt_labels != labels[positive, None]  # (P, M)
        apart = (reached[:, None] - gt_boxes).abs().amax(dim=2).masked_fill(other_class, torch.inf)
        gt_index = apart.argmin(dim=1)
    strides = torch.cat([points.new_full((n, 1), s) for n, s in zip(num_points_per_lvl, head.strides)])
    recording.note(_point_squares(torch.cat([at, strides[positive]], dim=1)), gt_index)
