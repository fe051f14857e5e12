"""What is said of bad numbers: the first place, how many there are, and whether all rows are bad."""

import pytest
import torch

from visdet_assigners.functional.inputs import fault_in, label_fault, suspicious, suspicious_labels

NAN = float("nan")


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
    assert fault.text == "boxes[1] is [2.0, 0.0, 1.0, 1.0], not x1 <= x2, y1 <= y2; 2 of 3"
    assert fault.index == (1,)
    assert fault_in(boxes[:2], "boxes", "boxes").text.endswith("y1 <= y2")
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
    assert suspicious(torch.tensor(bad), kind)
    assert said in fault_in(torch.tensor(bad), kind, "field").text
    if kind != "scores":
        assert not suspicious(torch.tensor(good), kind)


@pytest.mark.parametrize("num_classes", [3, None])
@pytest.mark.parametrize("dtype", [torch.long, torch.float32])
def test_labels(num_classes, dtype):
    good = torch.tensor([0, 2], dtype=dtype)
    assert not suspicious_labels(good, num_classes)
    assert label_fault(good, num_classes, "labels") is None
    negative = torch.tensor([0, -1], dtype=dtype)
    assert suspicious_labels(negative, num_classes)
    assert label_fault(negative, num_classes, "labels").text == "labels[1] is -1; classes are counted from 0"
    above = torch.tensor([3, 0], dtype=dtype)
    assert suspicious_labels(above, num_classes) == (num_classes is not None)
    fault = label_fault(above, num_classes, "labels")
    assert (fault is None) if num_classes is None else fault.text.startswith("labels[0] is 3 but scores have 3 classes")


def test_a_broken_number_is_no_label():
    assert suspicious_labels(torch.tensor([0.5, 1]), 3)
    assert label_fault(torch.tensor([0, 0.5]), 3, "labels").text == "labels[1] is 0.5; a whole number is expected"
