"""What Approx promises of its own."""

import pytest

from assigners.cases import CASES
from scenes import drawn_objects
from visdet_assigners import (
    ApproxMaxIoUAssigner,
)

OBJECTS = drawn_objects()[2]


def test_approxs_of_the_wrong_shape_are_named():
    pred = CASES["ApproxMaxIoUAssigner"].pred(OBJECTS)
    pred.approxs = pred.approxs.flatten(1)
    with pytest.raises(ValueError, match=r"approxs must have shape \(n, A, 4\)"):
        ApproxMaxIoUAssigner(0.5, 0.4).assign(pred, OBJECTS.instances)
