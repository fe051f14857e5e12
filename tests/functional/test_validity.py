"""What is said of bad numbers: the first place, how many there are, and whether all rows are bad."""

import pytest
import torch

from visdet_assigners.functional.validity import (
    LARGEST,
    NOWHERE,
    drop_rows,
    fault_in,
    good_boxes,
    good_rows,
    is_dropped,
    label_fault,
    labels_may_be_wrong,
    may_be_wrong,
)

NAN, INF = float("nan"), float("inf")


def test_a_row_with_one_bad_entry_is_a_bad_row():
    scores = torch.zeros(3, 4)
    scores[:, 2] = NAN
    fault = fault_in(scores, "scores", "pred_instances.scores")
    assert (fault.field, fault.index) == ("pred_instances.scores", (0, 2))
    assert fault.text == (
        "pred_instances.scores[0, 2] is nan; not finite: 3 of 12 entries; all rows: training has diverged"
    )
    scores[1] = 0
    assert fault_in(scores, "scores", "pred_instances.scores").text.endswith("not finite: 2 of 12 entries")


@pytest.mark.parametrize("name", ["pred_instances.scores", "gt_instances.bboxes"])
def test_one_row_alone_and_ground_truths_tell_nothing_of_the_training(name):
    rows = torch.full((1 if name.startswith("pred") else 2, 4), NAN)
    assert "diverged" not in fault_in(rows, "predicted", name).text


def test_how_many_boxes_are_inverted():
    boxes = torch.tensor([[0.0, 0, 1, 1], [2, 0, 1, 1], [0, 2, 1, 1]])
    fault = fault_in(boxes, "boxes", "boxes")
    assert fault.text == "boxes[1] is [2.0, 0.0, 1.0, 1.0], not x1 <= x2, y1 <= y2, as two corners have; 2 of 3"
    assert fault.index == (1,)
    assert fault_in(boxes[:2], "boxes", "boxes").text.endswith("as two corners have")
    assert fault_in(boxes[:1], "boxes", "boxes") is None


@pytest.mark.parametrize(
    ("kind", "good", "bad", "said"),
    [
        ("boxes", [[0.0, 0, 1e7, 0]], [[0.0, 0, 1.1e7, 1]], "beyond 1e+07 pixels"),
        ("boxes", [[-1e7, 0, 1, 0]], [[-1.1e7, 0, 1, 1]], "beyond 1e+07 pixels"),
        ("predicted", [[5.0, 5, 1, 1]], [[5.0, 5, 1, float("inf")]], "not finite: 1 of 4 entries"),
        ("points", [[0.0, 0, 8]], [[0.0, 0, 0]], "the stride, behind x and y, must be positive"),
        ("strided", [[0.0, 0, 8, 8]], [[0.0, 0, 8, -1]], "the stride, behind x and y, must be positive"),
        ("probabilities", [[0.0, 1.0]], [[0.0, 1.1]], "probabilities are expected, not logits"),
        ("probabilities", [[0.0, 1.0]], [[-0.1, 1.0]], "probabilities are expected, not logits"),
        ("scores", [[3e38, 3e38]], [[0.0, NAN]], "not finite: 1 of 2 entries"),  # a sum that overflows is no fault
    ],
)
def test_each_kind(kind, good, bad, said):
    assert fault_in(torch.tensor(good), kind, "field") is None
    assert may_be_wrong(torch.tensor(bad), kind)
    assert said in fault_in(torch.tensor(bad), kind, "field").text
    if kind != "scores":
        assert not may_be_wrong(torch.tensor(good), kind)


@pytest.mark.parametrize("num_classes", [3, None])
@pytest.mark.parametrize("dtype", [torch.long, torch.float32])
def test_labels(num_classes, dtype):
    good = torch.tensor([0, 2], dtype=dtype)
    assert not labels_may_be_wrong(good, num_classes)
    assert label_fault(good, num_classes, "labels") is None
    negative = torch.tensor([0, -1], dtype=dtype)
    assert labels_may_be_wrong(negative, num_classes)
    assert label_fault(negative, num_classes, "labels").text == "labels[1] is -1; classes are counted from 0"
    above = torch.tensor([3, 0], dtype=dtype)
    assert labels_may_be_wrong(above, num_classes) == (num_classes is not None)
    fault = label_fault(above, num_classes, "labels")
    assert (fault is None) if num_classes is None else fault.text.startswith("labels[0] is 3 but scores have 3 classes")


def test_a_broken_number_is_no_label():
    assert labels_may_be_wrong(torch.tensor([0.5, 1]), 3)
    assert label_fault(torch.tensor([0, 0.5]), 3, "labels").text == "labels[1] is 0.5; a whole number is expected"


@pytest.mark.parametrize(
    ("kind", "value", "index"),
    [
        ("boxes", [[1.0, 1, 1, 1], [3, 0, 2, 9]], (1,)),
        ("boxes", [[1.0, 1, 1, 1, 9], [0, 3, 2, 1, 9]], (1,)),
        ("boxes", [[LARGEST, 0, LARGEST, 0], [0, 1.1 * LARGEST, 0, 1.2 * LARGEST]], (1, 1)),
        ("predicted", [[-LARGEST, 9, 0, 0], [0, 0, 0, -1.1 * LARGEST]], (1, 3)),
        ("points", [[0.0, 0, 1], [-1, 0, 0]], (1,)),
        ("strided", [[0.0, 0, 1, 1], [-1, 0, 0.5, 0]], (1,)),
        ("probabilities", [[0.0, 1], [0.5, 1.1]], (1, 1)),
        ("probabilities", [[0.0, 1], [0.5, -0.1]], (1, 1)),
        ("scores", [[0.0, 1], [9, NAN]], (1, 1)),
        ("scores", [3.0, INF], (1,)),
    ],
)
def test_the_first_that_is_wrong_is_named(kind, value, index):
    """Not those before it that are as large, as flat or as fine as is allowed."""
    value = torch.tensor(value)
    assert fault_in(value, kind, "field").index == index
    assert fault_in(value[:1], kind, "field") is None


def test_when_training_has_diverged():
    ending = "; all rows: training has diverged"
    assert fault_in(torch.full((2, 4), NAN), "predicted", "pred_instances.bboxes").text.endswith(ending)
    assert not fault_in(torch.full((1, 4), NAN), "predicted", "pred_instances.bboxes").text.endswith(ending)


def test_rows_are_shown_with_four_decimals():
    fault = fault_in(torch.tensor([[0.123456, 0, 0, 1]]), "boxes", "boxes")
    assert fault.text.startswith("boxes[0] is [0.1235, 0.0, 0.0, 1.0]")


def test_bad_entries_of_points_and_columns_behind_boxes():
    """A stride that is none is named by its row; what stands behind the four columns of a box is no side of it."""
    points = torch.tensor([[0.0, 0, 8, 8], [-5, -5, 8, 0]])
    assert fault_in(points, "strided", "priors").text.startswith("priors[1] is [-5.0, -5.0, 8.0, 0.0]; the stride")
    assert not may_be_wrong(points[:1], "strided")
    wide = torch.tensor([[0.0, 0, 1, 1, -1]])
    assert not may_be_wrong(wide, "boxes")
    assert fault_in(wide, "boxes", "boxes") is None
    groups = torch.tensor([[[0.0, 0, 1, 1], [5, 5, 4, 6]]])
    assert may_be_wrong(groups, "groups")
    assert fault_in(groups, "groups", "approxs").index == (0, 1)


# Taking out.


def test_which_objects_are_boxes():
    low, high = -LARGEST, LARGEST
    good = [[0.0, 0, 1, 1], [1, 1, 1, 1], [low, low, high, high]]
    wrong = [[NAN, 0, 1, 1], [0, 0, 1, INF], [-INF, 0, 1, 1], [2, 0, 1, 3], [0, 2, 3, 1], [0, 0, 1, 1.1 * high],
             [1.1 * low, 0, 1, 1]]  # fmt: skip
    found = good_boxes(torch.tensor(good + wrong))
    assert found.tolist() == [True] * len(good) + [False] * len(wrong)


def test_rows_are_good_in_all_fields_or_in_none():
    boxes, scores, flags = (
        torch.zeros(5, 4),
        torch.full((5, 2, 2), 1e30),
        torch.tensor([0, 1, 0, 1, 0], dtype=torch.bool),
    )
    boxes[1, 3], scores[2, 1, 0], scores[3, 0, 1] = NAN, INF, -INF
    boxes[0] = torch.tensor([9.0, 9, 1, 1])  # inverted ones can be compared with others
    assert good_rows([boxes, flags, scores], ["predicted", "flags", "scores"]).tolist() == [
        True,
        False,
        False,
        False,
        True,
    ]


def test_points_need_a_stride():
    points = torch.tensor([[0.0, 0, 8, 8], [0, 0, 0, 8], [0, 0, 8, 0], [0, 0, -1, 8], [0, 0, 1, 1]])
    assert good_rows([points], ["strided"]).tolist() == [True, False, False, False, True]
    assert good_rows([points[:, :3]], ["points"]).tolist() == [True, False, True, False, True]
    assert good_rows([points], ["scores"]).all()


GOOD = torch.tensor([True, False])


def test_boxes_go_away_and_scores_become_zero():
    boxes = torch.tensor([[0.0, 1, 2, 3], [4, NAN, 6, 7]])
    for away in (NOWHERE, -NOWHERE):
        moved = drop_rows(boxes, "boxes", GOOD, away)
        assert torch.equal(moved, torch.tensor([[0.0, 1, 2, 3], [away] * 4]))
        assert is_dropped(moved).tolist() == [False, True]
        assert torch.equal(drop_rows(boxes[:, None], "groups", GOOD, away), moved[:, None])
    assert drop_rows(boxes, "scores", GOOD, NOWHERE).tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert drop_rows(boxes[:, None] > 3, "masks", GOOD, NOWHERE).tolist() == [[[False] * 4], [[False] * 4]]
    flags = torch.tensor([True, True])
    assert torch.equal(drop_rows(flags, "flags", GOOD, NOWHERE), flags)


@pytest.mark.parametrize("wrong", [NAN, INF, 0.0, -4.0, 1.1 * LARGEST])
def test_a_point_without_a_stride_gets_the_least_that_there_is(wrong):
    points = torch.tensor([[1.0, 2, 16, 32], [3, 4, wrong, 8], [5, 6, 8, wrong], [7, 8, 0.5, 8]])
    good = torch.tensor([True, False, False, True])
    moved = drop_rows(points, "strided", good, NOWHERE)
    expected = [[1, 2, 16, 32], [NOWHERE, NOWHERE, 0.5, 8], [NOWHERE, NOWHERE, 8, 0.5], [7, 8, 0.5, 8]]
    assert torch.equal(moved, torch.tensor(expected))
    assert torch.equal(drop_rows(points[:, :3], "points", good, NOWHERE), torch.tensor(expected)[:, :3])


def test_the_largest_stride_is_one():
    points = torch.tensor([[1.0, 2, LARGEST]])
    assert drop_rows(points, "points", torch.tensor([False]), NOWHERE)[0, 2] == LARGEST
    points = torch.tensor([[1.0, 2, LARGEST], [3, 4, 8]])
    assert drop_rows(points, "points", torch.tensor([True, True]), NOWHERE)[:, 2].tolist() == [LARGEST, 8]
