"""Scenes that the tests assign: those of the package, and the boxes of real data sets where these are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from visdet_assigners.testing.scenes import (  # noqa: F401  (the tests take all scenes from here)
    STRIDES,
    Objects,
    anchors,
    coco_objects,
    draw_boxes,
    drawn_objects,
    feature_sizes,
    logits,
    points,
    predicted_boxes,
    proposals,
)

DATA = Path(os.environ.get("VISDET_ASSIGNERS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def needs(name: str) -> pytest.MarkDecorator:
    """Skip, loudly, where a real data set is not there: ``bccd``, ``nuclei`` or ``tiny_coco``."""
    reason = f"NO REAL DATA: {DATA / name} is not there; set VISDET_ASSIGNERS_TEST_DATA to the folder that has {name}"
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=reason)


def real_objects(limit: int = 40) -> Iterator[Objects]:
    """Images of two data sets, from the emptiest to the fullest of each; none of one that is not there."""
    for file in ("bccd/annotations/val.json", "tiny_coco/annotations/instances_val2017.json"):
        name = file.split("/")[0]
        for objects in coco_objects(DATA / file, limit // 2) if (DATA / name).is_dir() else ():
            yield replace(objects, name=f"{name}-{objects.name}")
