"""Our assigners against mmdet's on drawn scenes; thousands more by hand: tools/fuzz_assigners.py."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visdet_assigners.assigners import atss
from visdet_assigners.registry import REGISTERED
from visdet_assigners.testing import parity
from visdet_assigners.testing.parity import UnexplainedError, compare
from visdet_assigners.testing.trials import TRIALS, Trial


def test_every_assigner_is_fuzzed():
    assert set(TRIALS) == {name for name in REGISTERED if name.endswith("Assigner")}


@pytest.mark.parametrize("name", TRIALS)
def test_decided_as_mmdet_decides(name):
    @settings(max_examples=max(200, settings().max_examples))
    @given(TRIALS[name], st.booleans())
    def compare_one(trial, on_device):
        compare(trial, on_device)

    compare_one()


# The oracle itself: what it calls argued, and that it finds what is wrong.

ANCHORS = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0], [0.0, 8.0, 8.0, 16.0], [8.0, 8.0, 16.0, 16.0]])
OBJECTS = {"bboxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "labels": torch.tensor([2])}
NOTHING = {"bboxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
OUTSIDE = {"bboxes": torch.tensor([[90.0, 90.0, 99.0, 99.0]]), "labels": torch.tensor([0])}
POINTS = torch.tensor([[4.0, 4.0, 8.0], [12.0, 4.0, 8.0]])
FLAT = {"bboxes": torch.tensor([[0.0, 0.0, 9.0, 9.0], [12.0, 1.0, 12.0, 9.0]]), "labels": torch.tensor([0, 1])}
LOOSE = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4}
EXPLAINED = {
    "nothing": (Trial("ATSSAssigner", {"topk": 4}, {"priors": ANCHORS}, OBJECTS, rest={"levels": [4]}), []),
    "a": (Trial("MaxIoUAssigner", LOOSE, {"priors": ANCHORS}, OUTSIDE), [parity.NO_OVERLAP]),
    "b": (
        Trial("MaxIoUAssigner", {**LOOSE, "ignore_iof_thr": 0.5}, {"priors": ANCHORS}, NOTHING, OBJECTS),
        [parity.REGIONS],
    ),
    "e": (Trial("PointAssigner", {"pos_num": 3}, {"priors": POINTS}, OBJECTS), [parity.FEW_POINTS]),
    "l": (Trial("PointAssigner", {"pos_num": 1}, {"priors": POINTS}, FLAT), [parity.NO_AREA]),
    "e and l": (
        Trial("PointAssigner", {"pos_num": 3}, {"priors": POINTS}, FLAT), [parity.NO_AREA, parity.FEW_POINTS]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPLAINED)
def test_argued_differences_are_named(case):
    trial, differences = EXPLAINED[case]
    assert compare(trial) == [each.name for each in differences]


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
