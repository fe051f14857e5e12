"""Matching on the host: every problem by brute force, costs that are not finite, and when threads are used."""

from itertools import permutations

import numpy as np
import pytest
import torch

from visdet_assigners.functional import lsap
from visdet_assigners.functional.lsap import InvalidCostError, matched_columns, repeated_assignments, solve, solve_one


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
