"""Every registered assigner with inputs, made from what its class says that it reads."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from visdet_assigners.assigners import BaseAssigner
from visdet_assigners.assigners.calling import to_device
from visdet_assigners.assigners.dense import DenseAssigner
from visdet_assigners.functional.validity import POINTS, Kind
from visdet_assigners.registry import REGISTERED
from visdet_assigners.testing.benchmarks import SCENES
from visdet_assigners.testing.feeds import ground_truths, meta, queries
from visdet_assigners.testing.gpu.outcomes import SkippedError
from visdet_assigners.testing.scenes import (
    STRIDES,
    Objects,
    anchors,
    draw_boxes,
    feature_sizes,
    generator,
    logits,
    points,
    predicted_boxes,
)

REQUIRED = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "pos_ignore_thr": 0.15, "neg_ignore_thr": 0.7, "topk": 4}
"""Options without a default, by name."""
DEVICE_PATH = "VISDET_ASSIGNERS_DEVICE_PATH"


@contextmanager
def working_on(device: torch.device) -> Iterator[None]:
    """Take the way of a device, which a CPU takes where the environment says so."""
    before = os.environ.get(DEVICE_PATH)
    os.environ[DEVICE_PATH] = "1" if device.type == "cpu" else "0"
    try:
        yield
    finally:
        os.environ.pop(DEVICE_PATH)
        if before is not None:
            os.environ[DEVICE_PATH] = before


def scene(count: int, seed: int = 0, kind: str = "mixed") -> Objects:
    """A small scene of just so many objects, at most, without ties."""
    image = (240, 320)
    boxes = draw_boxes(2 * count + 10, image, kind, seed)[:count]
    labels = torch.randint(8, (len(boxes),), generator=generator(seed + 1))
    return Objects(f"{kind}-{count}", boxes, labels, draw_boxes(3, image, "mixed", seed + 2), image)


@dataclass(frozen=True)
class Call:
    """The inputs of one image."""

    pred: Any
    gt: Any
    ignore: Any
    meta: Mapping[str, Any]
    shared: Mapping[str, Any]

    def on(self, device: torch.device | str) -> Call:
        """The same on a device."""
        return Call(to_device(self.pred, device), to_device(self.gt, device), to_device(self.ignore, device),
                    self.meta, self.shared)  # fmt: skip

    def cast(self, dtype: torch.dtype) -> Call:
        """The same with predictions and boxes in another precision."""

        def narrow(instances: Any) -> Any:
            fields = {name: getattr(instances, name) for name in fields_of_instances(instances)}
            return SimpleNamespace(
                **{name: each.to(dtype) if each.is_floating_point() else each for name, each in fields.items()}
            )

        ignore = None if self.ignore is None else narrow(self.ignore)
        return Call(narrow(self.pred), narrow(self.gt), ignore, self.meta, self.shared)


def fields_of_instances(instances: Any) -> list[str]:
    """Names of the tensors that instances hold."""
    return list(instances.keys()) if hasattr(instances, "keys") else list(vars(instances))


@dataclass(frozen=True)
class Case:
    """An assigner and how it is called.

    Attributes:
        name: of the case.
        cls: of the assigner.
        options: of the class.
    """

    name: str
    cls: type[BaseAssigner]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dense(self) -> bool:
        """Whether it decides about each prior, without the host."""
        return issubclass(self.cls, DenseAssigner)

    def build(self, **more: Any) -> Any:
        """The assigner.

        Raises:
            SkippedError: it has an option without a default that isn't known here.
        """
        options = dict(self.options)
        for name, parameter in inspect.signature(self.cls).parameters.items():
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
                if name not in {**REQUIRED, **options}:
                    raise SkippedError(f"{self.cls.__name__} needs {name}; give it in testing/gpu/cases.py")
                options.setdefault(name, REQUIRED.get(name))
        return self.cls(**{**options, **more})

    def call(self, objects: Objects) -> Call:
        """The inputs for a scene, on the CPU."""
        assigner, gt = self.build(), ground_truths(objects)
        if not isinstance(assigner, DenseAssigner):
            pred = queries(objects)
            if self.cls.reads.get("scores") == "probabilities":
                pred.scores = pred.scores.sigmoid()
            return Call(pred, gt, None, meta(objects), {})
        pred, sizes = predictions(self.cls.reads_of(assigner), objects)
        ignore = objects.ignore if assigner.uses_regions() else None
        shared: dict[str, Any] = {} if assigner.levels == "unused" else {"num_level_priors": sizes}
        if "featmap_sizes" in inspect.signature(assigner.assign).parameters:
            shared = dict(featmap_sizes=feature_sizes(objects.image, STRIDES), num_level_anchors=sizes)
            shared |= dict(anchor_scale=8, anchor_strides=STRIDES)
        del gt.masks  # assigners of points read them where they are there
        return Call(pred, gt, ignore, meta(objects), shared)


def predictions(reads: Mapping[str, Kind], objects: Objects) -> tuple[Any, list[int]]:
    """Fields of the kinds that an assigner reads, and the sizes of the levels."""
    first = next(iter(reads.values()))
    if first in POINTS:
        priors = points(objects)
        sizes = [height * width for height, width in feature_sizes(objects.image, [8, 16, 32])]
        boxes = torch.cat([priors[:, :2] - 2 * priors[:, 2:], priors[:, :2] + 2 * priors[:, 2:]], dim=1)
    else:
        priors, sizes = anchors(objects)
        boxes = priors
    makers = {
        "groups": lambda: torch.stack([boxes, boxes + torch.tensor([-3.0, -5.0, 4.0, 2.0])], dim=1),
        "predicted": lambda: predicted_boxes(boxes, objects, seed=1),
        "scores": lambda: logits(len(boxes), objects, seed=2),
        "probabilities": lambda: logits(len(boxes), objects, seed=2).sigmoid(),
        "flags": lambda: torch.rand(len(boxes), generator=generator(4)) < 0.5,
    }
    fields = {name: makers.get(kind, lambda: priors)() for name, kind in reads.items()}
    return SimpleNamespace(**fields), sizes


def cases() -> list[Case]:
    """The settings of the benchmark's detectors, one with ignore regions, and every other registered assigner."""
    found = []
    for each in SCENES.values():
        options = {name: value for name, value in each.config.items() if name != "type"}
        found.append(Case(each.name, REGISTERED[each.config["type"]], options))
    rpn = next(case for case in found if case.name == "RPN")
    found.append(Case("RPN with ignore regions", rpn.cls, {**rpn.options, "ignore_iof_thr": 0.5}))
    known = {case.cls for case in found}
    for name, cls in sorted(REGISTERED.items()):
        if not issubclass(cls, BaseAssigner) or inspect.isabstract(cls) or cls in known:
            continue
        if "assigners" not in inspect.signature(cls).parameters:  # one that hands on to others is as they are
            found.append(Case(name, cls))
    return found


def assign(assigner: Any, call: Call) -> Any:
    """Assign one image."""
    if "pred_scores" in inspect.signature(assigner.assign).parameters:  # tensors, as mmdet's TopkHungarian takes them
        return assigner.assign(call.pred.scores, call.pred.bboxes, call.gt.bboxes, call.gt.labels, call.meta)
    return assigner.assign(
        pred_instances=call.pred, gt_instances=call.gt, gt_instances_ignore=call.ignore, img_meta=call.meta,
        **call.shared,
    )  # fmt: skip


def assign_batch(assigner: Any, calls: list[Call]) -> list[Any]:
    """Assign several images at once."""
    lists = ([getattr(call, name) for call in calls] for name in ("pred", "gt", "ignore", "meta"))
    return assigner.assign_batch(*lists, **calls[0].shared)


def tensors_of(result: Any) -> dict[str, Tensor]:
    """All tensors of a result, by name, on the CPU."""
    found = {**vars(result), **result.info}
    return {name: value.detach().cpu() for name, value in found.items() if isinstance(value, Tensor)}
