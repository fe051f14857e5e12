"""Predictions with a score behind the box, as in mmdet 2, are the same boxes; truths of five columns are refused."""

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
def test_a_fifth_column_of_predictions_changes_nothing(name):
    case = CASES[name]
    pred, gt = case.pred(SCENE), case.gt(SCENE)
    expected = case.assign(SCENE, pred, gt)
    for field in case.boxes:
        setattr(pred, field, scored(getattr(pred, field)))
    result = case.assign(SCENE, pred, gt)
    assert (expected.gt_inds > 0).any()
    assert torch.equal(result.gt_inds, expected.gt_inds)
    assert (result.max_overlaps is None) == (expected.max_overlaps is None)
    assert result.max_overlaps is None or torch.equal(result.max_overlaps, expected.max_overlaps)


@pytest.mark.parametrize("name", WITH_BOXES)
def test_a_fifth_column_of_ground_truths_is_refused(name):
    """It may be an angle: four of five columns are no box then."""
    case, gt = CASES[name], CASES[name].gt(SCENE)
    gt.bboxes = scored(gt.bboxes)
    with pytest.raises(ValueError, match=r"Assigner: gt_instances.bboxes must have shape \(n, 4\), got \(\d+, 5\)"):
        case.assign(SCENE, gt=gt)
