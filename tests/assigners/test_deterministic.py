"""Ties by index: the same with any budget, both ways, with any number of threads; scenes are full of ties."""

import functools

import pytest
import torch

import visdet_assigners as va
from assigners.cases import CASES, all_equal, tensors_of_tied
from visdet_assigners.functional import select
from visdet_assigners.functional.select import cheapest, largest_of_each, nearest_per_level, ties_by_index, top
from visdet_assigners.settings import set_memory_budget, using

KINDS = ("grid", "duplicates", "centered", "piled")
every_case = pytest.mark.parametrize("name", CASES)
every_scene = pytest.mark.parametrize("kind", KINDS)


def by_sorting(values, count, dim, largest, by_index=True):
    """What ``top`` is meant to be."""
    found = values.sort(dim=dim, descending=largest, stable=True)
    return found.values.narrow(dim, 0, count), found.indices.narrow(dim, 0, count)


@pytest.mark.thinned
@every_case
@every_scene
def test_the_same_at_every_block_size_both_ways_and_with_any_number_of_threads(name, kind, monkeypatch):
    expected = tensors_of_tied(name, kind)
    assert (expected[0] > 0).any()
    for way in ("0", "1"):
        monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
        for threads, budget in ((2, 3_000), (1, 1_000_000), (2, None)):
            set_memory_budget(budget)
            torch.set_num_threads(threads)
            try:
                assert all_equal(tensors_of_tied(name, kind), expected), (way, threads, budget)
            finally:
                torch.set_num_threads(1)
                set_memory_budget(None)


@every_case
@every_scene
def test_the_first_of_equals_is_taken(name, kind, monkeypatch):
    expected = tensors_of_tied(name, kind)
    for module in (select, *(vars(va.assigners)[file] for file in ("point", "task_aligned", "uniform"))):
        monkeypatch.setattr(module, "top", by_sorting)
    assert all_equal(tensors_of_tied(name, kind), expected)


def test_it_matters(monkeypatch):
    """Without it these scenes come out in torch's order, here or on a device."""
    other = set()
    for way in ("0", "1"):
        monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
        other |= {
            name
            for name in CASES
            for kind in KINDS
            if not all_equal(tensors_of_tied(name, kind), tensors_of_tied(name, kind, False))
        }
    chosen = {"ATSS", "TaskAligned", "SimOTA", "DynamicSoftLabel", "Uniform", "CenterRegion", "Point", "MultiInstance"}
    chosen |= {"Scheduled"}  # ATSS's turn, and TaskAligned's
    assert {name.split("-")[0] for name in other} == {f"{name}Assigner" for name in chosen}
    assert "ATSSAssigner-ddod" in other


@pytest.mark.parametrize("name", [name for name in CASES if "Hungarian" in name])
@every_scene
def test_hungarian_matching_is_deterministic_anyway(name, kind):
    assert all_equal(tensors_of_tied(name, kind), tensors_of_tied(name, kind, deterministic=False))


def test_top_is_a_stable_sort_cut_off():
    g = torch.Generator().manual_seed(0)
    for _ in range(300):
        rows, columns = (int(torch.randint(1, high, (), generator=g)) for high in (5, 40))
        count = int(torch.randint(0, columns + 1, (), generator=g))
        values = torch.randint(-3, 4, (rows, columns), generator=g).float()
        values[values.abs() == 3] *= float("inf")
        for largest in (False, True):
            with using(deterministic=True):
                for dim, table in ((1, values), (0, values.T)):
                    found, expected = top(table, count, dim, largest), by_sorting(table, count, dim, largest)
                    assert all(map(torch.equal, found, expected))


def test_what_is_chosen_by_index():
    with using(deterministic=True):
        assert nearest_per_level(torch.ones(1, 10), [6, 4], 3).tolist() == [[0, 1, 2, 6, 7, 8]]
        assert largest_of_each(torch.ones(6), torch.tensor([1, 0, 1, 0, 1, 0]), 2, 2).tolist() == [[1, 3], [0, 2]]
        for counts in ([2, 1], torch.tensor([2, 1])):
            assert cheapest(torch.zeros(9, 2), counts, 4).nonzero().tolist() == [[0, 0], [0, 1], [1, 0]]


@every_case
def test_every_assigner_takes_the_keyword(name, monkeypatch):
    kind = type(CASES[name].build())
    monkeypatch.setattr(kind, "__init__", functools.partialmethod(kind.__init__, deterministic=True))
    assert CASES[name].build().deterministic is True


def test_the_setting_of_a_call_of_the_package_and_of_the_environment(monkeypatch):
    assert not ties_by_index()
    monkeypatch.setenv("VISDET_ASSIGNERS_DETERMINISTIC", "1")
    assert ties_by_index()
    va.set_deterministic(False)
    assert not ties_by_index()
    with using(deterministic=True):
        assert ties_by_index()
        with using(deterministic=None):
            assert not ties_by_index()
    va.set_deterministic(None)
    assert ties_by_index()


def test_the_package_decides_where_the_assigner_does_not():
    by_index, as_torch = (tensors_of_tied("UniformAssigner", "grid", deterministic) for deterministic in (True, False))
    assert not all_equal(by_index, as_torch)
    va.set_deterministic(True)
    try:
        assert all_equal(tensors_of_tied("UniformAssigner", "grid", deterministic=None), by_index)
        assert all_equal(tensors_of_tied("UniformAssigner", "grid", deterministic=False), as_torch)
    finally:
        va.set_deterministic(None)
