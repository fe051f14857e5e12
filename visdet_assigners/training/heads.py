"""What the heads of a config's model expect of the data, read from the config; no model is built.

mmdet compares the classes of heads and data in ``NumClassCheckHook`` alone, which hardly any of its configs has, which
looks once an epoch, at what a built module calls ``num_classes``, and refuses what may differ (RPNs below auxiliary
branches, text-prompted heads).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from visdet_assigners.errors import Problem
from visdet_assigners.registry import typed_nodes
from visdet_assigners.training.classes import Classes
from visdet_assigners.training.loading import loading_steps, loads, option
from visdet_assigners.training.resolving import class_of, closest, default_of, is_a

OF_OTHER_CLASSES = (
    "backbone", "neck", "rpn_head", "rpn", "semantic_head", "reid", "language_model", "data_preprocessor", "init_cfg",
    "train_cfg", "test_cfg",
)  # fmt: skip
"""Parts of a model whose ``num_classes`` are not the data's: one class, none, those of another task or of stuff."""
KNOWN = {
    "config": (
        "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "val_cfg", "test_cfg", "optim_wrapper",
        "param_scheduler", "val_evaluator", "test_evaluator", "default_hooks", "custom_hooks", "data_preprocessor",
        "log_processor", "visualizer", "default_scope", "randomness", "auto_scale_lr", "custom_imports", "load_from",
        "model_wrapper_cfg", "find_unused_parameters", "experiment_name",
    ),
    "train_cfg": (
        "assigner", "sampler", "allowed_border", "pos_weight", "debug", "rpn", "rpn_proposal", "rcnn", "alpha", "beta",
        "gamma", "center_ratio", "ignore_ratio", "ga_assigner", "ga_sampler", "reg_assigner", "initial_assigner",
        "initial_epoch", "num_points", "oversample_ratio", "importance_sample_ratio", "init", "refine", "neg_pos_ratio",
        "smoothl1_beta", "carl", "isr", "mask_size", "mask_thr_binary", "max_num_grid", "pos_radius", "dynamic_rcnn",
        "nms", "nms_pre", "nms_post", "max_per_img", "min_bbox_size", "score_thr", "iou_threshold", "type", "bias", "k",
        "num_dn_queries", "topk",
    ),
    "metainfo": ("classes", "palette", "thing_classes", "stuff_classes"),
    "filter_cfg": ("filter_empty_gt", "min_size", "bbox_min_size"),
}  # fmt: skip
"""What mmdet and this package read in parts of a config that no constructor checks."""
LONG = 9
"""Letters from which on a name of a config is no other one's neighbour by chance."""
COUNTS = ("num_classes", "num_things_classes", "num_stuff_classes")
BOTH = "num_things_classes + num_stuff_classes"


@dataclass(frozen=True)
class Count:
    """A number of classes in a model.

    Attributes:
        path: in the config.
        number: as it takes effect.
        of: what it counts, of `COUNTS`.
        is_default: whether the config doesn't say it.
    """

    path: str
    number: int
    of: str
    is_default: bool = False


def is_text_prompted(model: Any) -> bool:
    """Whether the classes are given as a text, so that no head has a number of them."""
    return any(isinstance(node.get("language_model"), Mapping) for _, node in typed_nodes(model, ""))


def class_counts(model: Any, path: str = "model") -> Iterator[Count]:
    """Yield the numbers of classes that must be the data's: of every head, auxiliary branch and loss."""
    from mmdet.registry import MODELS

    if isinstance(model, (list, tuple)):
        for index, one in enumerate(model):
            yield from class_counts(one, f"{path}.{index}")
    if not isinstance(model, Mapping):
        return
    if "type" in model:
        yield from _counts_of(model, class_of(MODELS, model), path)
    for key in model:
        of_task = key == "head" and "aux_branches" not in path  # that of a classifier
        things = key == "semantic_head" and "num_things_classes" in (model[key] or ())
        if (key not in OF_OTHER_CLASSES or things) and not of_task:
            yield from class_counts(model[key], f"{path}.{key}")


def _counts_of(node: Mapping[str, Any], cls: type | None, path: str) -> Iterator[Count]:
    keys = [key for key in re.split(r"\.", path) if not key.isdigit()]
    is_head = keys[-1].endswith("head")
    if not (is_head or any(re.search("head|loss|aux_branches", key) for key in keys)):
        return
    if is_a(cls, "FusedSemanticHead") or node.get("class_agnostic"):
        return
    panoptic = "num_things_classes" in node
    for key in COUNTS:
        value = node.get(key)
        inherits = "aux_branches" in keys and key == "num_classes"
        default = default_of(cls, key) if is_head and value is None and not inherits and not panoptic else None
        number = default if value is None else value
        if isinstance(number, int):
            yield Count(f"{path}.{key}", number, key, value is None)
    if panoptic:
        yield Count(f"{path}.{BOTH}", sum(node.get(key) or 0 for key in COUNTS[1:]), BOTH)


def class_count_problems(model: Any, path: str, classes: Classes) -> list[Problem]:
    """Compare the numbers of classes in a model with those of a data set.

    Args:
        model: its config.
        path: of the data set.
        classes: its own.
    """
    if is_text_prompted(model):
        return []
    wrong: dict[tuple[int, int, bool], list[str]] = defaultdict(list)
    for count in class_counts(model):
        expected = _expected(count, classes)
        if expected is not None and count.number != expected:
            wrong[count.number, expected, count.is_default].append(count.path)
    problems = []
    for (number, expected, is_default), paths in wrong.items():
        what = f"is {number}{', by default' if is_default else ''}, but {path} has {classes}"
        if classes.things is not None:
            what += f", {classes.things} things and {classes.stuff} stuff"
        others = f", and likewise {', '.join(paths[1:])}" if paths[1:] else ""
        problems.append(Problem("", f"{paths[0]} {what}; set it to {expected}{others}"))
    return problems + _weight_problems(model)


def _expected(count: Count, classes: Classes) -> int | None:
    """The number that a count should be; None where it can't be told."""
    if count.of == "num_stuff_classes":
        return classes.stuff
    if count.of == BOTH:
        return len(classes.names) if classes.panoptic and classes.things is None else None
    return classes.things if classes.panoptic else len(classes.names)


def _weight_problems(model: Any) -> list[Problem]:
    """Class weights of mask classification: one for each class, and one for the background."""
    problems = []
    for path, node in typed_nodes(model, "model"):
        weights = (node.get("loss_cls") or {}).get("class_weight") if "num_things_classes" in node else None
        expected = 1 + sum(node.get(key) or 0 for key in ("num_things_classes", "num_stuff_classes"))
        if isinstance(weights, (list, tuple)) and len(weights) != expected:
            problems.append(Problem(f"{path}.loss_cls.class_weight", f"it has {len(weights)} numbers and needs "
                                    f"{expected}, one for each class and the last for the background"))  # fmt: skip
    return problems


# ---------------------------------------------------------------------------------------------------------- samplers

KEEP_PRIORS = ("AnchorHead", "RepPointsHead", "YOLOV3Head", "StageCascadeRPNHead", "CascadeRPNHead", "MaskFormerHead")
"""Heads that sample their priors by number, so that none may be added; others have no sampler, or take proposals."""


def sampler_problems(model: Any, path: str = "model") -> list[Problem]:
    """Find samplers that add the ground truths to the priors of a head whose targets lie in the order of its priors."""
    from mmdet.registry import MODELS, TASK_UTILS

    if isinstance(model, (list, tuple)):
        return [found for index, one in enumerate(model) for found in sampler_problems(one, f"{path}.{index}")]
    if not isinstance(model, Mapping):
        return []
    found: list[Problem] = []
    train_cfg = model.get("train_cfg")
    heads: tuple[str, ...]
    where, part, heads = f"{path}.train_cfg", train_cfg, ("bbox_head", "mask_head", "panoptic_head")
    if isinstance(train_cfg, Mapping) and model.get("rpn_head") is not None:
        where, part, heads = f"{path}.train_cfg.rpn", train_cfg.get("rpn"), ("rpn_head",)
    asked = [model, *(model.get(key) for key in heads)]  # a head, or a detector that hands its train_cfg to one
    if any(is_a(class_of(MODELS, one), *KEEP_PRIORS) for one in asked):
        for place, sampler in _samplers(part, where):
            cls = class_of(TASK_UTILS, sampler)
            if not is_a(cls, "PseudoSampler", "MaskPseudoSampler") and option(sampler, cls, "add_gt_as_proposals"):
                how = "" if "add_gt_as_proposals" in sampler else ", its default"
                found.append(Problem(place, f"{getattr(cls, '__name__', 'it')} puts the ground truths before the "
                    f"priors (add_gt_as_proposals=True{how}), which shifts the targets of a head that assigns "
                    "priors, or ends in an IndexError; set add_gt_as_proposals=False"))  # fmt: skip
    for key in model:
        if key not in ("train_cfg", "test_cfg"):
            found += sampler_problems(model[key], f"{path}.{key}")
    return found


def _samplers(part: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the samplers of a part of a ``train_cfg``, also those of its stages; not those inside other samplers."""
    if isinstance(part, (list, tuple)):
        for index, one in enumerate(part):
            yield from _samplers(one, f"{path}.{index}")
    elif isinstance(part, Mapping):
        for key in part:
            value = part[key]
            if re.search("sampler$", key) and isinstance(value, Mapping):
                yield f"{path}.{key}", value
            elif key in ("init", "refine"):
                yield from _samplers(value, f"{path}.{key}")


# ------------------------------------------------------------------------------------------------------------- masks


def mask_problems(model: Any, dataset: Mapping[str, Any], path: str) -> list[Problem]:
    """Find masks or segmentation maps that a head learns from and the pipeline of a data set doesn't load.

    Args:
        model: config of the model.
        dataset: config of one data set to train on that reads files.
        path: its own.
    """
    steps = loading_steps(dataset)
    problems = []
    for key, head, what in (
        ("with_mask", next(_mask_heads(model), None), "masks"),
        ("with_seg", next(_segmentation_heads(model), None), "a segmentation map"),
    ):
        if head and steps and not any(loads(step, key) for _, step, _ in steps):
            where, _, cls = steps[0]
            problems.append(Problem(f"{path}.{where}", f"{cls.__name__} loads no {what.removeprefix('a ')}, from which "
                                    f"{head} learns; set {key}=True"))  # fmt: skip
        elif head and steps and key == "with_seg" and not (dataset.get("data_prefix") or {}).get("seg"):
            problems.append(Problem(f"{path}.data_prefix", f"it has no seg, the folder of the segmentation maps from "
                                    f"which {head} learns"))  # fmt: skip
    return problems


def _mask_heads(model: Any) -> Iterator[str]:
    """Yield the paths of the heads that learn from masks."""
    from mmdet.registry import MODELS

    for path, node in typed_nodes(model, "model"):
        key = re.sub(r"(\.\d+)+$", "", path).rpartition(".")[2]
        cls = class_of(MODELS, node) if key.endswith("head") else None
        by_boxes = is_a(cls, "BoxInstMaskHead")
        by_name = key in ("mask_head", "panoptic_head") and not by_boxes
        if by_name or is_a(cls, "RTMDetInsHead", "MaskFormerHead", "Mask2FormerTrackHead"):
            yield path


def _segmentation_heads(model: Any) -> Iterator[str]:
    """Yield the paths of the heads that learn from a segmentation map."""
    for path, node in typed_nodes(model, "model"):
        key = path.rpartition(".")[2]
        if key == "semantic_head" or (key == "panoptic_head" and node.get("num_stuff_classes")):
            yield path


# ------------------------------------------------------------------------------------------------------ misspelt keys


def misspelt_keys(value: Any, path: str, part: str) -> Iterator[Problem]:
    """Yield the keys of a part of a config that nobody reads, where it is certain which one is meant.

    Args:
        value: a ``train_cfg`` and such, or a list of them.
        path: its own.
        part: a key of `KNOWN`.
    """
    if isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from misspelt_keys(one, f"{path}.{index}", part)
    elif isinstance(value, Mapping):
        for key in value:
            meant = None if key in KNOWN[part] else closest(str(key), KNOWN[part])
            if meant and (part != "config" or len(key) >= LONG):  # there, variables have names, too
                yield Problem(path, f"nothing reads {key}; did you mean {meant}?")
            elif part == "train_cfg" and isinstance(value[key], (Mapping, list)) and "type" not in value[key]:
                yield from misspelt_keys(value[key], f"{path}.{key}", part)


def train_cfgs(model: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every ``train_cfg`` of a model with its path."""
    if isinstance(model, Mapping):
        for key in model:
            if key == "train_cfg":
                yield f"{path}.{key}", model[key]
            else:
                yield from train_cfgs(model[key], f"{path}.{key}")
    elif isinstance(model, (list, tuple)):
        for index, one in enumerate(model):
            yield from train_cfgs(one, f"{path}.{index}")
