"""The inputs of one image: fetched as tensors, checked once, and named in errors; one class, hence the length.

Whether values that are not finite raise an error or are left out, an assigner says for itself (``on_nonfinite``), else
the settings of the package.  Where nobody says, a CPU raises, and so do the Hungarian assigners; on a device the others
replace, since a check of values would synchronise with it.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor

from visdet_assigners.dropped import count_dropped
from visdet_assigners.errors import AssignerInputError, image_of
from visdet_assigners.functional.blocks import static_shapes
from visdet_assigners.functional.geometry import UPRIGHT, Geometry, geometry_of, is_upright
from visdet_assigners.functional.tensors import as_float32, as_tensor
from visdet_assigners.functional.validity import (
    COLUMNS,
    GROUPS,
    NOWHERE,
    Fault,
    Kind,
    drop_rows,
    fault_in,
    good_boxes,
    good_rows,
    is_dropped,
    label_fault,
    labels_may_be_wrong,
    may_be_wrong,
)
from visdet_assigners.settings import Policy, on_nonfinite

warned: Counter[tuple[str, str]] = Counter()
"""How often each kind of warning came up, by assigner and kind; only the first is shown."""


def count_instances(instances: Any) -> int:
    """Number of instances, of ``InstanceData`` or of anything with tensors as attributes; 0 for None."""
    if instances is None:
        return 0
    if hasattr(instances, "__len__"):
        return len(instances)
    return next((len(value) for value in vars(instances).values() if isinstance(value, Tensor)), 0)


def image_size(who: str, img_meta: Mapping[str, Any] | None, sources: Sequence[Any] = ()) -> tuple[int, int]:
    """Height and width of the image from its meta data.

    Raises:
        AssignerInputError: they aren't there, or not positive.
    """
    size = tuple((img_meta or {}).get("img_shape") or ())[:2]
    if len(size) != 2 or not all(side > 0 for side in size):
        text = f"img_meta['img_shape'] must be (height, width), both positive, got {size or 'nothing'}"
        raise AssignerInputError(who, text, image=image_of(sources))
    return size  # type: ignore[return-value]


def warn_once(who: str, kind: str, text: str) -> None:
    """Warn, once in a process for each assigner and kind."""
    warned[who, kind] += 1
    if warned[who, kind] == 1:
        warnings.warn(f"{who}: {text}", stacklevel=2)


# --------------------------------------------------------------------------------------------------------- one image


class Inputs:
    """Reads the fields of one image.

    Shapes, types and devices are checked at once.  Values are checked by quick tests that are looked at together in
    `settle`, once; where one of them says so, a close look names the first bad entry.

    Args:
        who: name of the assigner, or of the function that is called.
        policy: what becomes of values that are not finite; None leaves it to the settings.
        on_host: whether such values show on the host anyway, as in costs: then a device raises by default, too, without
            a test, and nothing is dropped here.
        sources: where the image may be named: meta data, or instances with some.
        heads: that can feed the assigner, in words; named where predictions lack a field.

    Attributes:
        fields: the fields with a row for each prior, by name.
        gts: (M, 4) xyxy, or rows of other numbers where another package judges the boxes.
        labels: (M,) int64.
        regions: (R, 4) ignore regions, or None.
        level_sizes: priors in each level, or None.
        forms: the classes that boxes came in, by the name of their field, and of ``gts`` and ``regions``; see
            `functional.geometry.form_of`.
        truths: the instances of the ground truths, for what is read of them besides.
        options: of the call, as exponents.
    """

    fields: Mapping[str, Tensor]
    gts: Tensor
    labels: Tensor
    regions: Tensor | None = None
    level_sizes: Sequence[int] | None = None
    forms: Mapping[str, Any] = MappingProxyType({})
    truths: Any = None
    options: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        who: str,
        policy: Policy | None = None,
        on_host: bool = False,
        sources: Sequence[Any] = (),
        heads: str = "",
    ) -> None:
        self.who = who
        self.heads = heads
        self.sources = sources
        self.policy = policy
        self.on_host = on_host
        self.device: torch.device | None = None
        self.on_device = self.replaces = False
        self.checks = True
        self._first = ""
        self._read: list[tuple[Tensor, Callable[[Tensor], Fault | None]]] = []
        self._pending: list[Tensor] = []
        self._looks: list[tuple[Tensor, Callable[[Tensor], Fault | None]]] = []

    def geometry(self, name: str) -> Geometry:
        """What is known of the boxes in a field, or of ``gts``: by their own class unless they are upright."""
        form = self.forms.get(name)
        return UPRIGHT if is_upright(form) else geometry_of(form)

    @property
    def upright(self) -> bool:
        """Whether no boxes came in a class of their own."""
        return all(is_upright(form) for form in self.forms.values())

    # ------------------------------------------------------------------------------------------------------- errors

    def fail(self, text: str, fault: Fault | None = None) -> NoReturn:
        """Raise ``AssignerInputError`` that names the assigner and the image."""
        fault = fault or Fault(text, "")
        raise AssignerInputError(self.who, text, fault.field, fault.index, fault.value, image_of(self.sources))

    def warn_once(self, kind: str, text: str) -> None:
        """Warn with the name of the assigner in front, once for each kind."""
        warn_once(self.who, kind, text)

    def expect(self, value: Tensor, doubt: Callable[[Tensor], Tensor], look: Callable[[Tensor], Fault | None]) -> None:
        """Have a value looked at in `settle`, if values are checked; in `explain`, whether or not.

        Args:
            value: of any shape.
            doubt: a quick test, () bool.
            look: finds out what is wrong, if anything is.
        """
        if value.numel():
            value = value.detach()
            self._read.append((value, look))
            if self.checks:
                self._pending.append(doubt(value))
                self._looks.append((value, look))

    def remember(self, value: Tensor, name: str, kind: Kind) -> None:
        """Have a field looked at in `explain` alone: what is wrong with it shows elsewhere."""
        if value.numel():
            self._read.append((value.detach(), lambda own: fault_in(own, kind, name)))

    def settle(self, *others: Inputs) -> None:
        """Raise for the first value that something is wrong with, of this image and of others; synchronises once."""
        images = (self, *others)
        pending = [flag for image in images for flag in image._pending]
        if pending and (torch.stack(pending) if len(pending) > 1 else pending[0]).any():
            for image in images:
                image._look(image._looks)
        for image in images:
            image._pending, image._looks = [], []

    def explain(self) -> None:
        """Look closely at all values that were read, and raise for the first bad one; where it is known that one is.

        Infinite scores come last: a head may mask classes by them.
        """
        infinite = None
        for value, look in self._read:
            fault = look(value)
            if fault is None:
                continue
            if fault.field.endswith("scores") and isinstance(fault.value, float) and math.isinf(fault.value):
                infinite = infinite or fault
                continue
            self.fail(fault.text, fault)
        if infinite is not None:
            self.fail(infinite.text, infinite)

    def _look(self, looks: Sequence[tuple[Tensor, Callable[[Tensor], Fault | None]]]) -> None:
        for value, look in looks:
            fault = look(value)
            if fault is not None:
                self.fail(fault.text, fault)

    # --------------------------------------------------------------------------------------------------- one field

    def tensor(self, value: Any, name: str) -> Tensor:
        """A value as a tensor, which must be on the device of the others."""
        value = as_tensor(value)
        if not isinstance(value, Tensor):
            kind = "nothing" if value is None else type(value).__name__
            hint = "; torch.from_numpy makes one" if kind == "ndarray" else ""
            if value is None and self.heads and name.startswith("pred_instances."):
                hint = f"; heads that can feed it: {self.heads}"
            self.fail(f"{name} must be a tensor, got {kind}{hint}")
        if self.device is None:
            self.device, self._first = value.device, name
            self.on_device = static_shapes(value.device)
            said = self.policy or on_nonfinite()
            self.replaces = said == "replace" or (said is None and self.on_device and not self.on_host)
            self.checks = not self.on_device or said == "raise"
        elif value.device != self.device:
            self.fail(f"{name} is on {value.device} but {self._first} is on {self.device}; move them to one device")
        return value

    def field(self, value: Any, name: str, kind: Kind) -> Tensor:
        """A field of this kind: numbers in float32, flags as bool; an empty one may have any shape."""
        value = self.tensor(value, name)
        if kind == "flags":
            return value.bool()
        if kind == "masks":
            return as_float32(value)
        columns, what = COLUMNS[kind]
        ndim = 3 if kind in GROUPS else 2
        if value.numel() == 0 and value.ndim != ndim:
            value = value.reshape(0, *[1] * (ndim - 2), columns)
        if kind == "strided" and value.ndim == 2 and value.shape[1] == 3:
            value = value[:, [0, 1, 2, 2]]
        if value.ndim != ndim or value.shape[-1] < columns:
            shape = ", ".join(map(str, ("n", "A", columns) if ndim == 3 else ("n", columns)))
            hint = "; give one image at a time" if value.ndim == ndim + 1 else f"; the columns are {what}"
            self.fail(f"{name} must have shape ({shape}), got {tuple(value.shape)}{hint}")
        return as_float32(value)[..., :columns] if kind in ("boxes", "predicted") else as_float32(value)

    def check(self, value: Tensor, name: str, kind: Kind) -> None:
        """Have a field looked at in `settle`."""
        self.expect(value, lambda own: may_be_wrong(own, kind), lambda own: fault_in(own, kind, name))

    def rows(self, named: Mapping[str, tuple[Any, Kind]], to: float = -NOWHERE, owner: str = "") -> list[Tensor]:
        """Fields whose rows belong together: a row that is bad in one of them raises, or is dropped in all.

        Args:
            named: value and kind of each field, by its name.
            to: where dropped boxes go, see `drop_rows`.
            owner: what the names in messages begin with, as "pred_instances.".
        """
        names = [owner + name for name in named]
        kinds = [kind for _, kind in named.values()]
        values = [self.field(value, name, kind) for name, (value, kind) in zip(names, named.values())]
        if len({len(value) for value in values}) > 1:
            lengths = {name: len(value) for name, value in zip(named, values)}
            self.fail(f"{owner.rstrip('.') or 'the arguments'} has fields of different lengths: {lengths}")
        if self.on_host:
            for name, value, kind in zip(names, values, kinds):
                self.remember(value, name, kind)
            return values
        return self.good_only(names, values, kinds, to)

    def good_only(self, names: Sequence[str], values: list[Tensor], kinds: Sequence[Kind], to: float) -> list[Tensor]:
        """Check rows, or drop the bad ones where that is the policy, without synchronising with a device."""
        if not len(values[0]):
            return values
        if self.replaces and not self.on_host:
            detached = [value.detach() for value in values]
            good = good_boxes(detached[0]) if to > 0 and kinds == ["boxes"] else good_rows(detached, kinds)
            if self.drops(" and ".join(names), good):
                values = [drop_rows(value, kind, good, to) for value, kind in zip(values, kinds)]
        for name, value, kind in zip(names, values, kinds):
            if kind == "probabilities" or not (self.replaces or kind == "flags"):
                self.check(value, name, kind)
        return values

    def drops(self, what: str, good: Tensor) -> bool:
        """Count the rows that are to be dropped; False where it is known, without synchronising, that there are none.

        Args:
            what: the field.
            good: (N,) bool, the rows that are kept.
        """
        if not self.on_device:
            bad = len(good) - int(good.sum())
            if not bad:
                return False
            text = f"{what}: {bad} of {len(good)} rows are not finite, or no boxes, and are never matched"
            self.warn_once(f"replace {what}", text)
        count_dropped(self.who, what, good)
        return True

    # ---------------------------------------------------------------------------------------------- ground truths

    def read_labels(self, value: Any, name: str = "gt_instances.labels", num_classes: int | None = None) -> Tensor:
        """Classes (M,) int64 of the ground truths; an empty one may have any shape and type."""
        labels = self.tensor(value, name)
        if labels.numel() == 0:
            labels = labels.reshape(0)
        if labels.ndim != 1:
            self.fail(f"{name} must have shape (M,), got {tuple(labels.shape)}")
        self.check_labels(labels, name, num_classes)
        return labels.long()

    def check_labels(self, labels: Tensor, name: str, num_classes: int | None) -> None:
        """Have labels looked at in `settle`: each a class of the scores, a whole number from 0."""
        self.expect(
            labels,
            lambda own: labels_may_be_wrong(own, num_classes),
            lambda own: label_fault(own, num_classes, name),
        )

    def read_boxes(self, value: Any, name: str = "gt_instances.bboxes", kind: Kind = "boxes", hint: str = "") -> Tensor:
        """Boxes (M, 4) xyxy of the ground truths, or (M, D) of other kinds; M may be 0; ``hint`` ends an error."""
        boxes = self.field(value, name, kind)
        given = as_tensor(value)
        if kind == "boxes" and given.numel() and given.shape[1] != 4:
            ending = f"; the columns are x1, y1, x2, y2{hint and '; ' + hint}"
            self.fail(f"{name} must have shape (n, 4), got {tuple(given.shape)}{ending}")
        (boxes,) = self.good_only([name], [boxes], [kind], NOWHERE)
        if kind == "boxes" and not self.on_device and (boxes[:, 2:] == boxes[:, :2]).any():
            empty = (boxes[:, 2:] == boxes[:, :2]).any(dim=1) & ~is_dropped(boxes)
            if empty.any():
                first = int(empty.nonzero()[0])
                text = f"{name}[{first}] is {boxes[first].tolist()} and has no area; check the annotations"
                self.warn_once("no area", text)
        return boxes

    def read_truths(
        self,
        bboxes: Any,
        labels: Any,
        num_classes: int | None = None,
        names: tuple[str, str] = ("gt_instances.bboxes", "gt_instances.labels"),
        kind: Kind = "boxes",
        hint: str = "",
    ) -> None:
        """Read ``gts`` and ``labels``, as many of the one as of the other."""
        self.gts = self.read_boxes(bboxes, names[0], kind, hint)
        self.labels = self.read_labels(labels, names[1], num_classes)
        if len(self.gts) != len(self.labels):
            what = " and ".join(
                f"{len(each)} {name.split('.')[-1]}" for name, each in zip(names, (self.gts, self.labels))
            )
            self.fail(f"{names[0].partition('.')[0]} has {what}")

    def read_masks(self, value: Any, name: str, count: int) -> Tensor:
        """Masks (M, ...) of ``count`` ground truths."""
        masks = self.field(value, name, "masks")
        if masks.numel() and len(masks) != count:
            self.fail(f"gt_instances has {len(masks)} {name.split('.')[-1]} and {count} labels")
        self.remember(masks, name, "masks")
        return masks

    def read_regions(self, instances: Any, kind: Kind = "predicted") -> None:
        """Read ``regions``, the boxes of the ignore regions; None where there are no instances of them."""
        if instances is not None:
            name = "gt_instances_ignore.bboxes"
            boxes = self.field(getattr(instances, "bboxes", None), name, kind)
            (self.regions,) = self.good_only([name], [boxes], [kind], NOWHERE)

    # ------------------------------------------------------------------------------------------------------ the rest

    def read_levels(self, sizes: Any, num_priors: int, instances: Any = None, name: str = "num_level_priors") -> None:
        """Read ``level_sizes``, as they are given, or counted from ``level_ids`` of the predictions.

        Args:
            sizes: what was given, None if nothing.
            num_priors: N, which they must sum to.
            instances: may have ``level_ids`` (N,), from 0 and ascending; on a device, counting synchronises with it.
            name: of the sizes.
        """
        if sizes is None:
            level_ids = getattr(instances, "level_ids", None)
            if level_ids is None:
                self.fail(
                    f"neither {name} nor pred_instances.level_ids is there: the caller has no levels, as RoI heads, or "
                    f"hides them; heads that can feed it: {self.heads}"
                )
            if not static_shapes(level_ids.device) and (level_ids.diff() < 0).any():
                self.fail("pred_instances.level_ids must ascend: one level after another")
            sizes = level_ids.bincount().tolist()
        if isinstance(sizes, str) or not isinstance(sizes, Sequence):
            self.fail(f"{name} must be a list of level sizes, got {type(sizes).__name__}")
        if not all(isinstance(size, Integral) and int(size) >= 0 for size in sizes):
            self.fail(f"{name} is {list(sizes)}; whole numbers from 0 are expected")
        if sum(sizes) != num_priors:
            self.fail(
                f"sum({name}) is {sum(sizes)} but there are {num_priors} priors; "
                "does the head filter priors outside the image?"
            )
        self.level_sizes = sizes

    def image_size(self, img_meta: Mapping[str, Any] | None) -> tuple[int, int]:
        """Height and width of the image from its meta data."""
        return image_size(self.who, img_meta, self.sources)
