"""Scenes that the tests assign: those of the package, and the boxes of real data sets where these are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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


def real_objects(limit: int = 40) -> Iterator[Objects]:
    """Images of the two data sets, from the emptiest to the fullest of each; none where the data are not there."""
    if not DATA.is_dir():
        return
    for file in ("bccd/annotations/val.json", "tiny_coco/annotations/instances_val2017.json"):
        for objects in coco_objects(DATA / file, limit // 2):
            yield replace(objects, name=f"{file.split('/')[0]}-{objects.name}")
