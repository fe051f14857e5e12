"""Ties by index: the same with any budget, both ways, with any number of threads; scenes are full of ties."""

import functools
from functools import cache

import pytest
import torch
from mmengine.structures import InstanceData

import visdet_assigners as va
from assigners.cases import CASES
from scenes import Objects, anchors, points
from visdet_assigners.functional import select
from visdet_assigners.functional.blocks import set_memory_budget
from visdet_assigners.functional.select import cheapest, largest_of_each, nearest_per_level, top
from visdet_assigners.functional.ties import order_ties, ties_by_index

KINDS = ("grid", "duplicates", "centered", "piled")
every_case = pytest.mark.parametrize("name", CASES)
every_scene = pytest.mark.parametrize("kind", KINDS)


@cache
def tied(kind: str) -> Objects:
    """Objects side by side on a grid, the same objects four times, or objects whose centres lie on those of anchors."""
    step = torch.arange(8.0, 200, 32)
    corner = torch.cartesian_prod(step + 24, step)  # (36, 2) x and y
    boxes = {
        "grid": torch.cat([corner, corner + 32], dim=1),
        "piled": torch.cat([corner - 56, corner + 88], dim=1)[::4],
        "duplicates": torch.cat([corner, corner + 48], dim=1)[:9].repeat(4, 1),
        "centered": torch.cat([corner - 24, corner + 24], dim=1).clamp(min=0),
    }[kind]
    return Objects(kind, boxes, torch.arange(len(boxes)) % 7, torch.zeros(0, 4), (240, 320), num_classes=7)


def equal_predictions(pred: InstanceData, objects: Objects) -> InstanceData:
    """Predictions without a difference but for their place: boxes around their priors, the same score everywhere.

    In the scene of that name the priors lie piled up on each other, at every 64 pixels.
    """
    pred = pred.clone()
    if objects.name == "piled" and "priors" in pred:
        are_points = len(pred) == len(points(objects))
        center = pred.priors[:, :2] if are_points else (pred.priors[:, :2] + pred.priors[:, 2:]) / 2
        move = (center / 64).floor() * 64 + 32 - center
        move = torch.cat([move, torch.zeros_like(move) if are_points else move], dim=1)
        pred.priors = pred.priors + move
        if "approxs" in pred:
            pred.approxs = pred.approxs + move[:, None]
    if "scores" in pred:
        pred.scores = torch.full((len(pred), objects.num_classes), 0.25)
    for field in ("bboxes", "decoder_priors"):
        if field in pred and len(pred) == len(points(objects)):
            pred.set_field(torch.cat([pred.priors[:, :2] - 24, pred.priors[:, :2] + 24], dim=1), field)
        elif field in pred and "priors" in pred:
            pred.set_field(pred.priors.clone(), field)
        elif field in pred:  # queries
            pred.set_field(anchors(objects)[0][: len(pred)].clone(), field)
    if "masks" in pred:
        pred.masks = pred.masks.round()
    return pred


def result(name: str, kind: str, deterministic: bool | None = True, compile: bool = False) -> list[torch.Tensor]:
    """All tensors of a result."""
    case, objects = CASES[name], tied(kind)
    assigner = case.build()
    assigner.deterministic, assigner.compile = deterministic, compile
    found = case.call(assigner, equal_predictions(case.pred(objects), objects), case.gt(objects), None, objects)
    tensors = [found.gt_inds, found.labels, found.max_overlaps, getattr(found, "assign_metrics", None)]
    tensors += [value for key, value in found.info.items() if key not in ("num_gts", "num_preds")]
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]


def same(mine: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(mine, others, strict=True))


def by_sorting(values, count, dim, largest):
    """What ``top`` is meant to be."""
    found = values.sort(dim=dim, descending=largest, stable=True)
    return found.values.narrow(dim, 0, count), found.indices.narrow(dim, 0, count)


@every_case
@every_scene
def test_the_same_at_every_block_size_both_ways_and_with_any_number_of_threads(name, kind, monkeypatch):
    expected = result(name, kind)
    assert (expected[0] > 0).any()
    for way in ("0", "1"):
        monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
        for threads, budget in ((2, 3_000), (1, 1_000_000), (2, None)):
            set_memory_budget(budget)
            torch.set_num_threads(threads)
            try:
                assert same(result(name, kind), expected), (way, threads, budget)
            finally:
                torch.set_num_threads(1)
                set_memory_budget(None)


@every_case
@every_scene
def test_the_first_of_equals_is_taken(name, kind, monkeypatch):
    expected = result(name, kind)
    for module in (select, *(vars(va.assigners)[file] for file in ("point", "task_aligned", "uniform"))):
        monkeypatch.setattr(module, "top", by_sorting)
    assert same(result(name, kind), expected)


def test_it_matters(monkeypatch):
    """Without it these scenes come out in torch's order, here or on a device."""
    other = set()
    for way in ("0", "1"):
        monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
        other |= {name for name in CASES for kind in KINDS if not same(result(name, kind), result(name, kind, False))}
    chosen = {"ATSS", "TaskAligned", "SimOTA", "DynamicSoftLabel", "Uniform", "CenterRegion", "Point", "MultiInstance"}
    assert other == {f"{name}Assigner" for name in chosen} | {"ATSSAssigner-ddod"}


@pytest.mark.parametrize("name", [name for name in CASES if "Hungarian" in name])
@every_scene
def test_hungarian_matching_is_deterministic_anyway(name, kind):
    assert same(result(name, kind), result(name, kind, deterministic=False))


def test_top_is_a_stable_sort_cut_off():
    g = torch.Generator().manual_seed(0)
    for _ in range(300):
        rows, columns = (int(torch.randint(1, high, (), generator=g)) for high in (5, 40))
        count = int(torch.randint(0, columns + 1, (), generator=g))
        values = torch.randint(-3, 4, (rows, columns), generator=g).float()
        values[values.abs() == 3] *= float("inf")
        for largest in (False, True):
            with order_ties(by_index=True):
                for dim, table in ((1, values), (0, values.T)):
                    found, expected = top(table, count, dim, largest), by_sorting(table, count, dim, largest)
                    assert all(map(torch.equal, found, expected))


def test_what_is_chosen_by_index():
    with order_ties(by_index=True):
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
    with order_ties(by_index=True):
        assert ties_by_index()
        with order_ties(by_index=None):
            assert not ties_by_index()
    va.set_deterministic(None)
    assert ties_by_index()


def test_the_package_decides_where_the_assigner_does_not():
    by_index, as_torch = (result("UniformAssigner", "grid", deterministic) for deterministic in (True, False))
    assert not same(by_index, as_torch)
    va.set_deterministic(True)
    try:
        assert same(result("UniformAssigner", "grid", deterministic=None), by_index)
        assert same(result("UniformAssigner", "grid", deterministic=False), as_torch)
    finally:
        va.set_deterministic(None)
