"""Matching on the host: every problem by brute force, costs that are not finite, and when threads are used."""

import sys
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from visdet_assigners.functional import lsap, lsap_device
from visdet_assigners.functional.lsap import InvalidCostError, matched_columns, repeated_assignments, solve, solve_one
from visdet_assigners.settings import using


def best_by_trying(problem):
    """Most finite pairs first, then the lowest cost: their number and their sum."""
    tall = problem if problem.shape[0] >= problem.shape[1] else problem.T
    found = []
    for rows in permutations(range(tall.shape[0]), tall.shape[1]):
        costs = tall[list(rows), range(tall.shape[1])]
        finite = costs[np.isfinite(costs)]
        found.append((-len(finite), finite.sum()))
    pairs, cost = min(found)
    return -pairs, cost


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (4, 4), (1, 3)])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("far", [0.0, -1e4, 1e4])
def test_as_many_finite_pairs_as_there_can_be_and_the_cheapest_of_these(shape, share, far):
    rng = np.random.default_rng(7)
    for _ in range(20):
        problem = (rng.normal(size=shape) * 10 + far).astype(np.float32)
        bad = rng.random(shape) < share
        problem[bad] = rng.choice([np.nan, np.inf, -np.inf], size=bad.sum())
        rows, columns = solve_one(problem)
        pairs, cost = best_by_trying(problem.astype(np.float64))
        assert np.isfinite(problem[rows, columns]).all()
        assert len(rows) == len(set(rows)) == len(set(columns)) == pairs
        assert problem[rows, columns].sum(dtype=np.float64) == pytest.approx(cost, rel=1e-6)


def test_only_several_problems_that_are_large_in_all_are_solved_side_by_side(monkeypatch):
    begun = []

    class Pool(lsap.ThreadPoolExecutor):
        def __init__(self, *args):
            begun.append(args)
            super().__init__(*args)

    monkeypatch.setattr(lsap, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(lsap, "THREADED", 12)
    problems = [np.random.default_rng(seed).random((3, 2)) for seed in range(3)]
    for some, threads in ((problems[:1], 0), ([np.ones((12, 2))], 0), (problems[:2], 1), (problems, 1)):
        begun.clear()
        pairs = solve(some)
        assert len(begun) == threads
        for (rows, columns), problem in zip(pairs, some):
            assert np.array_equal([rows, columns], solve_one(problem))
    monkeypatch.setattr(lsap, "THREADED", 13)
    begun.clear()
    solve(problems[:2])
    assert not begun


@pytest.mark.parametrize("way", ["0", "1"])
def test_what_is_not_finite_raises_where_nothing_else_is_said(way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    costs = [torch.zeros(1, 2, 2), torch.zeros(2, 2, 2)]
    costs[1][1, 0, 1] = float("inf")
    counts = [[2], [2, 2]]
    ways = (lambda **more: matched_columns(costs, counts, **more),
            lambda **more: repeated_assignments(costs, counts, [1, 1, 1], **more))  # fmt: skip
    for call in ways:
        with pytest.raises(InvalidCostError, match="the costs of problem 2 of 3 contain invalid") as error:
            call()
        assert error.value.problem == 2
    told = []
    assert ways[0](tolerate=told.append)[1].sort().values.tolist() == [[0, 1], [0, 1]]
    rows, columns = ways[1](tolerate=told.append)[2]
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [0, 1])  # around the pair (0, 1)
    assert [each.tolist().count(False) for each in told] == [1, 1]
    with pytest.raises(InvalidCostError, match="the costs contain invalid"):
        matched_columns([costs[1][1:]], [[2]])


@pytest.mark.parametrize("way", ["0", "1"])
def test_rows_that_are_never_matched(way, monkeypatch):
    """However cheap they are, and even where columns are left over."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    cost = torch.tensor([[[-9.0, -9.0], [1.0, 3.0], [2.0, 1.0]], [[-9.0, -9.0], [-9.0, -9.0], [5.0, 4.0]]])
    never = torch.tensor([[True, False, False], [True, True, False]])
    assert matched_columns([cost], [[2, 2]], None, [never])[0].tolist() == [[-1, 0, 1], [-1, -1, 1]]
    pairs = repeated_assignments([cost, cost], [[2, 2]] * 2, [2, 1] * 2, None, [never, None])
    assert [rows.tolist() for rows, _ in pairs] == [[1, 2], [2], [0, 1, 2], [0, 1]]
    with pytest.raises(InvalidCostError):  # what is wrong elsewhere is told all the same
        matched_columns([torch.full_like(cost, float("nan"))], [[2, 2]], None, [never])


def test_padding_is_not_matched():
    cost = torch.tensor([[[4.0, 1.0, -9.0], [2.0, 0.0, -9.0]]])
    assert matched_columns([cost], [[2]])[0].tolist() == [[1, 0]]
    assert matched_columns([cost], [[0]])[0].tolist() == [[-1, -1]]


# --------------------------------------------------------------------------------------------------------- on a device


@pytest.fixture
def device_solver(monkeypatch):
    """A stand-in for torch-linear-assignment, scipy problem by problem; it records what it is given."""
    given = []

    def batch_linear_assignment(cost):
        assert cost.isfinite().all()
        assert cost.dtype == torch.float64
        given.append(cost)
        found = torch.full(cost.shape[:2], -1)
        for row, problem in zip(found, cost.numpy()):
            rows, columns = lsap.linear_sum_assignment(problem)
            row[torch.from_numpy(rows)] = torch.from_numpy(columns)
        return found

    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    monkeypatch.setitem(
        sys.modules, "torch_linear_assignment", SimpleNamespace(batch_linear_assignment=batch_linear_assignment)
    )
    assert not lsap_device._failed
    monkeypatch.setattr(lsap_device, "_failed", False)  # whatever comes of it
    lsap_device.installed.cache_clear()
    yield given
    lsap_device.installed.cache_clear()


def many(kind, seed=0):
    """Two batches of 60 problems in all with up to 20 columns, 0 behind them; some rows are never matched."""
    rng = torch.Generator().manual_seed(seed)
    costs, counts, never = [], [], []
    for problems, rows, most in ((40, 30, 20), (20, 21, 7)):
        cost = torch.randn(problems, rows, most + 1, generator=rng)
        if kind == "ties":
            cost = cost.round()
        if kind == "bad":
            cost[torch.rand(cost.shape, generator=rng) < 0.1] = float("nan")
            cost[torch.rand(cost.shape, generator=rng) < 0.1] = float("inf")
            cost[3] = -float("inf")
        own = torch.randint(most + 1, (problems,), generator=rng).tolist()
        for each, count in zip(cost, own):
            each[:, count:] = 0
        costs.append(cost)
        counts.append(own)
        never.append(torch.rand(problems, rows, generator=rng) < 0.2 if kind != "ties" else None)
    return costs, counts, never


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["plain", "ties", "bad"])
@pytest.mark.parametrize("budget", [2**28, 20_000], ids=["whole", "blocks"])
def test_a_device_finds_the_pairs_that_the_host_finds(kind, seed, budget, device_solver, monkeypatch):
    costs, counts, never = many(kind, seed)
    before, told = [cost.clone() for cost in costs], []
    tolerate = told.append if kind == "bad" else None
    with using(memory_budget=budget):
        found = matched_columns(costs, counts, tolerate, never)
    assert {cost.shape[1:] for cost in device_solver} == {(30, 32 - 3), (21, 8)}  # buckets, but fewer than rows
    assert (len(device_solver) > 2) == (budget < 2**28)
    assert all(torch.equal(cost, was) or kind == "bad" for cost, was in zip(costs, before))
    monkeypatch.setattr(lsap_device, "MANY", 61)
    expected = matched_columns(costs, counts, tolerate, never)
    for mine, hosts in zip(found, expected, strict=True):
        assert torch.equal(mine, hosts)
    assert sum(int((mine >= 0).sum()) for mine in found) > 200
    if told:
        assert np.array_equal(*told)


def test_pairs_that_may_not_be_matched_are_as_dear_as_on_the_host(device_solver):
    """Of each problem: its own dearest pair, and padding costs nothing."""
    costs, counts, never = many("bad")
    matched_columns(costs, counts, lambda finite: None, never)
    for cost, own_counts, marks, given in zip(costs, counts, never, device_solver, strict=True):
        for problem, own, rows, matrix in zip(cost, own_counts, marks, given, strict=True):
            finite = problem[:, :own].isfinite() & ~rows[:, None]
            allowed = problem[:, :own][finite].double()
            dear = 1.0
            if len(allowed):
                dear = allowed.max() + (allowed.max() - allowed.min() + 1) * min(len(problem), own)
            assert torch.equal(matrix[:, :own], problem[:, :own].double().where(finite, dear))
            assert not matrix[:, own:].any()


def test_the_only_finite_pair_is_matched_on_a_device(device_solver):
    cost = torch.full((50, 4, 3), float("nan"))
    cost[:, 1, 2] = 5.0
    found = matched_columns([cost], [[3] * 50], lambda finite: None)[0]
    assert found.tolist() == [[-1, 2, -1, -1]] * 50


def test_bad_costs_on_a_device_raise_where_nothing_else_is_said(device_solver):
    costs, counts, never = many("plain")
    costs[1][2, 0, 0] = float("nan")
    with pytest.raises(InvalidCostError, match="problem 42 of 60"):
        matched_columns(costs, counts, None, never)


def test_few_problems_and_wide_ones_go_to_the_host(device_solver):
    costs, counts, never = many("plain")
    matched_columns(costs[:1], counts[:1], None, never[:1])
    matched_columns([*costs, torch.zeros(2, 4, 5)], [*counts, [0, 4]])
    assert device_solver == []
    matched_columns([torch.zeros(49, 4, 3)], [[3] * 49])
    assert device_solver == []
    found = matched_columns([torch.zeros(50, 4, 3), torch.zeros(0, 1, 3)], [[3] * 50, []])
    assert [cost.shape for cost in device_solver] == [(50, 4, 3)]
    assert [len(each) for each in found] == [50, 0]
    device_solver.clear()
    assert matched_columns([torch.zeros(60, 3, 2)], [[0] * 60])[0].eq(-1).all()
    assert device_solver == []  # nothing to solve


def test_without_the_package_or_on_a_cpu_the_host_solves(device_solver, monkeypatch):
    costs, counts, never = many("plain")
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "0")
    matched_columns(costs, counts, None, never)
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    monkeypatch.setitem(sys.modules, "torch_linear_assignment", None)
    lsap_device.installed.cache_clear()
    matched_columns(costs, counts, None, never)
    assert device_solver == []


def test_gpus_of_which_the_package_has_a_kernel(monkeypatch):
    """Compute capability 8.0 and CUDA."""
    capability = {0: (7, 5), 1: (8, 0), 2: (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[device.index])
    for version, expected in (("12.4", [False, True, True]), (None, [False, False, False])):
        monkeypatch.setattr(torch.version, "cuda", version)
        assert [lsap_device.solves(torch.device("cuda", index)) for index in capability] == expected
    assert not lsap_device.solves(torch.device("meta"))


def test_a_package_that_fails_is_not_asked_again(device_solver, monkeypatch, recwarn):
    asked = []

    def fail(cost):
        asked.append(cost)
        raise RuntimeError("no kernel")

    monkeypatch.setattr(sys.modules["torch_linear_assignment"], "batch_linear_assignment", fail)
    lsap_device.installed.cache_clear()
    costs, counts, never = many("plain")
    with pytest.warns(UserWarning, match="torch_linear_assignment failed, scipy goes on instead: no kernel") as said:
        first = matched_columns(costs, counts, None, never)
    assert said[0].filename == lsap.__file__
    again = matched_columns(costs, counts, None, never)
    assert len(asked) == 1
    assert all(torch.equal(one, other) for one, other in zip(first, again))


def test_a_full_device_is_the_assigners_business(device_solver, monkeypatch):
    def fail(cost):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(sys.modules["torch_linear_assignment"], "batch_linear_assignment", fail)
    lsap_device.installed.cache_clear()
    costs, counts, never = many("plain")
    with pytest.raises(torch.cuda.OutOfMemoryError):
        matched_columns(costs, counts, None, never)
