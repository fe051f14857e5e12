"""Other packages' boxes: a package is loaded, and scenes are turned into the boxes that its calculators compare."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from mmdet.structures.bbox import get_box_type
from mmengine.structures import InstanceData
from torch import Tensor

from visdet_assigners.errors import UserError
from visdet_assigners.functional.boxes import xyxy_to_cxcywh
from visdet_assigners.registry import scope_and_name
from visdet_assigners.testing.scenes import Objects, anchors, generator, logits, points, predicted_boxes, proposals

COMPARED = {
    "RBboxOverlaps2D": ("rbox", "rbox"),
    "FakeRBboxOverlaps2D": ("rbox", "rbox"),
    "RBbox2HBboxOverlaps2D": ("rbox", "hbox"),
    "QBbox2HBboxOverlaps2D": ("qbox", "hbox"),
}
"""Of each calculator the box types of the ground truths and of the priors that its configs give it."""
NOTHING_OF_IT = ("torchvision",)
"""Packages that one detector imports and most need nothing of: empty modules will do."""


def load_package(name: str) -> ModuleType:
    """Import a package with its models, so that its parts are registered.

    Of what it imports, torchvision may be missing: mmrotate needs it in a single detector, and an empty module stands
    in for it.

    Raises:
        UserError: it isn't installed, or something that it needs isn't.
    """
    with stand_ins(), told(name):
        package = importlib.import_module(name)
        for part in ("models", "datasets"):
            if find_spec(f"{name}.{part}") is not None:
                importlib.import_module(f"{name}.{part}")
    return package


@contextmanager
def stand_ins() -> Iterator[None]:
    """Let empty modules stand in for `NOTHING_OF_IT` while something is imported, and for no longer."""
    added = []
    for missing in NOTHING_OF_IT:
        if missing not in sys.modules and find_spec(missing) is None:
            whole, part = ModuleType(missing), ModuleType(f"{missing}.transforms")
            whole.transforms = part  # type: ignore[attr-defined]
            added += [missing, part.__name__]
            sys.modules.update({missing: whole, part.__name__: part})
    try:
        yield
    finally:
        for name in added:
            sys.modules.pop(name, None)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Tell in one line that a package is missing, or something that it needs.

    Raises:
        UserError: it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"--package {name} can't be imported: {error}; install it") from error


def configs_of(package: ModuleType) -> Path:
    """The folder of a package's configs, as mim lays them.

    Raises:
        UserError: there is none.
    """
    folder = Path(str(package.__file__)).parent / ".mim" / "configs"
    if not folder.is_dir():
        raise UserError(f"{package.__name__} has no configs in {folder}; give --configs")
    return folder


# ------------------------------------------------------------------------------------------------------------ boxes


def turned(boxes: Tensor, kind: str, seed: int | None) -> Any:
    """Boxes (N, 4) xyxy in a box type of the package that is loaded.

    Args:
        boxes: of a scene.
        kind: "hbox" leaves them as they are; "rbox" turns each by an angle of its own; "qbox" has their corners.
        seed: of the angles; None doesn't turn.
    """
    if kind == "hbox":
        return get_box_type(kind)[1](boxes)
    angles = torch.zeros(len(boxes), 1)
    if seed is not None:
        angles = (torch.rand(len(boxes), 1, generator=generator(seed)) - 0.5) * torch.pi
    rows = torch.cat([xyxy_to_cxcywh(boxes), angles], dim=1)
    return get_box_type("rbox")[1](rows).convert_to(kind)


def turned_truths(objects: Objects, kind: str) -> InstanceData:
    """The ground truths of a scene in a box type."""
    return InstanceData(bboxes=turned(objects.boxes, kind, seed=21), labels=objects.labels)


# ------------------------------------------------------------------------------------------------------------ calls


def turned_feeds(config: Mapping[str, Any], calculator: Any, objects: Objects) -> Iterator[tuple[Any, ...]]:
    """Make the arguments of ``assign`` for an assigner of another package's configs, as its heads hand them over.

    Args:
        config: of the assigner, with its ``type`` and ``iou_calculator``.
        calculator: the latter, built.
        objects: the scene; may be without objects.

    Raises:
        KeyError: an assigner or a calculator that no scene is known for.
    """
    name = scope_and_name(config["type"])[1]
    yield from _FEEDS[name](calculator, objects, *COMPARED[type(calculator).__name__])


def _max_iou(calculator: Any, objects: Objects, of_truths: str, of_priors: str) -> Iterator[tuple[Any, ...]]:
    on_grid = anchors(objects, ratios=(0.5, 1.0, 2.0))[0]
    for priors in (turned(on_grid, of_priors, None), turned(proposals(objects, 300, seed=5), of_priors, 22)):
        gt = turned_truths(objects, of_truths)
        if len(gt):  # ours is meant to differ for objects that overlap no prior
            gt = gt[calculator(gt.bboxes, priors).amax(dim=1) > 0]
        regions = InstanceData(bboxes=turned(objects.crowds, of_truths, seed=23)) if len(gt) else None
        yield InstanceData(priors=priors), gt, regions


def _atss(calculator: Any, objects: Objects, of_truths: str, of_priors: str) -> Iterator[tuple[Any, ...]]:
    priors, sizes = anchors(objects)
    for angle in (None, 24):
        pred = InstanceData(priors=turned(priors, of_priors, angle))
        yield pred, sizes, turned_truths(objects, of_truths)


def _dynamic_soft_label(calculator: Any, objects: Objects, of_truths: str, of_priors: str) -> Iterator[tuple[Any, ...]]:
    priors = points(objects)
    reach = 2 * priors[:, 2:]
    boxes = torch.cat([priors[:, :2] - reach, priors[:, :2] + reach], dim=1)
    rows = turned(predicted_boxes(boxes, objects, seed=1), of_priors, seed=25).tensor
    pred = InstanceData(priors=priors, bboxes=rows, scores=logits(len(priors), objects, seed=2))
    yield pred, turned_truths(objects, of_truths)


_FEEDS = {
    "DynamicSoftLabelAssigner": _dynamic_soft_label,
    "MaxIoUAssigner": _max_iou,
    "RotatedATSSAssigner": _atss,
}
