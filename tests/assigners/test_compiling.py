"""Compiled assignment equals the other, in one graph for any number of objects, and goes on without a compiler.

Dynamo traces with the backend "eager" here: what it can't trace shows, and nothing has to be compiled.
"""

import functools
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo.testing

import visdet_assigners as va
from assigners.cases import CASES, all_equal, scene, tensors_of_tied
from visdet_assigners.assigners import base, compiling
from visdet_assigners.functional.validity import is_dropped

UNTOUCHED = ("Hungarian", "-matching", "CenterRegion", "MultiInstance")  # solved on the host, or of no fixed size
TRACED = [name for name in CASES if not any(part in name for part in UNTOUCHED)]


@pytest.fixture(autouse=True)
def nothing_is_kept():
    torch._dynamo.reset()
    compiling.compiled.cache_clear()
    yield
    compiling.compiled.cache_clear()


@pytest.fixture
def graphs(monkeypatch):
    """Compile with a backend that counts the graphs."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    return counter


def assign(name, objects, compile):
    case = CASES[name]
    assigner = case.build()
    assigner.compile = compile
    return case.call(assigner, case.pred(objects), case.gt(objects), objects.ignore, objects)


@pytest.mark.parametrize("name", TRACED)
def test_compiled_equals_uncompiled_whatever_the_number_of_objects(name, graphs):
    for count in (12, 30, 21, 17, 26):
        expected, found = (assign(name, scene(count), compile) for compile in (False, True))
        assert torch.equal(found.gt_inds, expected.gt_inds)
        assert torch.equal(found.labels, expected.labels)
    assert 1 <= graphs.frame_count <= 3  # scores of 8 classes: fewer objects than classes, or more


@pytest.mark.slow(reason="compiles anew")
@pytest.mark.parametrize("kind", ["duplicates", "piled"])
@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner", "SimOTAAssigner", "PointAssigner"])
def test_compiled_ties_are_ordered_as_the_assigner_says(name, kind, graphs, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")  # torch's order depends on the shapes
    for deterministic in (True, False, True):
        assert all_equal(
            tensors_of_tied(name, kind, deterministic, compile=True), tensors_of_tied(name, kind, deterministic)
        )
    assert graphs.frame_count == 2


def tensors_of(result):
    """Everything that a result says."""
    fields = {name: value for name, value in vars(result).items() if isinstance(value, torch.Tensor)}
    return {"num_gts": torch.tensor(result.num_gts), **fields, **result.info} | {"num_preds": result.num_preds}


def same(mine, other):
    mine, other = tensors_of(mine), tensors_of(other)
    equal = [torch.equal(mine[name], other[name]) for name in mine if isinstance(mine[name], torch.Tensor)]
    return mine.keys() == other.keys() and all(equal)


@pytest.fixture
def lengths(monkeypatch):
    """Nothing is compiled; how many ground truths functions get is noted, and for which mode."""
    seen = []

    def uncompiled(function, mode=None):
        def call(*args, **kwargs):
            seen.extend((len(args[1]), mode) for _ in args[1:2] if isinstance(args[1], torch.Tensor))
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(base, "compiled", uncompiled)
    return seen


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
@pytest.mark.parametrize("count", [1, 8, 12])
def test_objects_that_fill_a_bucket_match_nothing(name, way, count, lengths, monkeypatch):
    """To the last bit what is decided without them, on both ways."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    expected, found = (assign(name, scene(count), compile) for compile in (False, "reduce-overhead"))
    assert same(found, expected)
    padded = (8 if count <= 8 else 16, "reduce-overhead")
    assert set(lengths) <= {(count, None) if "Uniform" in name else padded}


@pytest.mark.parametrize("name", ["MaxIoUAssigner", "TaskAlignedAssigner"])
def test_one_trace_serves_all_buckets_and_results_last(name, monkeypatch):
    """A replay overwrites its outputs; what was handed out is a copy."""
    counter, modes, compile = torch._dynamo.testing.CompileCounterWithBackend("eager"), [], torch.compile

    def counting(function, mode=None, **options):
        modes.append(mode)
        return compile(function, backend=counter, **options)

    monkeypatch.setattr(torch, "compile", counting)
    for count in (12, 30, 5, 17):
        expected, found = (assign(name, scene(count), how) for how in (False, "reduce-overhead"))
        assert same(found, expected)
    assert modes == ["reduce-overhead"]
    assert counter.frame_count <= 3


def test_what_is_replayed_is_copied_and_has_its_thresholds_as_constants(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    values, before = torch.zeros(2), torch._dynamo.config.specialize_float
    constant = []

    def same_values(given):
        constant.append(torch._dynamo.config.specialize_float)
        return given

    assert compiling.compiled(same_values)(values) is values
    assert compiling.compiled(same_values, "reduce-overhead")(values) is not values
    assert constant == [before, True]
    assert torch._dynamo.config.specialize_float == before


@pytest.mark.parametrize("count", [0, 8, 16])
def test_full_buckets_and_empty_images_stay_as_they_are(count):
    image = SimpleNamespace(gts=torch.ones(count, 4), labels=torch.ones(count), forms={})
    assert compiling.in_bucket(image) is image


def test_padding_is_of_dropped_boxes_and_changes_no_argument():
    image = SimpleNamespace(gts=torch.ones(9, 4), labels=torch.ones(9, dtype=torch.long), forms={"gts": object()})
    assert compiling.in_bucket(image) is image  # boxes of a class of their own
    image.forms = {}
    padded = compiling.in_bucket(image)
    assert (len(image.gts), len(image.labels), len(padded.gts), len(padded.labels)) == (9, 9, 16, 16)
    assert is_dropped(padded.gts).tolist() == [False] * 9 + [True] * 7
    assert padded.labels.tolist() == [1] * 9 + [0] * 7


def test_copies_are_no_views_of_what_they_copy():
    first = torch.zeros(3)
    result = compiling.copied((va.Assignment(first, None, {"more": first, "name": "a"}), [first], first))
    first += 1
    assert result[0].gt_index.sum() == result[0].extras["more"].sum() == result[2].sum() == 0
    assert (result[0].quality, result[0].extras["name"], result[1]) == (None, "a", [first])


def test_where_boxes_are_drawn_or_counted_nothing_is_padded(lengths):
    objects = scene(5)
    for option in (dict(gpu_assign_thr=6), dict(perm_repeat_gt_cfg=dict(iou_thr=0.7, perm_range=0.01))):
        assigner = va.MaxIoUAssigner(0.5, 0.4, compile="reduce-overhead", **option)
        assigner.assign(CASES["MaxIoUAssigner"].pred(objects), objects.instances)
    assert [mode for _, mode in lengths] == [None, None]


def test_masks_of_objects_are_padded_too(lengths):
    case, objects = CASES["DynamicSoftLabelAssigner"], scene(5)
    gt = objects.instances
    gt.masks = torch.zeros(5, *objects.image, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(gt.masks, objects.boxes.long().tolist()):
        mask[y1:y2, x1 : (x1 + x2) // 2] = True
    results = [
        va.DynamicSoftLabelAssigner(compile=how).assign(case.pred(objects), gt) for how in (False, "reduce-overhead")
    ]
    assert same(*results)
    assert lengths == [(8, "reduce-overhead")]


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="compile is 'fast'; choose one of reduce-overhead"):
        va.MaxIoUAssigner(0.5, 0.4, compile="fast")


@pytest.mark.parametrize("name", ["MaxIoUAssigner", "SimOTAAssigner"])
def test_without_a_compiler_it_says_so_once_and_goes_on(name, monkeypatch):
    def fail(graph, inputs):
        raise torch._dynamo.exc.BackendCompilerFailed(fail, RuntimeError("No working C++ compiler found"), None)

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=fail))
    expected = assign(name, scene(12), compile=False)
    with pytest.warns(UserWarning, match=r"goes on uncompiled, compiling it failed: .*compiler"):
        assert torch.equal(assign(name, scene(12), compile=True).gt_inds, expected.gt_inds)
    assert torch.equal(assign(name, scene(12), compile=True).gt_inds, expected.gt_inds)


def test_it_is_an_option_of_configs():
    assigner = type(CASES["MaxIoUAssigner"].build())(0.5, 0.4, compile=True, memory_budget=10**6)
    assert assigner.compile
    assert assigner.memory_budget == 10**6
    with pytest.raises(ValueError, match="memory_budget is 0; give a positive number of bytes"):
        type(assigner)(0.5, 0.4, memory_budget=0)


def test_what_cannot_be_one_graph_is_an_error(graphs):
    def broken(values):
        torch._dynamo.graph_break()
        return values + 1

    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiling.compiled(broken)(torch.zeros(2))


def test_after_a_failure_it_is_not_tried_again(monkeypatch, recwarn):
    tried = []

    def fail(graph, inputs):
        tried.append(graph)
        raise torch._dynamo.exc.BackendCompilerFailed(fail, RuntimeError("first line\nsecond line\nthird line"), None)

    def plus_one(values):
        return values + 1

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=fail))
    function = compiling.compiled(plus_one)
    with pytest.warns(UserWarning, match="plus_one goes on uncompiled") as caught:
        assert function(torch.zeros(2)).sum() == 2
    assert function(torch.zeros(3)).sum() == 3
    assert not recwarn
    assert len(caught) == len(tried) == 1
    assert "first line" in str(caught[0].message)
    assert "second line" not in str(caught[0].message)
    assert caught[0].filename == __file__
