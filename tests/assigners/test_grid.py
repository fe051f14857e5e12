"""What Grid promises of its own."""

import pytest

from assigners.cases import CASES
from scenes import drawn_objects
from visdet_assigners import (
    GridAssigner,
)

OBJECTS = drawn_objects()[2]


@pytest.mark.parametrize("threshold", [1, 1.0])
def test_grid_takes_whole_numbers_as_thresholds(threshold):
    pred = CASES["GridAssigner"].pred(OBJECTS)
    result = GridAssigner(0.5, threshold).assign(pred, OBJECTS.instances)
    assert (result.gt_inds >= 0).all()
