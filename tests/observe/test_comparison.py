"""Two assigners on the same priors: counts and pictures of where they differ."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn

from visdet_assigners import ATSSAssigner, MaxIoUAssigner
from visdet_assigners.assignment import IGNORED, NEGATIVE
from visdet_assigners.observe.comparison import KINDS, Agreement, ask_too, draw_difference, same_priors
from visdet_assigners.observe.draw import render
from visdet_assigners.observe.records import AssignmentRecord, as_record
from visdet_assigners.observe.tap import watch

CENTERS = torch.tensor([[x * 16.0 + 8, y * 16.0 + 8] for y in range(4) for x in range(6)])
PRIORS = torch.cat([CENTERS - 16, CENTERS + 16], dim=1)
BOXES = torch.tensor([[10.0, 10.0, 40.0, 42.0], [56.0, 20.0, 90.0, 60.0]])


def make_record(positives, assigner="First"):
    gt_index = torch.full((len(PRIORS),), NEGATIVE)
    for prior, number in positives.items():
        gt_index[prior] = number
    return AssignmentRecord("head", "assigner", assigner, 0, gt_index, BOXES, torch.zeros(2).long(), priors=PRIORS)


def test_agreement_counts():
    first = torch.tensor([0, 0, NEGATIVE, 1, IGNORED, 1])
    second = torch.tensor([0, IGNORED, 1, 0, NEGATIVE, 1])
    agreement = Agreement.of(first, second)
    assert agreement == Agreement(agree=2, only_first=1, only_second=1, another_object=1)
    assert agreement.share == pytest.approx(0.4)
    assert (agreement + agreement).agree == 4
    assert Agreement().share == 1
    pairs = torch.tensor([[0, 1], [NEGATIVE, 1]])
    assert Agreement.of(pairs, pairs) == Agreement(agree=3)


def test_each_kind_has_its_dot_where_the_prior_is():
    first, second = make_record({0: 0, 7: 0, 9: 1}), make_record({0: 0, 16: 1, 9: 0}, "Second")
    figure = draw_difference(np.full((64, 96, 3), 255, np.uint8), first, second)
    pixels = render(figure)
    (axes,) = [axes for axes in figure.axes if axes.images]
    assert "agree on 25% of 4 positives" in figure.get_suptitle()
    colors = [tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in KINDS.values()]
    for prior, color in ((7, colors[1]), (16, colors[2]), (9, colors[3])):
        column, up = axes.transData.transform(CENTERS[prior].tolist())
        assert np.abs(pixels[int(len(pixels) - up), int(column)].astype(int) - color).max() < 12
    column, up = axes.transData.transform(CENTERS[20].tolist())
    assert pixels[int(len(pixels) - up), int(column)].min() > 240


def test_other_priors_are_not_drawn():
    first = make_record({0: 0})
    other = replace(first, priors=PRIORS + 1)
    assert not same_priors(first, other)
    with pytest.raises(ValueError, match="different priors"):
        draw_difference(np.zeros((64, 96, 3), np.uint8), first, other)


@pytest.mark.parametrize("level_sizes", [[24], None])
def test_another_assigner_is_asked_about_the_same_priors(level_sizes):
    head = nn.Module()
    head.assigner = MaxIoUAssigner(0.3, 0.3)
    answers = []
    arguments = {} if level_sizes is None else {"num_level_priors": level_sizes}
    with watch(head, lambda call: answers.append((as_record(call), ask_too(ATSSAssigner(topk=3), call)))):
        head.assigner.assign(
            InstanceData(priors=PRIORS), InstanceData(bboxes=BOXES, labels=torch.tensor([0, 1])), **arguments
        )
    ((first, second),) = answers
    expected = ATSSAssigner(topk=3).assign(
        InstanceData(priors=PRIORS), [24], InstanceData(bboxes=BOXES, labels=torch.tensor([0, 1]))
    )
    assert same_priors(first, second)
    assert (first.assigner, second.assigner) == ("MaxIoUAssigner", "ATSSAssigner")
    assert second.gt_index.tolist() == torch.where(expected.gt_inds > 0, expected.gt_inds - 1, NEGATIVE).tolist()
    assert (second.gt_index >= 0).any()
