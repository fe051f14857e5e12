"""What all assigners share: reading instances, checking them, ignore regions, half precision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor

from visdet_assigners.assignment import AssignResult
from visdet_assigners.functional.tensors import as_float32, as_tensor, finite_fault, label_fault
from visdet_assigners.iou_calculators import BboxOverlaps2D, IoUCalculator
from visdet_assigners.registry import adopt, build


class BaseAssigner(ABC):
    """An assigner marks each prior of an image as positive for one ground truth, as negative, or as ignored.

    Subclasses read the fields they need with the methods below, call a pure function, and convert its ``Assignment``.
    Errors are raised for mistakes of the caller and name the assigner, the field and, where it is known, the image.
    Values are checked on CPU only: on a device each check would wait for it.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> BaseAssigner:  # noqa: D102
        adopt(cls)
        return super().__new__(cls)

    @abstractmethod
    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Assign the priors of one image; the arguments are mmdet's for the class of the same name."""

    def fail(self, message: str, img_meta: Mapping[str, Any] | None = None) -> NoReturn:
        """Raise ``ValueError`` with the name of the assigner in front and of the image behind."""
        image = (img_meta or {}).get("img_path") or (img_meta or {}).get("img_id")
        raise ValueError(f"{type(self).__name__}: {message}" + (f" (image {image})" if image is not None else ""))

    def read(self, instances: Any, owner: str, name: str, columns: int | None = None) -> Tensor:
        """Fetch a field as a tensor, floating values at least in float32.

        Args:
            instances: ``InstanceData`` or anything with the field as an attribute.
            owner: what the instances are called in messages, as ``pred_instances``.
            name: of the field.
            columns: the least number of columns of a two-dimensional field; an empty one may have shape (0,).
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
        if boxes.device.type == "cpu" and len(boxes):
            inverted = (boxes[:, 2:4] < boxes[:, :2]).any(dim=1)
            if inverted.any():
                first = int(inverted.nonzero()[0])
                self.fail(f"gt_instances.bboxes[{first}] is {boxes[first].tolist()}, not x1 <= x2, y1 <= y2")
        return boxes, labels

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
        if scores.device.type == "cpu" and scores.numel():
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

    def overlaps(self, boxes1: Tensor, boxes2: Tensor, mode: str = "iou") -> Tensor:
        """Pairwise overlaps, (A, B), at least in float32."""
        return as_float32(self.iou_calculator(boxes1, boxes2, mode=mode))

    def ignored_priors(self, priors: Tensor, regions: Tensor | None, wrt_candidates: bool = True) -> Tensor | None:
        """Which priors lie in ignore regions: IoF above ``ignore_iof_thr``, strictly.

        Args:
            priors: (N, 4) xyxy.
            regions: (R, 4) xyxy or None.
            wrt_candidates: the intersection over the area of the prior; otherwise over that of the region.

        Returns:
            (N,) bool, or None where ignoring is off or there are no regions.
        """
        if self.ignore_iof_thr <= 0 or regions is None or not len(regions) or not len(priors):
            return None
        if wrt_candidates:
            covered = self.overlaps(priors, regions, mode="iof").amax(dim=1)
        else:
            covered = self.overlaps(regions, priors, mode="iof").amax(dim=0)
        return covered > self.ignore_iof_thr
