"""Compiled assignment equals the other, in one graph for any number of objects, and goes on without a compiler.

Dynamo traces with the backend "eager" here: what it can't trace shows, and nothing has to be compiled.
"""

import functools

import pytest
import torch
import torch._dynamo.testing

from assigners.cases import CASES, all_equal, scene, tensors_of_tied
from visdet_assigners.assigners import compiling

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


@pytest.mark.parametrize("kind", ["duplicates", pytest.param("piled", marks=pytest.mark.slow(reason="compiles anew"))])
@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner", "SimOTAAssigner", "PointAssigner"])
def test_compiled_ties_are_ordered_as_the_assigner_says(name, kind, graphs, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")  # torch's order depends on the shapes
    for deterministic in (True, False, True):
        assert all_equal(
            tensors_of_tied(name, kind, deterministic, compile=True), tensors_of_tied(name, kind, deterministic)
        )
    assert graphs.frame_count == 2


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
