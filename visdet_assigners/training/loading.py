"""The steps of a pipeline that load annotations, whatever their types are written like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visdet_assigners.registry import scope_and_name, typed_nodes
from visdet_assigners.training.resolving import class_of, default_of

Step = tuple[str, Any, type]
"""Where a step stands in its pipeline, its config and its class."""


def loading_steps(dataset: Mapping[str, Any]) -> list[Step]:
    """Return the steps that load annotations: ``LoadAnnotations``, its relatives, also inside other steps."""
    return [(path, step, cls) for path, step in typed_nodes(dataset.get("pipeline"), "pipeline")
            if (cls := annotation_loader(step)) is not None]  # fmt: skip


def annotation_loader(step: Mapping[str, Any]) -> type | None:
    """Return the class of a step that loads annotations; None for another."""
    from mmcv.transforms import LoadAnnotations
    from mmdet.registry import TRANSFORMS

    cls = class_of(TRANSFORMS, step)
    return cls if cls is not None and issubclass(cls, LoadAnnotations) else None


def loads(step: Mapping[str, Any], what: str) -> bool:
    """Whether a step that loads annotations loads these: ``what`` is its option, such as ``with_mask``."""
    return bool(option(step, annotation_loader(step), what))


def image_loader(step: Mapping[str, Any]) -> bool:
    """Whether a step reads the image, so that later ones may load what fits it."""
    from mmcv.transforms import LoadImageFromFile
    from mmdet.registry import TRANSFORMS

    cls = class_of(TRANSFORMS, step)
    return (cls is not None and issubclass(cls, LoadImageFromFile)) or scope_and_name(step.get("type"))[1].startswith(
        ("LoadImage", "LoadMultiChannelImage")
    )


def option(node: Mapping[str, Any], cls: type | None, name: str) -> Any:
    """Return an option as it takes effect: what the config says, else the default of the constructor."""
    return node[name] if name in node else default_of(cls, name)
