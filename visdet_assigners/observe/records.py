"""What one call of an assigner decided, as a record that outlives the training step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assignment import IGNORED, NEGATIVE
from visdet_assigners.observe.outlines import around, corners_of, sides

# Fields of `pred_instances` that follow from the image size and the ground truths alone.
_FIXED_FIELDS = {"priors", "approxs", "valid_flags", "responsible_flags"}


@dataclass(frozen=True)
class ImageInfo:
    """Which image of the data set an assignment belongs to.

    Attributes:
        index: of the image within its batch; of a frame, among the frames of all videos.
        img_id: as the data set numbers it, None where it doesn't.
        img_path: its file, None where the data sample doesn't say.
        shape: height and width in pixels as the model got it, without padding; None where the data sample doesn't say.
    """

    index: int
    img_id: Any = None
    img_path: str | None = None
    shape: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class AssignmentCall:
    """One call of one assigner for one image, with the objects themselves: look, but change nothing.

    Attributes:
        module: name of the module that holds the assigner, as in ``model.named_modules()``; '' is the model itself.
        attribute: where the module holds it: ``assigner``, or ``bbox_assigner[1]`` in a list.
        assigner: the assigner.
        number: how many images it was asked for before, within one tap.
        repeat: how often it was asked for this image before, in this training step: the decoder layer of DETR's line.
        image: which image it was, None where no data sample told.
        arguments: what it was given, by the names of its own parameters; of a batch, this image's.
        result: what it returned; of a batch, this image's.
    """

    module: str
    attribute: str
    assigner: Any
    number: int
    repeat: int
    image: ImageInfo | None
    arguments: Mapping[str, Any]
    result: Any

    @property
    def where(self) -> str:
        """Module and attribute in one name, such as ``rpn_head.assigner``."""
        return place_of(self.module, self.attribute)


@dataclass(frozen=True, eq=False)
class AssignmentRecord:
    """One call of one assigner for one image.  All tensors are detached copies; what a call does not have is None.

    Attributes:
        module: name of the module that holds the assigner, as in ``model.named_modules()``; '' is the model itself.
        attribute: where the module holds it: ``assigner``, or ``bbox_assigner[1]`` in a list.
        assigner: class name of the assigner.
        call: how many images this assigner was asked for before, within one tap.
        gt_index: (N,) int64, index of the matched ground truth, from 0; ``NEGATIVE`` or ``IGNORED``.  Where a prior
            stands for several objects, as in CrowdDet, (N, I) for its I instances.
        gt_boxes: (M, 4) xyxy, pixels.
        gt_labels: (M,) int64, as the assigner saw them (a region proposal network sees one class).
        ignored_boxes: (R, 4) xyxy, ignore regions.
        priors: (N, 4) anchors or proposals in xyxy, or (N, 3) or (N, 4) points with their strides.
        pred_boxes: (N, 4) xyxy, boxes predicted at the time of the call.
        quality: like ``gt_index``: IoU of the match, or whatever the assigner gives as ``max_overlaps``.
        level_sizes: priors in each level, where the head passes them.
        reads_predictions: whether the assigner was given anything predicted, be it scores or boxes.
        repeat: how often the assigner was asked for this image before, in this training step: the decoder layer, and
            after those, in DINO, the encoder.
        image: which image it was, None where no data sample told.
        corners: (..., 4, 2) of ``gt_boxes``, ``ignored_boxes``, ``priors`` and ``pred_boxes`` that aren't upright, as
            rotated ones, by these names; the fields themselves then hold the upright boxes around them.
    """

    module: str
    attribute: str
    assigner: str
    call: int
    gt_index: Tensor
    gt_boxes: Tensor | None = None
    gt_labels: Tensor | None = None
    ignored_boxes: Tensor | None = None
    priors: Tensor | None = None
    pred_boxes: Tensor | None = None
    quality: Tensor | None = None
    level_sizes: tuple[int, ...] | None = None
    reads_predictions: bool = False
    repeat: int = 0
    image: ImageInfo | None = None
    corners: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Module and attribute in one name, such as ``rpn_head.assigner``."""
        return place_of(self.module, self.attribute)

    @property
    def gt_sizes(self) -> Tensor:
        """Width and height of each ground truth, of a rotated one its own: (M, 2); none where boxes aren't known."""
        if "gt_boxes" in self.corners:
            return sides(self.corners["gt_boxes"])
        return torch.zeros(0, 2) if self.gt_boxes is None else self.gt_boxes[:, 2:4] - self.gt_boxes[:, :2]

    @property
    def num_objects(self) -> int:
        """Number of ground truths M."""
        for per_object in (self.gt_boxes, self.gt_labels):
            if per_object is not None:
                return len(per_object)
        return int(self.gt_index.max().clamp(min=-1)) + 1 if self.gt_index.numel() else 0

    def with_labels(self, labels: Tensor) -> AssignmentRecord:
        """The record with the (M,) classes of its image where the assigner saw only one, as a proposal network's."""
        sees_one = self.gt_labels is None or not self.gt_labels.any()
        return replace(self, gt_labels=labels) if sees_one and len(labels) == self.num_objects else self

    def positives_per_object(self) -> Tensor:
        """(M,) int64, how many priors or queries each ground truth got; doesn't synchronise with the device."""
        counts = self.gt_index.new_zeros(self.num_objects)
        if not len(counts):
            return counts
        index = self.gt_index.flatten()
        return counts.scatter_add_(0, index.clamp(min=0), (index >= 0).long())


def place_of(module: str, attribute: str) -> str:
    """Module and attribute of an assigner in one name, such as ``rpn_head.assigner``."""
    return f"{module}.{attribute}".lstrip(".")


def as_record(call: AssignmentCall) -> AssignmentRecord:
    """Copy one call.  Samplers and heads write into the result afterwards, so nothing may be shared."""
    arguments, result = call.arguments, call.result
    predicted = arguments.get("pred_instances")
    truths = arguments.get("gt_instances")
    given = set(_names(predicted)) if predicted is not None else {"decode_bboxes"}
    given_boxes = {
        "gt_boxes": _field(truths, "bboxes", arguments.get("gt_bboxes")),
        "ignored_boxes": _field(arguments.get("gt_instances_ignore"), "bboxes"),
        "priors": _field(predicted, "priors"),
        "pred_boxes": _field(predicted, "bboxes", arguments.get("decode_bboxes")),
    }
    columns = getattr(given_boxes["gt_boxes"], "shape", (0,))[-1]
    found = {name: corners_of(boxes, None if name == "gt_boxes" else columns) for name, boxes in given_boxes.items()}
    corners = {name: own for name, own in found.items() if own is not None}
    boxes_of = {name: around(corners[name]) if name in corners else _copy(own) for name, own in given_boxes.items()}
    gt_boxes, ignored_boxes, priors, pred_boxes = boxes_of.values()
    gt_inds = result.gt_inds.detach()
    if gt_inds.ndim == 1:
        gt_index = torch.where(gt_inds > 0, gt_inds - 1, torch.where(gt_inds < 0, IGNORED, NEGATIVE)).long()
    else:  # MultiInstanceAssigner: counted from 0, with flags in `labels`; the boxes themselves follow the priors
        flags = result.labels.detach()
        # Ignore regions are counted behind the objects; with a class, as COCO's have it, they are taken for objects.
        own = torch.where(gt_inds < (0 if gt_boxes is None else len(gt_boxes)), gt_inds, IGNORED)
        gt_index = torch.where(flags > 0, own, torch.where(flags < 0, IGNORED, NEGATIVE)).long()
        boxes = [boxes[:, :4] for boxes in (priors, gt_boxes, ignored_boxes) if boxes is not None]
        priors = torch.cat(boxes) if sum(map(len, boxes)) == len(gt_index) else None
    quality = getattr(result, "max_overlaps", None)
    level_sizes = arguments.get("num_level_priors", arguments.get("num_level_anchors"))
    return AssignmentRecord(
        module=call.module,
        attribute=call.attribute,
        assigner=type(call.assigner).__name__,
        call=call.number,
        gt_index=gt_index,
        gt_boxes=gt_boxes,
        gt_labels=_copy(_field(truths, "labels", arguments.get("gt_labels"))),
        ignored_boxes=ignored_boxes,
        priors=priors,
        pred_boxes=pred_boxes,
        quality=_copy(quality) if quality is not None and quality.shape == gt_index.shape else None,
        level_sizes=None if level_sizes is None else tuple(int(size) for size in level_sizes),
        reads_predictions=not given <= _FIXED_FIELDS,
        repeat=call.repeat,
        image=call.image,
        corners=corners,
    )


def _names(instances: Any) -> Iterable[str]:
    return instances.keys() if hasattr(instances, "keys") else vars(instances)


def _field(instances: Any, name: str, otherwise: Any = None) -> Any:
    return otherwise if instances is None else getattr(instances, name, None)


def _copy(values: Any) -> Tensor | None:
    """Detached copy of a tensor or of mmdet's ``BaseBoxes`` around one."""
    return None if values is None else getattr(values, "tensor", values).detach().clone()


@dataclass(frozen=True, eq=False)
class MaskRecord(AssignmentRecord):
    """A record of queries with the masks that they predict; its boxes are those around the masks.

    Attributes:
        pred_masks: (N, h, w) bool, what the queries predict, of the image in any resolution.
        gt_masks: (M, H, W) bool, the objects, in the image's own.
    """

    pred_masks: Tensor = field(kw_only=True)
    gt_masks: Tensor = field(kw_only=True)
