"""What Region promises of its own."""

import pytest

from assigners.cases import CASES
from scenes import drawn_objects
from visdet_assigners import (
    RegionAssigner,
)

OBJECTS = drawn_objects()[2]
META = dict(img_shape=OBJECTS.image)


def test_region_takes_no_ignore_regions():
    pred = CASES["RegionAssigner"].pred(OBJECTS)
    arguments = (pred, OBJECTS.instances, META, [(1, 1)], [len(pred)], 8, [8])
    with pytest.raises(NotImplementedError, match="defines no ignore regions"):
        RegionAssigner().assign(*arguments, OBJECTS.ignore)
    RegionAssigner().assign(*arguments, OBJECTS.ignore[:0])
