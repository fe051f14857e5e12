"""Boxes from a point: there and back, the same as mmdet's coder but for the exponential, never inverted."""

import pytest
import torch
from mmdet.models.losses import GIoULoss
from mmdet.registry import TASK_UTILS

from visdet_assigners.heads import PointBBoxCoder

ANCHORS = torch.tensor([[0.0, 0.0, 32.0, 16.0], [10.0, 20.0, 50.0, 60.0]])
OBJECTS = torch.tensor([[1.0, 2.0, 40.0, 12.0], [29.0, 30.0, 31.0, 90.0]])


def test_there_and_back():
    coder = TASK_UTILS.build(dict(type="visdet_assigners.PointBBoxCoder"))
    torch.testing.assert_close(coder.decode(ANCHORS, coder.encode(ANCHORS, OBJECTS)), OBJECTS)
    theirs = TASK_UTILS.build(dict(type="TBLRBBoxCoder", normalizer=0.5))
    torch.testing.assert_close(coder.encode(ANCHORS, OBJECTS).exp(), theirs.encode(ANCHORS, OBJECTS))


def test_a_border_on_the_wrong_side_is_at_the_centre():
    coder = PointBBoxCoder()
    outside = torch.tensor([[20.0, 4.0, 30.0, 12.0]])  # the centre of the first anchor is at 16, 8
    boxes = coder.decode(ANCHORS[:1], coder.encode(ANCHORS[:1], outside))
    torch.testing.assert_close(boxes, torch.tensor([[16.0, 4.0, 30.0, 12.0]]), atol=1e-4, rtol=0)


def test_boxes_are_clipped_at_the_border_of_the_image():
    coder = PointBBoxCoder()
    assert coder.decode(ANCHORS, torch.full((2, 4), 9.0), max_shape=(48, 64)).tolist() == [[0, 0, 64, 48]] * 2


@pytest.mark.parametrize(("kind", "bounded"), [("visdet_assigners.PointBBoxCoder", True), ("TBLRBBoxCoder", False)])
def test_the_loss_has_a_lower_bound(kind, bounded):
    """What the coder is for: negative distances make mmdet's GIoU loss fall without end."""
    coder = TASK_UTILS.build(dict(type=kind, normalizer=0.5))
    predicted = torch.tensor([[-30.0, -3.0, -29.0, -2.0]])  # upside down and inside out
    loss = GIoULoss()(coder.decode(ANCHORS[:1], predicted), OBJECTS[:1])
    assert (loss >= 0) == bounded
