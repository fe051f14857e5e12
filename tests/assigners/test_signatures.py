"""Defaults: those of mmdet's classes, those of the paper where mmdet has no such class, the same in every layer."""

import importlib
import inspect

import mmdet.models
import pytest
from mmdet.models.dense_heads import FCOSHead

import visdet_assigners as va
from visdet_assigners.assigners import scale_range
from visdet_assigners.assigners.aligned_targets import classification_targets
from visdet_assigners.registry import REGISTERED

MMDET = {name: getattr(mmdet.models.task_modules, name, None) for name in REGISTERED}
ASSIGNERS = [name for name, cls in REGISTERED.items() if issubclass(cls, va.BaseAssigner)]


def defaults(function) -> dict:
    """Parameters of a function or of a class that may be left out, with their values."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


@pytest.mark.parametrize("name", [name for name, theirs in MMDET.items() if theirs is not None])
def test_what_may_be_left_out_is_as_in_mmdet(name):
    for method in ("__init__", "assign", "__call__"):
        theirs = defaults(getattr(MMDET[name], method, object.__init__))
        ours = defaults(
            REGISTERED[name] if method == "__init__" else getattr(REGISTERED[name], method, object.__init__)
        )
        for parameter, value in theirs.items():
            assert parameter in ours, (method, parameter)
            if not isinstance(value, dict):  # the configs of calculators and costs, which tests of their own compare
                assert ours[parameter] == value, (method, parameter)


@pytest.mark.parametrize("name", ASSIGNERS)
def test_functions_have_the_defaults_of_their_class(name):
    cls = REGISTERED[name]
    of_class = defaults(cls)
    for function in vars(importlib.import_module(cls.__module__)).values():
        if inspect.isfunction(function) and function.__module__ == cls.__module__:
            shared = {parameter: of_class.get(parameter, value) for parameter, value in defaults(function).items()}
            assert defaults(function) == shared, function.__name__


def test_defaults_of_functions_that_their_class_does_not_have():
    """Those that say something: thresholds, numbers; ``topk`` is what classes call as mmdet does."""
    found = {}
    for name in ASSIGNERS:
        cls = REGISTERED[name]
        of_class = defaults(cls)
        for function in vars(importlib.import_module(cls.__module__)).values():
            if inspect.isfunction(function) and function.__module__ == cls.__module__:
                own = {key: value for key, value in defaults(function).items() if isinstance(value, (int, float))}
                found |= {f"{function.__name__}.{key}": value for key, value in own.items() if key not in of_class}
    assert found == {
        "atss.topk": 9,  # table 5 of the paper
        "task_aligned.topk": 13,  # section 3.3 of TOOD
        "task_aligned.alpha": 1.0,
        "task_aligned.beta": 6.0,
        "sim_ota.topk": 10,
        "uniform.topk": 4,
        "point.topk": 3,
        "center_region.reach": 0.0,  # pixels up to which boxes overlap by IoU
        "atss_of_images.whole": False,  # in blocks
        "match_candidates.blockwise": True,
    }


def test_the_least_metric_is_that_of_the_published_code():
    assert defaults(classification_targets) == {"eps": 1e-7}


def test_exponents_of_the_alignment_wherever_they_may_be_left_out():
    """As in TOOD, section 3.3."""
    task_aligned, topk = va.TaskAlignedAssigner, va.TopkHungarianAssigner
    for method in (
        task_aligned.assign,
        task_aligned.assign_batch,
        task_aligned.batch_targets,
        topk.assign,
        topk.assign_batch,
    ):
        found = defaults(method)
        assert found.get("alpha", 1) == 1
        assert found.get("beta", 6) == 6
    assert {"alpha", "beta"} <= defaults(topk.assign).keys() & defaults(task_aligned.batch_targets).keys()


def test_the_scale_ranges_are_those_of_fcos():
    theirs = defaults(FCOSHead.__init__)["regress_ranges"]
    ours = defaults(va.ScaleRangeAssigner)
    for ranges in (ours["regress_ranges"], scale_range.RANGES):
        assert [tuple(min(end, 1e8) for end in ends) for ends in ranges] == list(theirs)
    assert ours["center_sample_radius"] == defaults(FCOSHead.__init__)["center_sample_radius"]
    assert ours["strides"] == tuple(2**level for level in range(3, 8))  # P3 to P7


def test_ascend_max_iou_and_multi_instance_have_the_defaults_of_max_iou():
    plain = defaults(va.MaxIoUAssigner)
    for cls in (va.ApproxMaxIoUAssigner, va.AscendMaxIoUAssigner, va.MultiInstanceAssigner):
        own = {name: value for name, value in defaults(cls).items() if name in plain}
        assert own == {name: plain[name] for name in own}


@pytest.mark.parametrize("name", ASSIGNERS)
def test_what_all_assigners_take_is_off_or_left_to_the_package(name):
    common = dict(memory_budget=None, compile=False, deterministic=None, on_nonfinite=None)
    assert common.items() <= defaults(REGISTERED[name]).items()


@pytest.mark.parametrize("name", ASSIGNERS)
def test_batches_have_the_defaults_of_one_image(name):
    one, many = defaults(REGISTERED[name].assign), defaults(REGISTERED[name].assign_batch)
    shared = one.keys() & many.keys()
    assert {name: many[name] for name in shared} == {name: one[name] for name in shared}
