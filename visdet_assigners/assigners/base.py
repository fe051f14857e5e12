"""What all assigners share: reading instances, checking them, ignore regions, half precision."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, NoReturn, TypeVar

from torch import Tensor

from visdet_assigners.assigners.compiling import Result, compiled
from visdet_assigners.assignment import AssignResult
from visdet_assigners.functional.blocks import static_shapes
from visdet_assigners.functional.tensors import as_float32, as_tensor, finite_fault, label_fault
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
    Values are checked on CPU only: on a device each check would wait for it.

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

    Every assigner takes these as keywords.

    Raises:
        ValueError: ``memory_budget`` isn't positive.
    """

    told_of_memory = False
    """Whether this assigner has warned that a device ran out of memory."""

    def __init__(
        self, memory_budget: int | None = None, compile: bool = False, deterministic: bool | None = None
    ) -> None:
        if memory_budget is not None and memory_budget < 1:
            self.fail(f"memory_budget is {memory_budget}; give a positive number of bytes")
        self.memory_budget = memory_budget
        self.compile = compile
        self.deterministic = deterministic

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
        """Raise ``ValueError`` with the name of the assigner in front and of the image behind."""
        image = (img_meta or {}).get("img_path") or (img_meta or {}).get("img_id")
        raise ValueError(f"{type(self).__name__}: {message}" + (f" (image {image})" if image is not None else ""))

    def run(self, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call a pure function, compiled if this assigner is to be."""
        return (compiled(function) if self.compile else function)(*args, **kwargs)

    def read(self, instances: Any, owner: str, name: str, columns: int | None = None) -> Tensor:
        """Fetch a field as a tensor, floating values at least in float32.

        Args:
            instances: ``InstanceData`` or anything with the field as an attribute.
            owner: what the instances are called in messages, as ``pred_instances``.
            name: of the field.
            columns: of a two-dimensional field: there must be so many, and no more are kept, as of boxes with a score
                behind them; 1 keeps them all.  An empty field may have shape (0,).
        """
        value = as_tensor(getattr(instances, name, None))
        if not isinstance(value, Tensor):
            kind = "nothing" if value is None else type(value).__name__
            self.fail(f"{owner}.{name} must be a tensor, got {kind}")
        value = as_float32(value)
        if columns is not None:
            if value.numel() == 0 and value.ndim != 2:
                value = value.reshape(0, columns)
            if value.ndim != 2 or value.shape[1] < columns:
                self.fail(f"{owner}.{name} must have shape (n, {columns}), got {tuple(value.shape)}")
            value = value[:, :columns] if columns > 1 else value
        self.check_finite(value, f"{owner}.{name}")
        return value

    def check_finite(self, value: Tensor, name: str, img_meta: Mapping[str, Any] | None = None) -> None:
        """Raise if a floating tensor on CPU has NaN or infinite entries, naming the first."""
        fault = finite_fault(value)
        if fault:
            self.fail(f"{name}{fault}", img_meta)

    def read_ground_truths(self, gt_instances: Any) -> tuple[Tensor, Tensor]:
        """Boxes (M, 4) xyxy and labels (M,) of the ground truths; M may be 0."""
        boxes = self.read(gt_instances, "gt_instances", "bboxes", columns=4)
        labels = self.read(gt_instances, "gt_instances", "labels")
        if len(boxes) != len(labels):
            self.fail(f"gt_instances has {len(boxes)} bboxes and {len(labels)} labels")
        if not static_shapes(boxes.device) and len(boxes):
            inverted = (boxes[:, 2:4] < boxes[:, :2]).any(dim=1)
            if inverted.any():
                first = int(inverted.nonzero()[0])
                self.fail(f"gt_instances.bboxes[{first}] is {boxes[first].tolist()}, not x1 <= x2, y1 <= y2")
        return boxes, labels

    def read_regions(self, gt_instances_ignore: Any) -> Tensor | None:
        """Boxes (R, 4) xyxy of the ignore regions, None where there are no instances of them."""
        if gt_instances_ignore is None:
            return None
        return self.read(gt_instances_ignore, "gt_instances_ignore", "bboxes", columns=4)

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
            self.fail(f"num_level_priors is a {type(num_level_priors).__name__}, not a list of level sizes")
        if sum(num_level_priors) != num_priors:
            self.fail(
                f"sum(num_level_priors) is {sum(num_level_priors)} but there are {num_priors} priors; "
                "does the head filter priors outside the image?"
            )
        return num_level_priors

    def count(self, instances: Any) -> int:
        """Number of instances, of ``InstanceData`` or of anything with tensors as attributes."""
        if hasattr(instances, "__len__"):
            return len(instances)
        return next((len(value) for value in vars(instances).values() if isinstance(value, Tensor)), 0)

    def check_labels(self, labels: Tensor, num_classes: int) -> None:
        """Raise if a label on CPU is no class of the scores."""
        fault = label_fault(labels, num_classes)
        if fault:
            self.fail(fault)

    def check_lengths(self, **tensors: Tensor) -> None:
        """Raise if fields of the predictions have different numbers of rows."""
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) > 1:
            self.fail(f"pred_instances has fields of different lengths: {lengths}")

    def check_probabilities(self, scores: Tensor) -> None:
        """Raise if scores on CPU are not probabilities."""
        if not static_shapes(scores.device) and scores.numel():
            low, high = scores.aminmax()
            if low < 0 or high > 1:
                wrong = low if low < 0 else high
                self.fail(f"pred_instances.scores holds {wrong.item():.4g}; probabilities are expected, not logits")


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
