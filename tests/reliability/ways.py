"""The ways in which a rule is called: by its class on one image, on several or padded, and by its function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import visdet_assigners as va
from reliability.subjects import Scene, Subject
from visdet_assigners.assigners.region import inside_image
from visdet_assigners.assigners.scale_range import RANGES
from visdet_assigners.assignment import Assignment, to_assign_result


@dataclass(frozen=True)
class Way:
    """One way of calling a subject.

    Attributes:
        call: hands a scene over.
        who: what messages name.
        fields: what fields are called there, by what the faults call them in their patterns.
        without: numbers of the faults that can't be made there, or their letters.
        has_image: whether the image is named.
        warns: whether objects of no area are told; they are padding otherwise.
    """

    call: Callable[[Scene], Any]
    who: str
    fields: Mapping[str, str] = field(default_factory=dict)
    without: Sequence[str] = ()
    has_image: bool = True
    warns: bool = True

    def applies(self, number: str) -> bool:
        """Whether a fault can be made there."""
        return not {number[:1], number.rstrip("r")} & set(self.without)

    def pattern(self, names: str) -> str:
        """What messages must match, as the fields are called there."""
        for theirs, ours in self.fields.items():
            names = names.replace(theirs, ours)
        return names


def ways_of(subject: Subject) -> list[Way]:
    """All ways of calling a subject."""
    who = "ATSSAssigner" if subject.code == "SC" else subject.name  # whose turn it is
    ways = [Way(subject.assign, who), Way(subject.assign_batch, who)]
    if subject.code == "AS":
        ways.append(
            Way(lambda scene: padded(subject, scene), subject.name, PADDED, NOT_PADDED, has_image=False, warns=False)
        )
    if subject.code in FUNCTIONS:
        function, arguments = FUNCTIONS[subject.code]
        has_labels = "labels" in arguments
        without = (*NOT_BY_FUNCTION, *(() if has_labels else ("D",)), *(("E07",) if subject.code == "RE" else ()))
        call = by_function(subject, getattr(va, function), arguments)
        ways.append(Way(call, function, BY_FUNCTION, without, has_image=False))
    return ways


# ------------------------------------------------------------------------------------------------------ by a function

FUNCTIONS: dict[str, tuple[str, str]] = {
    "MI": ("max_iou", "priors gts thresholds"),
    "AT": ("atss", "priors gts level_sizes"),
    "TA": ("task_aligned", "priors gts labels boxes scores"),
    "SO": ("sim_ota", "points gts labels boxes scores"),
    "GR": ("grid", "priors gts flags thresholds"),
    "UN": ("uniform", "priors gts boxes limits"),
    "RE": ("region", "priors gts level_sizes cells"),
    "CR": ("center_region", "priors gts labels scales"),
    "PT": ("point", "points gts"),
    "DS": ("dynamic_soft_label", "points gts labels boxes logits"),
    "SR": ("scale_range", "priors gts level_sizes ranges"),
    "RK": ("ranking", "priors gts"),
    "HI": ("hierarchical", "priors gts"),
    "PO": ("poto", "points gts labels boxes scores"),
}
"""The function of each subject that has one, and what it is given."""
NOT_BY_FUNCTION = ("B10", "E20", "E21", "E22", "F", "G", "H")
"""Ignore regions, meta data, options of constructors, and what takes long are the classes' matter."""
BY_FUNCTION = {
    r"sum\(num_level_(priors|anchors)\)": r"sum\(level_sizes\)",
    r"gt_instances\.{truth}": "gts",
    r"gt_instances\.bboxes": "gts",
    r"gt_instances\.labels": "labels",
    "gt_instances has .*(6.*5|5.*6)": "there are 6 gts and 5 labels",
    "gt_instances": "gts",
    "{boxes}": "boxes",
    "(boxes|priors|scores|masks)": "(boxes|priors|points|scores|logits)",
    "(priors|boxes|masks)": "(priors|points|boxes)",
    r"(priors|approxs)\[": r"priors\[",
    r"priors\[{row}": r"(priors|points)\[{row}",
    r"scores\[": r"(scores|logits)\[",
    "scores must be": "(scores|logits) must be",
    "different lengths.*scores": "different lengths.*(scores|logits)",
}


def by_function(subject: Subject, function: Callable[..., Assignment], names: str) -> Callable[[Scene], Any]:
    """Call a function with what a scene holds, and give what the class would."""

    def call(scene: Scene) -> Any:
        pred, gt = scene.pred, scene.gt
        give = dict(
            priors=pred.get("priors"), points=pred.get("priors"), gts=gt.get("bboxes"), labels=gt.get("labels"),
            boxes=pred.get(subject.boxes or ""), scores=pred.get("scores"), logits=pred.get("scores"),
            level_sizes=list(scene.levels), flags=pred.get("responsible_flags"),
        )  # fmt: skip
        more = dict(
            thresholds=(0.5, 0.4, 0.0) if subject.code == "MI" else (0.5, 0.5), limits=(0.15, 0.7), scales=(0.3, 0.6),
            cells=(list(scene.feature_sizes), list(scene.strides), 8),
            ranges=(scene.options.get("regress_ranges", RANGES), [1.5 * stride for stride in scene.strides]),
        )  # fmt: skip
        arguments = [item for name in names.split() for item in (more[name] if name in more else (give[name],))]
        with scene.context():
            assignment = function(*arguments)
        if subject.code == "RE" and len(assignment.gt_index) and len(gt["labels"]):
            size = scene.meta["img_shape"]  # type: ignore[index]
            inside = inside_image(torch.as_tensor(getattr(pred["priors"], "tensor", pred["priors"])),
                                  pred["valid_flags"].bool(), size, 0)  # fmt: skip
            assignment = Assignment(assignment.gt_index.masked_fill(~inside, va.IGNORED))
        labels = gt["labels"].flatten().long() if len(gt["labels"]) else torch.zeros(0, dtype=torch.long)
        return to_assign_result(assignment, labels)

    return call


# ------------------------------------------------------------------------------------------------------------- padded

NOT_PADDED = ("A03", "D08", "E01", "E02", "E13", "G", "H")
"""An empty tensor of one dimension, no labels (which is allowed), and containers have no place in a padded tensor."""
PADDED = {
    r"gt_instances\.{truth}\[2": r"batch_gt_bboxes\[0, 2",
    r"gt_instances\.bboxes\[2": r"batch_gt_bboxes\[0, 2",
    r"gt_instances\.{truth}": "batch_gt_bboxes",
    r"gt_instances\.labels\[2": r"batch_gt_labels\[0, 2",
    r"gt_instances\.labels": "batch_gt_labels",
    "gt_instances has .*(6.*5|5.*6)": r"batch_gt_labels must have shape \(1, 6\).*\(1, 5\)",
    r"gt_instances_ignore(\.bboxes\[1, 2\]": r"batch_gt_bboxes_ignore(\[0, 1, 2\]",
    "gt_instances": "batch_gt_bboxes",
    r"(priors|approxs)\[{row}(, 0)?\]": r"batch_bboxes\[0, {row}\]",
    r"priors\[{row}, 0\]": r"batch_bboxes\[0, {row}, 0\]",
    r"\(6, ": r"\(1, 6, ",
}


def padded(subject: Subject, scene: Scene) -> Any:
    """A padded batch of one image, and what comes of it for that image."""
    pred, gt, ignore = scene.pred.get("priors"), scene.gt.get("bboxes"), scene.ignore
    labels, regions = scene.gt.get("labels"), None if ignore is None else ignore["bboxes"]
    batch = [value if value is None else value[None] for value in (pred, gt, regions, labels)]
    with scene.context():
        result = subject.build(**scene.options).assign(*batch)
    if not isinstance(getattr(result, "batch_pos_mask", None), Tensor):
        return result
    index = torch.where(result.batch_pos_mask > 0, result.batch_anchor_gt_indes, va.IGNORED)
    index = index.masked_fill(result.batch_neg_mask > 0, va.NEGATIVE)[0]
    return to_assign_result(Assignment(index, result.batch_max_overlaps[0]), scene.gt["labels"].flatten())
