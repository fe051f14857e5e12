"""What every assigner inherits: options, the order of arguments, overlaps, ignore regions."""

import copy
import inspect
import math
from types import SimpleNamespace as Instances

import numpy as np
import pytest
import torch

import visdet_assigners as va
from visdet_assigners import options
from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.assigners.dense import DenseAssigner
from visdet_assigners.assigners.forms import levels_by_name
from visdet_assigners.assignment import Assignment, all_negative
from visdet_assigners.registry import REGISTERED

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [40.0, 40.0, 50.0, 50.0]])
ASSIGNERS = [name for name, cls in REGISTERED.items() if issubclass(cls, BaseAssigner)]


class Anything(DenseAssigner):
    """Makes the first prior positive for the first object."""

    def __init__(self, topk: int = 9, **common):
        super().__init__(**common)
        self.topk = self.count_of("topk", topk)

    def decide(self, image):
        index = all_negative(len(image.fields["priors"]), image.gts)
        return Assignment(index.index_fill(0, torch.tensor([0]), 0) if len(image.gts) else index)


@pytest.fixture
def anything():
    return Anything()


def test_an_assigner_is_a_few_lines(anything):
    """Of what it reads and decides; reading, checks, batches and the result are inherited."""
    gt = Instances(bboxes=BOXES[1:2], labels=torch.tensor([7]))
    for result in (
        anything.assign(Instances(priors=BOXES), gt),
        anything.assign(Instances(priors=BOXES), [3], gt, None),  # as ATSSHead calls
        anything.assign_batch([Instances(priors=BOXES)], [gt])[0],
    ):
        assert result.gt_inds.tolist() == [1, 0, 0]
        assert result.labels.tolist() == [7, -1, -1]
    with pytest.raises(va.AssignerInputError, match=r"^Anything: pred_instances.priors\[2, 0\] is nan"):
        anything.assign(Instances(priors=BOXES.index_fill(0, torch.tensor([2]), math.nan)), gt)
    anything.ignore_iof_thr = 0.5
    result = anything.assign(Instances(priors=BOXES), gt, Instances(bboxes=BOXES[[0, 2]]))
    assert result.gt_inds.tolist() == [1, 0, -1]  # a positive stays one, the second is covered by half alone


def test_level_sizes_in_the_second_place():
    assert levels_by_name(("pred", [3, 4], "gt"), {"img_meta": 1}) == (
        ("pred", "gt"), {"img_meta": 1, "num_level_priors": [3, 4]}
    )  # fmt: skip
    assert levels_by_name(("pred", (3,)), {}) == (("pred",), {"num_level_priors": (3,)})
    for args in (("pred", "gt"), ("pred",), (["pred"], ["gt"]), ("pred", [3, "gt"]), ("pred", "gt", [3, 4])):
        assert levels_by_name(args, {}) == (args, {})


# ---------------------------------------------------------------------------------------------------------- options


def test_options_as_they_come():
    assigner = Anything()
    assert assigner.compile is False
    assert (assigner.memory_budget, assigner.deterministic, assigner.on_nonfinite) == (None, None, None)
    assert Anything(memory_budget=1).memory_budget == 1
    for wrong in (0, -5):
        with pytest.raises(ValueError, match=rf"^Anything: memory_budget is {wrong}; give a positive number"):
            Anything(memory_budget=wrong)


@pytest.mark.parametrize("name", ASSIGNERS)
def test_signatures_have_all_options(name):
    """For help, completion and checks of configs; the common ones are written once."""
    parameters = inspect.signature(REGISTERED[name]).parameters
    assert {"memory_budget", "compile", "deterministic", "on_nonfinite"} <= parameters.keys()
    assert not {"self", "common", "args", "kwargs"} & parameters.keys()


def test_options_that_are_not_there_are_named_with_the_nearest():
    with pytest.raises(va.AssignerInputError, match=r"^Anything: there is no option 'top_k'; did you mean topk\?"):
        Anything(top_k=9)
    with pytest.raises(TypeError, match="the options are topk, ignore_iof_thr, min_positives, memory_budget, compile"):
        Anything(zzz=9)


def test_a_class_that_takes_any_option_is_asked_itself():
    class Open(Anything):
        def __init__(self, extra=1, **kwargs):
            super().__init__(**{key: value for key, value in kwargs.items() if key != "mine"})

    assert Open(mine=3, topk=2).topk == 2
    with pytest.raises(TypeError, match="zzz"):
        Open(zzz=1)


def test_assigners_are_copied(anything):
    assert copy.deepcopy(Anything(topk=3)).topk == 3
    assert copy.deepcopy(va.ATSSAssigner(3)).num_candidates == 3


@pytest.mark.parametrize("wrong", ["9", 9.0, 9.5, None, True, [9]])
def test_whole_numbers(wrong):
    with pytest.raises(TypeError, match=r"^Anything: topk is .*; a whole number is expected"):
        Anything(topk=wrong)
    assert Anything(topk=np.int64(9)).topk == 9


def test_numbers():
    for good in (1, 0.5, np.float32(0.5), torch.tensor(0.5)):
        assert options.number("A", "alpha", good, least=0, most=1) is good
    assert options.number("A", "end", math.inf, finite=False) == math.inf
    for wrong in ("1", None, True, [1]):
        with pytest.raises(TypeError, match=r"^A: alpha is .*; a number is expected"):
            options.number("A", "alpha", wrong)
    for wrong, text in (
        (math.nan, "a finite number"),
        (math.inf, "a finite number"),
        (2, "must be at least 0 and at most 1"),
    ):
        with pytest.raises(ValueError, match=rf"^A: alpha is .*{text}"):
            options.number("A", "alpha", wrong, least=0, most=1)
    with pytest.raises(ValueError, match=r"^A: scale is 0; it must be above 0"):
        options.number("A", "scale", 0, above=0)


def test_thresholds():
    for good in (0.4, 1, (0.1, 0.4), [0, 0.4]):
        assert options.threshold_band("A", "thr", good, most=1) is good
    for wrong, error in (
        ("0.4", TypeError),
        (50, ValueError),
        (-1, ValueError),
        ((0.1,), ValueError),
        ((0, 40), ValueError),
    ):
        with pytest.raises(error, match=r"^A: thr"):
            options.threshold_band("A", "thr", wrong, most=1)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("MaxIoUAssigner", dict(pos_iou_thr=50, neg_iou_thr=40), "pos_iou_thr is 50; it must be at most 1"),
        ("GridAssigner", dict(pos_iou_thr=0.5, neg_iou_thr="0.4"), "neg_iou_thr is '0.4'; a number is expected"),
        ("SimOTAAssigner", dict(center_radius=-1), "center_radius is -1; it must be at least 0"),
        ("ATSSAssigner", dict(topk=9, alpha="0.8"), "alpha is '0.8'; a number is expected"),
        ("PointAssigner", dict(scale=0), "scale is 0; it must be above 0"),
        ("CenterRegionAssigner", dict(pos_scale=-0.2, neg_scale=0.2), "pos_scale is -0.2"),
        ("RegionAssigner", dict(center_ratio=math.nan), "center_ratio is nan"),
        ("ScaleRangeAssigner", dict(regress_ranges=[(0, "64")]), "regress_ranges is '64'"),
        ("DynamicSoftLabelAssigner", dict(topk=13.0), "topk is 13.0; a whole number"),
    ],
)
def test_options_of_each_kind(name, options, text):
    with pytest.raises(va.AssignerInputError, match=f"^{name}: {text}"):
        REGISTERED[name](**options)


@pytest.mark.parametrize(
    ("function", "options", "text"),
    [
        (va.sim_ota, dict(center_radius=-1), "center_radius is -1; it must be at least 0"),
        (va.sim_ota, dict(topk=0), "topk is 0; at least 1 is needed"),
        (va.task_aligned, dict(candidate_order="inside"), "candidate_order is 'inside'; choose one of "),
        (va.task_aligned, dict(overlaps=None), "there is no option 'overlaps'"),
        (va.point, dict(scale=0), "scale is 0; it must be above 0"),
        (va.region, dict(center_ratio=-0.1), "center_ratio is -0.1; it must be at least 0"),
        (va.center_region, dict(pos_scale=-0.2), "pos_scale is -0.2; it must be at least 0"),
        (va.center_region, dict(pos_scale=BOXES), "pos_scale is tensor(.|\n)*; a number is expected"),
        (va.atss, dict(topk=9.5), "topk is 9.5; a whole number"),
    ],
)
def test_options_of_functions(function, options, text):
    needed = [
        name
        for name, one in inspect.signature(function).parameters.items()
        if one.default is one.empty and name not in options
    ]
    with pytest.raises(va.AssignerInputError, match=f"^{function.__name__}: {text}"):
        function(**{name: 0.2 if "scale" in name else BOXES for name in needed}, **options)


# ---------------------------------------------------------------------------------------- overlaps and ignore regions


def test_regions_are_off_unless_a_threshold_is_set(anything):
    anything.build_calculator(None)
    assert anything.ignore_iof_thr == -1
    assert anything.ignored_priors(BOXES, BOXES) is None
    anything.ignore_iof_thr = 0.0
    assert anything.ignored_priors(BOXES, BOXES) is None
    anything.ignore_iof_thr = 0.5
    regions = torch.tensor([[0.0, 0.0, 10.0, 100.0]])
    assert anything.ignored_priors(BOXES, regions).tolist() == [True, False, False]  # half of the second, not more
    assert anything.ignored_priors(BOXES, regions, wrt_candidates=False) is not None
    assert not anything.ignored_priors(BOXES, regions, wrt_candidates=False).any()  # a tenth of the region
    for nothing in (None, regions[:0]):
        assert anything.ignored_priors(BOXES, nothing) is None
    assert anything.ignored_priors(BOXES[:0], regions) is None


def test_overlaps_of_some_pairs(anything):
    """A calculator that takes no pairs works out the whole matrix."""
    anything.build_calculator(None)
    near = torch.tensor([[0, 1], [2, 2]])
    expected = torch.tensor([[1, 1 / 3], [0, 0]])
    assert torch.allclose(anything.overlaps_at(BOXES, BOXES[:2], near), expected)

    class Whole:
        def __call__(self, first, second, mode="iou"):
            return va.iou_calculators.BboxOverlaps2D()(first, second, mode=mode).double()

    anything.build_calculator(Whole())
    found = anything.overlaps_at(BOXES, BOXES[:2], near)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected)
    assert anything.measure.reach is None
