"""Who may match and who wins, against plain loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visdet_assigners.functional import lsap
from visdet_assigners.functional.blocks import split
from visdet_assigners.functional.lsap import linear_assignment
from visdet_assigners.functional.overlaps import best_ground_truths, best_priors, table_of
from visdet_assigners.functional.resolve import keep_best, last_claim, match_dynamic_k
from visdet_assigners.functional.select import cheapest, dynamic_k, largest_of_each, nearest_per_level
from visdet_assigners.settings import using

seeds = st.integers(0, 10**6)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@given(seeds, st.integers(1, 6), st.integers(1, 6), st.integers(1, 9))
def test_keep_best(seed, rows, num_gts, num_priors):
    g = generator(seed)
    rows = min(rows, num_priors)
    candidates = torch.stack([torch.randperm(num_priors, generator=g)[:rows] for _ in range(num_gts)], dim=1)
    claimed = torch.rand(rows, num_gts, generator=g) < 0.6
    quality = torch.randint(4, (rows, num_gts), generator=g) / 4  # few values, so that there are ties
    gt_index, row = keep_best(candidates, claimed, quality, num_priors)
    for prior in range(num_priors):
        best, winner, at = -1.0, -1, 0
        for gt in range(num_gts):
            for r in range(rows):
                if claimed[r, gt] and candidates[r, gt] == prior and quality[r, gt] > best:
                    best, winner, at = quality[r, gt].item(), gt, r
        assert gt_index[prior] == winner
        assert row[prior] == at


def take_best(iou, allowed, share):
    table = table_of(iou.mT)
    return best_priors(table, best_ground_truths(table)[2], allowed, share)


@given(seeds, st.integers(1, 7), st.integers(1, 7), st.booleans())
def test_last_claims_and_best_priors(seed, num_priors, num_gts, share):
    g = generator(seed)
    iou = torch.randint(3, (2, num_priors, num_gts), generator=g) / 2
    allowed = torch.rand(2, num_gts, generator=g) < 0.7
    claims = iou > 0.4
    last, taken = last_claim(claims), take_best(iou, allowed, share)
    for image in range(2):
        expected = [-1] * num_priors
        for gt in range(num_gts):
            column = iou[image, :, gt].tolist()
            takers = [prior for prior, value in enumerate(column) if value == max(column)]
            for prior in (takers if share else takers[:1]) if allowed[image, gt] else ():
                expected[prior] = gt
        assert taken[image].tolist() == expected
        for prior in range(num_priors):
            assert last[image, prior] == max([-1, *claims[image, prior].nonzero().flatten().tolist()])


def test_nearest_per_level():
    distance = torch.tensor([[3.0, 1.0, 2.0, 9.0, 8.0]])
    assert nearest_per_level(distance, [3, 0, 2], topk=2)[0].tolist() == [1, 2, 4, 3]
    assert nearest_per_level(distance, [3, 2], topk=9)[0].tolist() == [1, 2, 0, 4, 3]


@given(seeds, st.integers(1, 30), st.integers(1, 6))
def test_cheapest_are_as_many_as_asked_and_none_left_is_cheaper(seed, num_priors, num_gts):
    g = generator(seed)
    cost = torch.rand(num_priors, num_gts, generator=g)
    counts = torch.randint(min(num_priors, 5) + 1, (num_gts,), generator=g)
    chosen = cheapest(cost, counts.tolist(), limit=5)
    assert torch.equal(chosen, cheapest(cost, counts, limit=5))
    assert torch.equal(chosen.sum(0), counts)
    for gt in range(num_gts):
        taken = chosen[:, gt]
        if 0 < counts[gt] < num_priors:
            assert cost[taken, gt].max() <= cost[~taken, gt].min()


@given(seeds, st.integers(1, 20), st.integers(1, 5), st.integers(1, 12))
def test_dynamic_k_matching(seed, num_priors, num_gts, topk):
    g = generator(seed)
    cost, iou = torch.rand(num_priors, num_gts, generator=g), torch.rand(num_priors, num_gts, generator=g)
    allowed = torch.rand(num_gts, generator=g) < 0.8
    taken = [[] for _ in range(num_priors)]
    for gt in allowed.nonzero().flatten().tolist():
        largest = iou[:, gt].sort(descending=True).values[:topk]
        count = max(1, int(largest.sum()))
        assert dynamic_k(largest[:, None]) == int(largest.sum())
        for prior in cost[:, gt].argsort()[:count].tolist():
            taken[prior].append(gt)
    expected = [-1 if not by else by[0] if len(by) == 1 else None for by in taken]
    masked = cost.masked_fill(~allowed, float("inf"))
    expected = [masked[prior].argmin().item() if gt is None else gt for prior, gt in enumerate(expected)]
    for budget in (1, 10**9):
        with using(memory_budget=budget):
            matched, matched_iou = match_dynamic_k(
                lambda block: iou.T[block],
                lambda block, _: cost.T[block].clone(),
                torch.ones(num_priors, dtype=torch.bool),
                allowed,
                topk,
            )
        assert matched.tolist() == expected
        own = iou.gather(1, matched.clamp(min=0)[:, None])[:, 0]
        assert torch.equal(matched_iou, torch.where(matched >= 0, own, 0))


@settings(deadline=None)
@given(seeds, st.integers(0, 6), st.integers(0, 6), st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_linear_assignment_pairs_as_many_as_there_are(seed, num_rows, num_columns, dtype):
    cost = torch.rand(num_rows, num_columns, generator=generator(seed)).to(dtype)
    rows, columns = linear_assignment(cost)
    assert len(rows) == len(columns) == min(num_rows, num_columns)
    assert len(rows.unique()) == len(columns.unique()) == len(rows)
    assert torch.equal(rows, rows.sort().values)


@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
def test_costs_that_are_not_finite_are_refused(way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    with pytest.raises(ValueError, match="the costs contain invalid numeric entries"):
        linear_assignment(torch.tensor([[float("nan"), 1.0]]))
    with pytest.raises(lsap.InvalidCostError, match="problem 1 of 2") as error:
        lsap.linear_assignments([torch.zeros(2, 3), torch.tensor([[float("inf")]])])
    assert error.value.problem == 1


@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
@pytest.mark.parametrize("threaded", [1, 10**9])
def test_many_problems_are_solved_as_one_by_one(way, threaded, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    monkeypatch.setattr(lsap, "THREADED", threaded)
    costs = [torch.rand(rows, columns, generator=generator(rows)) for rows, columns in ((5, 3), (0, 2), (4, 9), (6, 6))]
    for cost, pairs in zip(costs, lsap.linear_assignments(costs), strict=True):
        for mine, alone in zip(pairs, linear_assignment(cost)):
            assert torch.equal(mine, alone)
    assert lsap.linear_assignments([]) == []


@given(st.integers(0, 50), st.integers(1, 100), st.integers(1, 300))
def test_blocks_cover_all_rows_once(num_rows, bytes_per_row, budget):
    with using(memory_budget=budget):
        slices = split(num_rows, bytes_per_row, torch.device("cpu"))
    assert [row for piece in slices for row in range(num_rows)[piece]] == list(range(num_rows))
    assert all(
        piece.stop - piece.start == 1 or (piece.stop - piece.start) * bytes_per_row <= budget for piece in slices
    )


@pytest.mark.parametrize("way", ["0", "1"])
@pytest.mark.parametrize("budget", [1, 10**6], ids=["one object a block", "all at once"])
def test_a_prior_that_two_want_at_the_same_cost_goes_to_the_first(way, budget, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    iou, cost = torch.full((3, 4), 0.6), torch.tensor([[5.0, 1.0, 2.0, 2.0]]).expand(3, 4)
    with using(memory_budget=budget):
        gt_index, quality = match_dynamic_k(
            lambda block: iou[block].clone(),
            lambda block, _: cost[block].clone(),
            torch.ones(4, dtype=torch.bool),
            torch.tensor([False, True, True]),
            topk=1,
        )
    assert gt_index.tolist() == [-1, 1, -1, -1]
    assert quality.tolist() == pytest.approx([0, 0.6, 0, 0])


@pytest.mark.parametrize("way", ["0", "1"])
def test_a_candidate_whose_cost_overflows_is_still_cheaper_than_what_is_none(way, monkeypatch):
    """On a device, where the others are there, too; a CPU is given the candidates alone."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    candidates = torch.tensor([True] if way == "0" else [False, False, True])
    gt_index, quality = match_dynamic_k(
        lambda block: torch.full((1, len(candidates)), 0.5),
        lambda block, _: torch.full((1, len(candidates)), float("inf")),
        candidates,
        torch.tensor([True]),
        topk=3,
    )
    assert gt_index.tolist() == [-1] * (len(candidates) - 1) + [0]
    assert quality.tolist() == [0] * (len(candidates) - 1) + [0.5]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_largest_of_each_owner(count):
    """Rows of an owner that has fewer are followed by the number of values, which is none of them."""
    values, owners = torch.tensor([5.0, 1.0, 7.0, 5.0, 2.0]), torch.tensor([1, 3, 1, 1, 0])
    for by_index in (True, False):
        with using(deterministic=by_index):
            found = largest_of_each(values, owners, 4, count)
        expected = torch.tensor([[4, 5, 5], [2, 0, 3], [5, 5, 5], [1, 5, 5]])
        if by_index:
            assert torch.equal(found, expected[:, :count])
        assert torch.equal(values_of(found, values), values_of(expected[:, :count], values))


def values_of(rows, values):
    return torch.cat([values, torch.tensor([float("-inf")])])[rows]
