"""Record every assignment that a model makes, without touching its code.

All heads of mmdet call ``something.assign(...)`` on an object that one of the model's modules holds.  The tap shadows
that method on the object itself, hands a copy of what went in and came out to a function, and takes itself off again.

    with record_assignments(model) as records:
        model.loss(inputs, data_samples)
    records[0].positives_per_object()
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visdet_assigners.assignment import IGNORED, NEGATIVE

# Fields of `pred_instances` that follow from the image size and the ground truths alone.
_FIXED_FIELDS = {"priors", "approxs", "valid_flags", "responsible_flags"}


@dataclass(frozen=True, eq=False)
class AssignmentRecord:
    """One call of one assigner for one image.  All tensors are detached copies; what a call does not have is None.

    Attributes:
        module: name of the module that holds the assigner, as in ``model.named_modules()``; '' is the model itself.
        attribute: where the module holds it: ``assigner``, or ``bbox_assigner[1]`` in a list.
        assigner: class name of the assigner.
        call: how many calls this assigner answered before, within one tap.
        gt_index: (N,) int64, index of the matched ground truth, from 0; ``NEGATIVE`` or ``IGNORED``.
        gt_boxes: (M, 4) xyxy, pixels.
        gt_labels: (M,) int64, as the assigner saw them (a region proposal network sees one class).
        ignored_boxes: (I, 4) xyxy, ignore regions.
        priors: (N, 4) anchors or proposals in xyxy, or (N, 3) or (N, 4) points with their strides.
        pred_boxes: (N, 4) xyxy, boxes predicted at the time of the call.
        quality: (N,) IoU of the match, or whatever the assigner gives as ``max_overlaps``.
        level_sizes: priors in each level, where the head passes them.
        reads_predictions: whether the assigner was given anything predicted, be it scores or boxes.
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

    @property
    def where(self) -> str:
        """Module and attribute in one name, such as ``rpn_head.assigner``."""
        return f"{self.module}.{self.attribute}".lstrip(".")

    @property
    def num_objects(self) -> int:
        """Number of ground truths M."""
        for per_object in (self.gt_boxes, self.gt_labels):
            if per_object is not None:
                return len(per_object)
        return int(self.gt_index.max().clamp(min=-1)) + 1 if len(self.gt_index) else 0

    def positives_per_object(self) -> Tensor:
        """(M,) int64, how many priors or queries each ground truth got."""
        return torch.bincount(self.gt_index[self.gt_index >= 0], minlength=self.num_objects)


@contextmanager
def tap(model: nn.Module, record: Callable[[AssignmentRecord], None]) -> Iterator[None]:
    """Call ``record`` with a copy of every assignment that ``model`` makes inside the ``with`` block.

    Every assigner of the model is covered, ours or mmdet's, also in lists.  The assigners are as before when the block
    is left, also through an exception; taps may be nested.  An assigner that two modules share is recorded under the
    first one's name.  Heads that compute targets themselves (FCOS, AutoAssign) call no assigner and give no record.
    Don't copy or pickle the model inside the block: the copies would keep recording.

    Args:
        model: any detector of mmdet, or a part of one.
        record: called after each assignment; whatever it raises stops the model.
    """
    tapped: list[tuple[Any, Any]] = []
    try:
        for module, attribute, assigner in find_assigners(model):
            tapped.append((assigner, vars(assigner).get("assign")))
            assigner.assign = _recording(assigner, module, attribute, record)
        yield
    finally:
        for assigner, shadowed in tapped:
            if shadowed is None:
                vars(assigner).pop("assign", None)
            else:
                assigner.assign = shadowed


@contextmanager
def record_assignments(model: nn.Module) -> Iterator[list[AssignmentRecord]]:
    """Collect every assignment that ``model`` makes inside the ``with`` block in a list, in the order of the calls."""
    records: list[AssignmentRecord] = []
    with tap(model, records.append):
        yield records


def find_assigners(model: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Yield module name, attribute and object for every assigner that a module of ``model`` holds, each object once.

    An assigner is an object whose class has a method ``assign`` and is no module; attributes may be lists or tuples.
    """
    seen: set[int] = set()
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            is_sequence = isinstance(value, (list, tuple))
            for index, item in enumerate(value if is_sequence else [value]):
                # On the class: configs (dicts with attributes) and modules answer many names on the instance.
                if isinstance(item, (nn.Module, type)) or not callable(getattr(type(item), "assign", None)):
                    continue
                if id(item) not in seen:
                    seen.add(id(item))
                    yield name, f"{attribute}[{index}]" if is_sequence else attribute, item


def _recording(
    assigner: Any, module: str, attribute: str, record: Callable[[AssignmentRecord], None]
) -> Callable[..., Any]:
    """Return the assigner's ``assign`` with a copy of each call's outcome handed to ``record``."""
    original = assigner.assign
    signature = inspect.signature(original)
    calls = itertools.count()

    @functools.wraps(original)
    def assign(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        gt_inds = getattr(result, "gt_inds", None)
        if gt_inds is not None and gt_inds.ndim == 1:  # MultiInstanceAssigner has several objects for one prior
            # Heads pass the same argument by position or by name; only the signature tells which is which.
            arguments = signature.bind(*args, **kwargs).arguments
            arguments.update(arguments.pop("kwargs", {}))
            record(_as_record(module, attribute, type(assigner).__name__, next(calls), arguments, result))
        return result

    return assign


def _as_record(
    module: str, attribute: str, assigner: str, call: int, arguments: dict[str, Any], result: Any
) -> AssignmentRecord:
    """Copy one call.  Samplers and heads write into the result afterwards, so nothing may be shared."""
    predicted = arguments.get("pred_instances")
    truths = arguments.get("gt_instances")
    ignored = arguments.get("gt_instances_ignore")
    given = set(predicted.keys()) if predicted is not None else {"decode_bboxes"}
    gt_inds = result.gt_inds.detach()
    gt_index = torch.where(gt_inds > 0, gt_inds - 1, torch.where(gt_inds < 0, IGNORED, NEGATIVE)).long()
    quality = getattr(result, "max_overlaps", None)
    level_sizes = arguments.get("num_level_priors", arguments.get("num_level_anchors"))
    return AssignmentRecord(
        module=module,
        attribute=attribute,
        assigner=assigner,
        call=call,
        gt_index=gt_index,
        gt_boxes=_copy(_field(truths, "bboxes", arguments.get("gt_bboxes"))),
        gt_labels=_copy(_field(truths, "labels", arguments.get("gt_labels"))),
        ignored_boxes=_copy(_field(ignored, "bboxes", None)),
        priors=_copy(_field(predicted, "priors", None)),
        pred_boxes=_copy(_field(predicted, "bboxes", arguments.get("decode_bboxes"))),
        quality=_copy(quality) if quality is not None and quality.shape == gt_index.shape else None,
        level_sizes=None if level_sizes is None else tuple(int(size) for size in level_sizes),
        reads_predictions=not given <= _FIXED_FIELDS,
    )


def _field(instances: Any, name: str, otherwise: Any) -> Any:
    return otherwise if instances is None else instances.get(name, None)


def _copy(values: Any) -> Tensor | None:
    """Detached copy of a tensor or of mmdet's ``BaseBoxes`` around one."""
    return None if values is None else getattr(values, "tensor", values).detach().clone()
