"""Boxes with a score behind them, as proposals have it in mmdet 2, are the same boxes."""

import pytest
import torch
from torch import Tensor

from assigners.cases import CASES, as_mask_tensors, with_meta
from scenes import drawn_objects

# One-to-one matching reads boxes through its costs alone.
WITH_BOXES = [name for name, case in CASES.items() if case.call not in (with_meta, as_mask_tensors)]
SCENE = max(drawn_objects(), key=lambda objects: (objects.name == "mixed", len(objects.boxes)))


def scored(boxes: Tensor) -> Tensor:
    """Boxes with a fifth column that no box could have."""
    return torch.cat([boxes, boxes.new_full((len(boxes), 1), 1e4)], dim=1)


@pytest.mark.parametrize("name", WITH_BOXES)
@pytest.mark.parametrize("which", ["ground truths", "predictions"])
def test_a_fifth_column_changes_nothing(name, which):
    case = CASES[name]
    pred, gt = case.pred(SCENE), case.gt(SCENE)
    expected = case.assign(SCENE, pred, gt)
    if which == "ground truths":
        gt.bboxes = scored(gt.bboxes)
    for field in case.boxes if which == "predictions" else ():
        setattr(pred, field, scored(getattr(pred, field)))
    result = case.assign(SCENE, pred, gt)
    assert (expected.gt_inds > 0).any()
    assert torch.equal(result.gt_inds, expected.gt_inds)
    assert (result.max_overlaps is None) == (expected.max_overlaps is None)
    assert result.max_overlaps is None or torch.equal(result.max_overlaps, expected.max_overlaps)
