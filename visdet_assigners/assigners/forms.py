"""The forms in which heads call ``assign``, and how they become one: on instances, level sizes by name.

mmdet 2's heads, visdet's ATSSHead and GFLHead, and what was built on mmdet 2 pass tensors, in an order and by names of
each class.  A class lists these names as ``mmdet2``; all else about them is here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor

from visdet_assigners.errors import AssignerInputError
from visdet_assigners.functional.tensors import as_tensor
from visdet_assigners.options import check_names

Method = TypeVar("Method", bound=Callable[..., Any])

Names = tuple[str, ...]
"""Arguments of mmdet 2's call of a class, in its order; ``name=place`` where the name means another place there."""

TRUTHS: Names = ("gt_bboxes", "gt_bboxes_ignore", "gt_labels")
DENSE: Names = ("bboxes", *TRUTHS)
"""The call of most assigners."""

PLACES: Mapping[str, str] = {
    "gt_bboxes": "gt_instances.bboxes",
    "gt_labels": "gt_instances.labels",
    "gt_mask": "gt_instances.masks",
    "gt_bboxes_ignore": "gt_instances_ignore.bboxes",
    "num_level_bboxes": "num_level_priors",
    "eps": "",  # without effect there, too
    **dict.fromkeys(
        ["bboxes", "squares", "anchors", "anchor", "points", "priors", "mlvl_anchors"], "pred_instances.priors"
    ),
    **dict.fromkeys(["bbox_preds", "decode_bboxes", "decoded_bboxes", "bbox_pred"], "pred_instances.bboxes"),
    **dict.fromkeys(["cls_scores", "pred_scores", "cls_pred"], "pred_instances.scores"),
    "approxs": "pred_instances.approxs",
    "box_responsible_flags": "pred_instances.responsible_flags",
    "mlvl_valid_flags": "pred_instances.valid_flags",
    "mask_pred": "pred_instances.masks",
    "batch_bboxes": "pred_instances",
    "batch_gt_bboxes": "gt_instances",
    "batch_gt_bboxes_ignore": "gt_instances_ignore",
}
"""What each of these names is in the call on instances: an argument, or a field of one; names not here stay."""

OPTIONAL = frozenset(
    ("gt_bboxes_ignore", "gt_labels", "cls_scores", "bbox_preds", "alpha", "beta", "allowed_border", "eps", "cls_pred")
    + ("batch_gt_bboxes_ignore", "batch_gt_labels", "batch_bboxes_ignore_mask", "batch_num_gts")
)
"""Arguments of mmdet 2 that may be left out; where a method needs one, its reader says so."""

BESIDES = ("num_level_priors", "img_meta")
"""What a call on tensors may say by keyword besides mmdet 2's own arguments."""

LABELS = "gt_instances.labels"
REGIONS = "gt_instances_ignore.bboxes"


def levels_by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Bring the arguments of an ``assign`` in one order: level sizes in the second place become ``num_level_priors``.

    Heads that were written for ATSS pass them there, between the predictions and the ground truths; the others pass
    none.  A list of numbers is told from instances by its type.
    """
    for_one_image = len(args) > 1 and isinstance(args[1], (list, tuple)) and not isinstance(args[0], (list, tuple))
    if for_one_image and all(isinstance(size, Integral) for size in args[1]):
        return (args[0], *args[2:]), {**kwargs, "num_level_priors": args[1]}
    return tuple(args), dict(kwargs)


def in_any_form(assign: Method) -> Method:
    """Decorate an ``assign`` on instances so that it takes level sizes second, too, and the tensors of mmdet 2.

    The class says in ``mmdet2`` how mmdet 2 called the class of its name, and in ``from_mmdet2`` where the values
    differ.  Errors then name the arguments as that call does.  Without ``gt_labels`` the result has none, as there.
    """

    @functools.wraps(assign)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = levels_by_name(args, kwargs)
        if not has_tensors(self, args, kwargs):
            return assign(self, *args, **kwargs)
        try:
            fields = fields_of_tensors(self, args, kwargs)
            unlabelled = stand_in_labels(self, fields)
            result = assign(self, **as_instances(fields))
        except AssignerInputError as error:
            name_as_given(error, places_of(self.mmdet2))
            raise
        return without_labels(result) if unlabelled else result

    method.in_common_form = in_common_form  # type: ignore[attr-defined]
    return method  # type: ignore[return-value]


def in_common_form(assigner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict]:
    """The arguments of a call in any form as those of the call on instances, for who watches calls."""
    args, kwargs = levels_by_name(args, kwargs)
    if not has_tensors(assigner, args, kwargs):
        return args, kwargs
    fields = fields_of_tensors(assigner, args, kwargs)
    stand_in_labels(assigner, fields)
    return (), as_instances(fields)


@functools.cache
def places_of(names: Names | None) -> Mapping[str, str]:
    """The arguments of mmdet 2's call of a class, and what each is in the call on instances."""
    pairs = (name.partition("=") for name in names or ())
    return {name: place if said else PLACES.get(name, name) for name, said, place in pairs}


def has_tensors(assigner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is one of mmdet 2's: it begins with tensors, or has a name that is mmdet 2's alone."""
    table = places_of(assigner.mmdet2)
    return any(map(are_tensors, args[:2])) or any(name in table and table[name] != name for name in kwargs)


def are_tensors(value: Any) -> bool:
    """Whether this is a tensor or boxes, or a list of such, one for each level."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(isinstance(as_tensor(level), Tensor) for level in value)
    return isinstance(as_tensor(value), Tensor)


def fields_of_tensors(assigner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Sort the arguments of a call on tensors by what they are in the common form.

    Raises:
        AssignerInputError: one is missing, or there is no form with tensors.
        OptionError: there is no argument of a name.
    """
    table = places_of(assigner.mmdet2)
    if not table:
        assigner.fail("got tensors; mmdet 2 had no such class whose call they could be: give instances instead")
    order = [name for name, place in table.items() if place != "num_level_priors"]
    call = f"mmdet 2's call is assign({', '.join(table)})"
    if len(args) > len(order):
        assigner.fail(f"got {len(args)} arguments; {call}")
    check_names(type(assigner).__name__, kwargs, [*table, *BESIDES])
    given = dict(zip(order, args))
    twice = sorted(given.keys() & kwargs.keys())
    if twice:
        assigner.fail(f"got {twice[0]} by place and by name; {call}")
    given.update(kwargs)
    missing = [name for name in order if name not in given and name not in OPTIONAL]
    if missing:
        assigner.fail(f"{', '.join(missing)} missing; {call}")
    places = {**table, **dict(zip(BESIDES, BESIDES))}
    fields: dict[str, Any] = {place: None for place in table.values() if place.startswith(("pred_", "gt_instances."))}
    fields.update({places[name]: value for name, value in given.items() if places[name]})
    if hasattr(fields.get(REGIONS), "bboxes"):  # visdet's ATSSHead and GFLHead hand over instances in this place
        fields[REGIONS] = fields[REGIONS].bboxes
    return assigner.from_mmdet2(fields)


def stand_in_labels(assigner: Any, fields: dict[str, Any]) -> bool:
    """Give ground truths without labels a class each, where no scores are read; False where they have labels."""
    boxes = as_tensor(fields.get("gt_instances.bboxes"))
    given = fields.get(LABELS) is not None or fields.get("pred_instances.scores") is not None
    if given or not isinstance(boxes, Tensor) or boxes.ndim == 0:
        return False
    fields[LABELS] = torch.arange(len(boxes), device=boxes.device)
    return True


def without_labels(result: Any) -> Any:
    """A result without classes, as mmdet 2 gives it where there are none."""
    result.labels = None
    for name in result._extra_properties:
        if name.endswith("labels"):
            result._extra_properties[name] = None
    return result


def as_instances(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a call on instances, of values by argument or by field (``gt_instances.bboxes``)."""
    call: dict[str, Any] = {}
    for place, value in fields.items():
        owner, _, field = place.partition(".")
        if not field:
            call[owner] = value
        elif value is not None:
            vars(call.setdefault(owner, SimpleNamespace()))[field] = value
        elif owner != "gt_instances_ignore":
            call.setdefault(owner, SimpleNamespace())
    return call


def name_as_given(error: AssignerInputError, table: Mapping[str, str]) -> None:
    """Have an error name arguments of mmdet 2's call where it names fields of instances."""
    text, image = str(error), ""
    if error.image is not None:
        text, told, image = text.rpartition(" (image ")
        image = told + image
    for name, place in table.items():
        owner, _, field = place.partition(".")
        if field:
            text, told, lengths = text.replace(place, name).partition(f"{owner} has ")
            text += told + re.sub(rf"\b{field}\b", name, lengths)
            error.field = error.field.replace(place, name)
    error.args = (re.sub(r"(pred|gt)_instances has ", "the call has ", text) + image,)
