"""What all assigners share: reading instances, checking them, ignore regions, half precision."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, NoReturn, TypeVar, get_args

import torch
from torch import Tensor

from visdet_assigners.assigners.compiling import Result, compiled
from visdet_assigners.assignment import AssignResult
from visdet_assigners.functional.blocks import static_shapes
from visdet_assigners.functional.inputs import (
    AWAY,
    COLUMNS,
    Call,
    Fault,
    Handling,
    Kind,
    Policy,
    count_replaced,
    current_call,
    fault_in,
    good_boxes,
    good_rows,
    image_size,
    label_fault,
    on_nonfinite,
    suspicious,
    suspicious_labels,
    taken_out,
    tell_once,
    without_rows,
)
from visdet_assigners.functional.tensors import as_float32, as_tensor
from visdet_assigners.iou_calculators import BboxOverlaps2D, IoUCalculator
from visdet_assigners.registry import adopt, build

Method = TypeVar("Method", bound=Callable[..., Any])


def levels_by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Bring the arguments of an ``assign`` in one order: level sizes in the second place become ``num_level_priors``.

    mmdet's heads that were written for ATSS pass them there, between the predictions and the ground truths; the others
    pass none.  A list of numbers is told from instances by its type.
    """
    if len(args) > 1 and isinstance(args[1], (list, tuple)) and all(isinstance(size, Integral) for size in args[1]):
        return (args[0], *args[2:]), {**kwargs, "num_level_priors": args[1]}
    return tuple(args), dict(kwargs)


def in_either_order(assign: Method) -> Method:
    """Decorate an ``assign`` with ``num_level_priors`` by keyword, so that it takes them second, too."""

    @functools.wraps(assign)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = levels_by_name(args, kwargs)
        return assign(self, *args, **kwargs)

    return method  # type: ignore[return-value]


class BaseAssigner(ABC):
    """An assigner marks each prior of an image as positive for one ground truth, as negative, or as ignored.

    Subclasses read the fields they need with the methods below, call a pure function, and convert its ``Assignment``.
    Errors are raised for mistakes of the caller and name the assigner, the field and, where it is known, the image.
    Values are checked on CPU and under ``on_nonfinite='raise'``: on a device a check waits for it.

    Args:
        memory_budget: bytes that the temporaries of one block may take; the package's budget if None, see
            ``functional.blocks``.
        compile: whether ``torch.compile`` compiles the assignment, which needs a compiler and half a minute at the
            first call; without one it says so once and goes on uncompiled.  One graph serves any number of ground
            truths, in one block: the budget doesn't bound it.  Without effect where the work is done on the host or
            the result has no fixed size: the Hungarian ones, CenterRegion, MultiInstance.
        deterministic: whether ties are ordered by index, the same on every device, at every block size and for any
            number of threads; as the package is set if None, see ``functional.ties``.  Costs a second search for the
            nearest or cheapest priors; without it ties come out as in mmdet.
        on_nonfinite: what becomes of NaN, infinite numbers and boxes that are none.  'raise' names the field, the place
            and the image; on a device that is one wait for it a call.  'replace' goes on: they are never matched, and
            nothing else changes.  As the package is set if None, see ``functional.inputs``.

    Every assigner takes these as keywords.

    Raises:
        ValueError: ``memory_budget`` isn't positive, or ``on_nonfinite`` is neither.
    """

    matches_on_host = False
    """Whether what is not finite shows on the host anyway, so that raising is the default on a device, too."""
    told_of_memory = False
    """Whether this assigner has warned that a device ran out of memory."""

    def __init__(
        self,
        memory_budget: int | None = None,
        compile: bool = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        if memory_budget is not None and memory_budget < 1:
            self.fail(f"memory_budget is {memory_budget}; give a positive number of bytes")
        self.memory_budget = memory_budget
        self.compile = compile
        self.deterministic = deterministic
        if on_nonfinite is not None and on_nonfinite not in get_args(Policy):
            self.fail(f"on_nonfinite is {on_nonfinite!r}; choose 'raise' or 'replace'")
        self.on_nonfinite = on_nonfinite

    def __new__(cls, *args: Any, **kwargs: Any) -> BaseAssigner:  # noqa: D102
        adopt(cls)
        return super().__new__(cls)

    @abstractmethod
    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Assign the priors of one image; the arguments are mmdet's for the class of the same name."""

    def assign_batch(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any]] | None = None,
        **shared: Any,
    ) -> list[AssignResult]:
        """Assign B images; the same as ``assign`` for each, which is what it is here.

        Args:
            pred_list: ``pred_instances`` of each image.
            gt_list: ``gt_instances`` of each image.
            ignore_list: ``gt_instances_ignore`` of each image, or None.
            img_metas: ``img_meta`` of each image, or None.
            **shared: further arguments of ``assign``, the same for all images, as ``num_level_priors``.
        """
        images = self.images_of(pred_list, gt_list, ignore_list, img_metas)
        return [
            self.assign(pred_instances=pred, gt_instances=gt, gt_instances_ignore=ignore, img_meta=meta, **shared)
            for pred, gt, ignore, meta in images
        ]

    def images_of(self, pred_list: Sequence[Any], *others: Sequence[Any] | None) -> list[tuple[Any, ...]]:
        """Turn lists over images into what each image has, None where a list is None.

        Raises:
            ValueError: the lists have different lengths.
        """
        lengths = [len(pred_list), *(len(other) for other in others if other is not None)]
        if len(set(lengths)) > 1:
            self.fail(f"assign_batch got lists of different lengths: {lengths}; each image needs one of each")
        return list(zip(pred_list, *([None] * len(pred_list) if other is None else other for other in others)))

    def fail(self, message: str, img_meta: Mapping[str, Any] | None = None) -> NoReturn:
        """Raise ``AssignerInputError`` with the name of the assigner in front and of the image behind."""
        call = current_call()
        Call(type(self).__name__, [img_meta, *(call.sources if call else ())]).fail(message)

    def tell_once(self, kind: str, message: str) -> None:
        """Warn with the name of the assigner in front, once for each kind."""
        tell_once(type(self).__name__, kind, message)

    def about(self, *sources: Any) -> None:
        """Say where the image is named that the following is about: meta data, or instances with some."""
        self.call.sources = sources

    @property
    def call(self) -> Call:
        """The call that is going on; a new one outside of any."""
        return current_call() or Call(type(self).__name__)

    def run(self, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call a pure function, compiled if this assigner is to be, when what was read is known to be right."""
        self.call.settle()
        return (compiled(function) if self.compile else function)(*args, **kwargs)

    def policy(self, device: torch.device) -> Handling:
        """What becomes of values on a device, the same for the whole of a call."""
        call = self.call
        if call.handling is None:
            said = self.on_nonfinite or on_nonfinite()
            on_device = static_shapes(device)
            replaces = said == "replace" or (said is None and on_device and not self.matches_on_host)
            call.handling = Handling(replaces, not on_device or said == "raise", on_device)
        return call.handling

    @property
    def replaces(self) -> bool:
        """Whether matching on the host leaves out what is not finite instead of raising."""
        return (self.on_nonfinite or on_nonfinite()) == "replace"

    def expect(self, value: Tensor, doubt: Callable[[Tensor], Tensor], look: Callable[[Tensor], Fault | None]) -> None:
        """Raise if a quick test of a tensor says so and a close look confirms it; on a device in ``settle``."""
        if value.numel():
            value = value.detach()
            self.call.expect(doubt(value), lambda: look(value), wait=not self.policy(value.device).on_device)

    def expect_finite(self, value: Tensor, name: str, kind: Kind = "scores") -> None:
        """Raise if a field of this kind is not what it should be; on a device in ``settle``."""
        self.expect(value, lambda own: suspicious(own, kind), lambda own: fault_in(own, kind, name))

    def read(self, instances: Any, owner: str, name: str) -> Tensor:
        """Fetch a field as a tensor on the device of the others.

        Args:
            instances: ``InstanceData`` or anything with the field as an attribute.
            owner: what the instances are called in messages, as ``pred_instances``.
            name: of the field.
        """
        value = as_tensor(getattr(instances, name, None))
        if not isinstance(value, Tensor):
            kind = "nothing" if value is None else type(value).__name__
            self.fail(f"{owner}.{name} must be a tensor, got {kind}")
        self.call.same_device(value, f"{owner}.{name}")
        return value

    def read_as(self, instances: Any, owner: str, name: str, kind: Kind) -> Tensor:
        """Fetch a field of this kind, numbers in float32, flags as bool; an empty one may have any shape."""
        value = self.read(instances, owner, name)
        if kind == "flags":
            return value.bool()
        if kind == "masks":
            return as_float32(value)
        columns, ndim = COLUMNS[kind], 3 if kind == "groups" else 2
        if value.numel() == 0 and value.ndim != ndim:
            value = value.reshape(0, *[1] * (ndim - 2), columns)
        if value.ndim != ndim or value.shape[-1] < columns:
            shape = ("n", "A", columns)[-ndim:] if ndim == 3 else ("n", columns)
            self.fail(f"{owner}.{name} must have shape ({', '.join(map(str, shape))}), got {tuple(value.shape)}")
        return as_float32(value)[..., :columns] if kind in ("boxes", "predicted") else as_float32(value)

    def read_predictions(self, instances: Any, owner: str = "pred_instances", **kinds: Kind) -> tuple[Tensor, ...]:
        """Fetch fields with a row for each prior, in which what is not finite raises or is taken out.

        A prior that is bad in one field is taken out in all of them.

        Args:
            instances: ``InstanceData`` or anything with the fields as attributes.
            owner: what the instances are called in messages.
            **kinds: of each field, by its name.
        """
        fields = [self.read_as(instances, owner, name, kind) for name, kind in kinds.items()]
        if len({len(value) for value in fields}) > 1:
            lengths = {name: len(value) for name, value in zip(kinds, fields)}
            self.fail(f"{owner} has fields of different lengths: {lengths}")
        names = [f"{owner}.{name}" for name in kinds]
        return tuple(self.only_good(names, fields, list(kinds.values()), -AWAY))

    def only_good(
        self, names: Sequence[str], values: Sequence[Tensor], kinds: Sequence[Kind], away: float
    ) -> Sequence[Tensor]:
        """Raise for bad rows of fields that belong together, or take them out of all, boxes to ``away``."""
        device, count = values[0].device, len(values[0])
        replaces, looks, _ = self.policy(device)
        if not count:
            return values
        if replaces and not self.matches_on_host:
            detached = [value.detach() for value in values]
            good = good_boxes(detached[0]) if away > 0 and kinds == ["boxes"] else good_rows(detached, kinds)
            if self.takes_out(" and ".join(names), good):
                values = [without_rows(value, kind, good, away) for value, kind in zip(values, kinds)]
        for name, value, kind in zip(names, values, kinds) if looks else ():
            if kind == "probabilities" or not (replaces or kind == "flags"):
                self.expect_finite(value, name, kind)
        return values

    def takes_out(self, what: str, good: Tensor) -> bool:
        """Count the rows that are to be taken out; False where it is known that there are none, without a wait.

        Args:
            what: the field.
            good: (N,) bool, the rows that are kept.
        """
        if not self.policy(good.device).on_device:
            bad = len(good) - int(good.sum())
            if not bad:
                return False
            text = f"{what}: {bad} of {len(good)} rows are not finite, or no boxes, and are never matched"
            self.tell_once(f"replace {what}", text)
        count_replaced(type(self).__name__, what, good)
        return True

    def read_labels(self, instances: Any, owner: str = "gt_instances", num_classes: int | None = None) -> Tensor:
        """Classes (M,) int64 of the ground truths; an empty one may have any shape and type."""
        labels = self.read(instances, owner, "labels")
        if labels.numel() == 0:
            labels = labels.reshape(0)
        if labels.ndim != 1:
            self.fail(f"{owner}.labels must have shape (M,), got {tuple(labels.shape)}")
        self.check_labels(labels, num_classes, owner)
        return labels.long()

    def read_ground_truths(self, gt_instances: Any, num_classes: int | None = None) -> tuple[Tensor, Tensor]:
        """Boxes (M, 4) xyxy and labels (M,) int64 of the ground truths, below ``num_classes`` if given; M may be 0."""
        boxes = self.read_as(gt_instances, "gt_instances", "bboxes", "boxes")
        labels = self.read_labels(gt_instances, num_classes=num_classes)
        given = as_tensor(gt_instances.bboxes)
        if given.numel() and given.shape[1] != 4:
            self.fail(f"gt_instances.bboxes must have shape (n, 4), got {tuple(given.shape)}")
        if len(boxes) != len(labels):
            self.fail(f"gt_instances has {len(boxes)} bboxes and {len(labels)} labels")
        (boxes,) = self.only_good(["gt_instances.bboxes"], [boxes], ["boxes"], AWAY)
        if not self.policy(boxes.device).on_device and len(boxes) and (boxes[:, 2:] <= boxes[:, :2]).any():
            empty = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1) & ~taken_out(boxes)
            if empty.any():
                first = int(empty.nonzero()[0])
                text = f"gt_instances.bboxes[{first}] is {boxes[first].tolist()} and has no area; check the annotations"
                self.tell_once("no area", text)
        return boxes, labels

    def read_masks(self, gt_instances: Any, name: str, count: int) -> None:
        """Check masks (M, ...) of ``count`` ground truths."""
        masks = self.read_as(gt_instances, "gt_instances", name, "masks")
        if masks.numel() and len(masks) != count:
            self.fail(f"gt_instances has {len(masks)} {name} and {count} labels")
        if masks.numel():
            self.only_good([f"gt_instances.{name}"], [masks], ["masks"], AWAY)

    def read_regions(self, gt_instances_ignore: Any) -> Tensor | None:
        """Boxes (R, 4) xyxy of the ignore regions, None where there are no instances of them."""
        if gt_instances_ignore is None:
            return None
        regions = self.read_as(gt_instances_ignore, "gt_instances_ignore", "bboxes", "predicted")
        return self.only_good(["gt_instances_ignore.bboxes"], [regions], ["predicted"], AWAY)[0]

    def without_regions(self, gt_instances_ignore: Any) -> None:
        """Say once that a method doesn't use the ignore regions that it was given."""
        count = 0 if gt_instances_ignore is None else self.count(gt_instances_ignore)
        if count:
            text = f"gt_instances_ignore has {count} regions, which are not used: the method defines none; what lies in"
            self.tell_once("ignore regions", f"{text} them may become background")

    def read_level_sizes(
        self, pred_instances: Any, num_level_priors: Sequence[int] | None, num_priors: int
    ) -> Sequence[int]:
        """Priors in each level, as the head passes them, or counted from ``pred_instances.level_ids``.

        Args:
            pred_instances: may have ``level_ids`` (N,), from 0 and ascending; on a device, counting waits for it.
            num_level_priors: what the head passed, None if nothing.
            num_priors: N, which they must sum to.
        """
        if num_level_priors is None:
            level_ids = getattr(pred_instances, "level_ids", None)
            if level_ids is None:
                self.fail(
                    "neither num_level_priors nor pred_instances.level_ids is there; take a head that passes level "
                    "sizes, as ATSSHead does, or for RetinaNet type='visdet_assigners.AnyAssignerRetinaHead'"
                )
            if not static_shapes(level_ids.device) and (level_ids.diff() < 0).any():
                self.fail("pred_instances.level_ids must ascend: one level after another")
            num_level_priors = level_ids.bincount().tolist()
        if isinstance(num_level_priors, Tensor) or not isinstance(num_level_priors, Sequence):
            self.fail(f"num_level_priors must be a list of level sizes, got {type(num_level_priors).__name__}")
        if sum(num_level_priors) != num_priors:
            self.fail(
                f"sum(num_level_priors) is {sum(num_level_priors)} but there are {num_priors} priors; "
                "does the head filter priors outside the image?"
            )
        return num_level_priors

    def on_device(self, gt_instances: Any) -> bool:
        """Whether shapes may not depend on data where the boxes of these instances lie."""
        boxes = as_tensor(getattr(gt_instances, "bboxes", None))
        return isinstance(boxes, Tensor) and static_shapes(boxes.device)

    def count(self, instances: Any) -> int:
        """Number of instances, of ``InstanceData`` or of anything with tensors as attributes."""
        if hasattr(instances, "__len__"):
            return len(instances)
        return next((len(value) for value in vars(instances).values() if isinstance(value, Tensor)), 0)

    def check_labels(self, labels: Tensor, num_classes: int | None, owner: str = "gt_instances") -> None:
        """Raise if a label is no class of the scores, below 0, or no whole number."""
        if self.policy(labels.device).looks:
            name = f"{owner}.labels"
            self.expect(
                labels,
                lambda own: suspicious_labels(own, num_classes),
                lambda own: label_fault(own, num_classes, name),
            )

    def image_size(self, img_meta: Mapping[str, Any] | None) -> tuple[int, int]:
        """Height and width of the image."""
        return image_size(img_meta, self.call)

    def check_weights(self, **weights: Any) -> None:
        """Raise if a weight is not finite."""
        for name, weight in weights.items():
            if not math.isfinite(weight):
                self.fail(f"{name} is {weight}; a finite number is needed")


class OverlapMixin:
    """Overlaps by an exchangeable calculator, and ignore regions by intersection over the prior."""

    iou_calculator: IoUCalculator
    ignore_iof_thr: float = -1

    def build_calculator(self, iou_calculator: Any) -> None:
        """Set ``iou_calculator`` from a configuration, an object, or None for plain IoU."""
        self.iou_calculator = BboxOverlaps2D() if iou_calculator is None else build(iou_calculator)

    @property
    def reach(self) -> float | None:
        """Pixels from which on boxes apart overlap by exactly 0; None where the calculator doesn't say."""
        return getattr(self.iou_calculator, "reach", None)

    def overlaps(self, boxes1: Tensor, boxes2: Tensor, mode: str = "iou") -> Tensor:
        """Pairwise overlaps, (A, B), at least in float32."""
        return as_float32(self.iou_calculator(boxes1, boxes2, mode=mode))

    def overlaps_at(self, boxes: Tensor, gts: Tensor, candidates: Tensor) -> Tensor:
        """Overlaps of ground truths with some boxes each, (M, K).

        Args:
            boxes: (N, 4) xyxy.
            gts: (M, 4) xyxy.
            candidates: (M, K) int64, rows of ``boxes``.
        """
        calculator: Any = self.iou_calculator
        if getattr(calculator, "takes_pairs", False):
            pairs = boxes[candidates]  # (M, K, 4)
            return as_float32(calculator(pairs, gts[:, None].expand_as(pairs), is_aligned=True))
        return self.overlaps(boxes, gts).T.gather(1, candidates)

    def ignored_priors(self, priors: Tensor, regions: Tensor | None, wrt_candidates: bool = True) -> Tensor | None:
        """Which priors lie in ignore regions: IoF above ``ignore_iof_thr``, strictly.

        Args:
            priors: (..., N, 4) xyxy.
            regions: (..., R, 4) xyxy or None.
            wrt_candidates: the intersection over the area of the prior; otherwise over that of the region.

        Returns:
            (..., N) bool, or None where ignoring is off or there are no regions.
        """
        if self.ignore_iof_thr <= 0 or regions is None or not regions.numel() or not priors.numel():
            return None
        if wrt_candidates:
            covered = self.overlaps(priors, regions, mode="iof").amax(dim=-1)
        else:
            covered = self.overlaps(regions, priors, mode="iof").amax(dim=-2)
        return covered > self.ignore_iof_thr
