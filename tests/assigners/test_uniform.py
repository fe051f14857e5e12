"""What Uniform promises of its own."""

from assigners.cases import CASES
from scenes import drawn_objects
from visdet_assigners import (
    UniformAssigner,
)

OBJECTS = drawn_objects()[2]


def test_predictions_of_uniform_keep_their_gradient():
    """YOLOF's box loss reads the predicted boxes from the result."""
    pred = CASES["UniformAssigner"].pred(OBJECTS)
    pred.decoder_priors.requires_grad_()
    result = UniformAssigner(0.15, 0.7).assign(pred, OBJECTS.instances)
    result.get_extra_property("pos_predicted_boxes").sum().backward()
    assert pred.decoder_priors.grad.abs().sum() > 0
    assert not result.max_overlaps.requires_grad


def test_uniform_takes_more_times_than_there_are_anchors():
    pred = CASES["UniformAssigner"].pred(OBJECTS)[:3]
    result = UniformAssigner(0.0, 0.7, match_times=9).assign(pred, OBJECTS.instances)
    assert (result.gt_inds > 0).all()
    assert len(result.get_extra_property("pos_idx")) == 2 * 3 * len(OBJECTS.boxes)
