"""Our assigners against mmdet's on drawn scenes; thousands more by hand: tools/fuzz_assigners.py."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from visdet_assigners.assigners import atss
from visdet_assigners.registry import REGISTERED
from visdet_assigners.testing import differences
from visdet_assigners.testing.drawing import NUM_CLASSES
from visdet_assigners.testing.oracle import run_ours
from visdet_assigners.testing.parity import UnexplainedError, compare
from visdet_assigners.testing.trials import TRIALS, Trial


def test_every_assigner_is_fuzzed():
    assert set(TRIALS) == {name for name in REGISTERED if name.endswith("Assigner")}


@pytest.mark.parametrize("name", TRIALS)
def test_decided_as_mmdet_decides(name):
    @settings(max_examples=2 * settings().max_examples)
    @given(TRIALS[name], st.booleans())
    def compare_one(trial, on_device):
        compare(trial, on_device)

    compare_one()


# One-to-one matching reads what its costs read, see tests/assigners/test_hungarian.py.
BROKEN = [name for name in TRIALS if "Hungarian" not in name and name != "AscendMaxIoUAssigner"]


@pytest.mark.parametrize("name", BROKEN)
def test_invalid_input_is_refused(name):
    """A number that is none, an inverted object, or a label that is no class, anywhere in what is read."""

    @given(TRIALS[name], st.sampled_from([float("nan"), float("inf"), float("-inf"), "inverted", "label"]), st.data())
    def refuse_one(trial, fault, data):
        assume(len(trial.gt["labels"]))
        if name == "DynamicSoftLabelAssigner":
            trial.pred["priors"] = trial.pred["priors"][:, :3]  # further columns are not read
        fields = [(trial.gt, "bboxes")] + [(trial.pred, key) for key, value in trial.pred.items()
                                           if value.is_floating_point() and value.numel()]  # fmt: skip
        if isinstance(fault, float):
            owner, key = data.draw(st.sampled_from(fields))
            owner[key] = owner[key].clone()
            owner[key].view(-1)[data.draw(st.integers(0, owner[key].numel() - 1))] = fault
        elif fault == "inverted":
            boxes = trial.gt["bboxes"].clone()
            boxes[data.draw(st.integers(0, len(boxes) - 1)), 2] -= 1e4
            trial.gt["bboxes"] = boxes
        else:
            assume("scores" in trial.pred)
            trial.gt["labels"] = trial.gt["labels"].clone()
            trial.gt["labels"][data.draw(st.integers(0, len(trial.gt["labels"]) - 1))] = NUM_CLASSES
        working = "ATSSAssigner" if name == "ScheduledAssigner" else name  # whose turn it is
        with pytest.raises(ValueError, match=f"{working}: .*(nan|inf|not x1 <= x2|classes)"):
            run_ours(trial)

    refuse_one()


# The oracle itself: what it calls argued, and that it finds what is wrong.

ANCHORS = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0], [0.0, 8.0, 8.0, 16.0], [8.0, 8.0, 16.0, 16.0]])
OBJECTS = {"bboxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "labels": torch.tensor([2])}
NOTHING = {"bboxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
OUTSIDE = {"bboxes": torch.tensor([[90.0, 90.0, 99.0, 99.0]]), "labels": torch.tensor([0])}
POINTS = torch.tensor([[4.0, 4.0, 8.0], [12.0, 4.0, 8.0]])
FLAT = {"bboxes": torch.tensor([[0.0, 0.0, 9.0, 9.0], [12.0, 1.0, 12.0, 9.0]]), "labels": torch.tensor([0, 1])}
MAP = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.25, 0.0, 10.5, 10.0], [0.0, 0.0, 10.25, 10.0]]) + 2.0**21
BOX = torch.tensor([[-2.0, -2.0, 2.0, 2.0]])
LOOSE = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4}
EXPLAINED = {
    "nothing": (Trial("ATSSAssigner", {"topk": 4}, {"priors": ANCHORS}, OBJECTS, rest={"levels": [4]}), []),
    "a": (Trial("MaxIoUAssigner", LOOSE, {"priors": ANCHORS}, OUTSIDE), [differences.NO_OVERLAP]),
    "b": (
        Trial("MaxIoUAssigner", {**LOOSE, "ignore_iof_thr": 0.5}, {"priors": ANCHORS}, NOTHING, OBJECTS),
        [differences.REGIONS],
    ),
    "e": (Trial("PointAssigner", {"pos_num": 3}, {"priors": POINTS}, OBJECTS), [differences.FEW_POINTS]),
    "l": (Trial("PointAssigner", {"pos_num": 1}, {"priors": POINTS}, FLAT), [differences.NO_AREA]),
    "few queries, labels of another type": (
        Trial(
            "TopkHungarianAssigner",
            {"topk": 4},
            {"scores": torch.tensor([[0.9, 0.2, 0.1]]), "bboxes": torch.tensor([[-1.0, -5.0, 0.0, 5.0]])},
            {"bboxes": BOX.repeat(2, 1), "labels": torch.zeros(2, dtype=torch.int32)},
        ),
        [differences.FEW_QUERIES],
    ),
    "from afar": (
        Trial(
            "UniformAssigner",
            {"pos_ignore_thr": 0.15, "neg_ignore_thr": 0.7, "match_times": 1},
            {"priors": MAP[:2], "decoder_priors": MAP[:2]},
            {"bboxes": MAP[2:], "labels": torch.tensor([0])},
        ),
        [differences.FROM_AFAR],
    ),
    "e and l": (
        Trial("PointAssigner", {"pos_num": 3}, {"priors": POINTS}, FLAT), [differences.NO_AREA, differences.FEW_POINTS]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPLAINED)
def test_argued_differences_are_named(case):
    trial, expected = EXPLAINED[case]
    assert compare(trial) == [each.name for each in expected]


def test_a_wrong_rule_is_found(monkeypatch):
    trial, _ = EXPLAINED["nothing"]
    monkeypatch.setattr(atss, "INSIDE", 5.0)  # pixels that a centre must lie inside
    with pytest.raises(UnexplainedError, match=r"(?s)Trial\(name='ATSSAssigner'.*torch.tensor.*"):
        compare(trial)


def test_a_trial_is_written_so_that_it_can_be_run_again():
    for trial, _ in EXPLAINED.values():
        again = eval(repr(trial))
        assert repr(again) == repr(trial)
        assert compare(again) == compare(trial)
