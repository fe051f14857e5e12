"""How work is cut into blocks: as the budget, the cache and the device say; what is far apart is left out."""

import pytest
import torch

from visdet_assigners import settings
from visdet_assigners.functional.blocks import CACHE, bounding_boxes, split, static_shapes, touching
from visdet_assigners.settings import DEFAULT_BUDGET, checked_budget, memory_budget, set_memory_budget, using

CPU = torch.device("cpu")


def sizes(count, **kwargs):
    return [block.stop - block.start for block in split(count, device=CPU, **kwargs)]


@pytest.mark.parametrize("way", ["0", "1"])
def test_blocks_fit_the_budget_and_on_a_cpu_the_cache(way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    assert static_shapes(CPU) == (way == "1")
    with using(memory_budget=1000):
        assert sizes(0, bytes_each=10) == []
        assert sizes(250, bytes_each=10) == [100, 100, 50]
        assert sizes(3, bytes_each=1001) == [1, 1, 1]
        assert sizes(3, bytes_each=0) == [3]
        assert sizes(5, bytes_each=500, least=4) == [2, 2, 1]  # the budget comes first
    with using(memory_budget=10 * CACHE):
        assert sizes(25, bytes_each=CACHE) == ([1] * 25 if way == "0" else [10, 10, 5])
        assert sizes(25, bytes_each=CACHE, least=4) == ([4] * 6 + [1] if way == "0" else [10, 10, 5])
        assert sizes(25, bytes_each=CACHE // 5, least=4) == ([5] * 5 if way == "0" else [25])


def test_blocks_of_single_bytes():
    with using(memory_budget=1000):
        assert sizes(1000, bytes_each=1) == [1000]
    with using(memory_budget=10 * CACHE):
        assert sizes(CACHE, bytes_each=1) == [CACHE]


def test_what_is_traced_has_one_block(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert static_shapes(CPU)
    with using(memory_budget=10):
        assert split(7, 1000, CPU) == [slice(0, 7)]


def test_shapes_are_static_on_every_other_device(monkeypatch):
    monkeypatch.delenv("VISDET_ASSIGNERS_DEVICE_PATH", raising=False)
    assert static_shapes(torch.device("meta"))
    assert static_shapes(torch.device("cuda", 1))
    assert not static_shapes(CPU)


def test_whose_budget_counts(monkeypatch):
    monkeypatch.delenv("VISDET_ASSIGNERS_MEMORY_BUDGET", raising=False)
    assert memory_budget() == DEFAULT_BUDGET == 2**28
    monkeypatch.setenv("VISDET_ASSIGNERS_MEMORY_BUDGET", "3000")
    assert memory_budget() == 3000
    set_memory_budget(2000)
    try:
        assert memory_budget() == 2000
        with using(memory_budget=1000):
            assert memory_budget() == 1000
        assert memory_budget() == 2000
    finally:
        set_memory_budget(None)
    assert memory_budget() == 3000
    monkeypatch.setenv("VISDET_ASSIGNERS_MEMORY_BUDGET", "plenty")
    with pytest.raises(ValueError, match="'plenty'; give a positive number of bytes"):
        memory_budget()
    assert checked_budget(1) == 1
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"budget is {wrong}"):
            set_memory_budget(wrong)
    assert settings._of_package.memory_budget is None


def test_boxes_around_blocks():
    boxes = torch.tensor([[0.0, 5, 2, 7], [1, 1, 3, 6], [9, 9, 9, 9]])
    expected = [[0.0, 1, 3, 7], [9, 9, 9, 9]]
    assert bounding_boxes(boxes, [slice(0, 2), slice(2, 3)]).tolist() == expected
    assert bounding_boxes(boxes[:, None], [slice(0, 2), slice(2, 3)]).tolist() == expected


@pytest.mark.parametrize("reach", [0.0, 3.0])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("side", [-1, 1])
def test_boxes_within_reach_touch(reach, axis, side):
    bounds = torch.tensor([[10.0, 10, 20, 20]])
    gap = torch.tensor([0.0, reach, reach + 0.5])
    boxes = bounds.repeat(3, 1)
    boxes[:, [axis, axis + 2]] += side * (10 + gap)[:, None]
    assert touching(bounds, boxes, reach).tolist() == [[True, True, False]]
    assert touching(bounds, bounds).tolist() == [[True]]
    assert touching(bounds, boxes).tolist() == [[True, reach == 0, False]]  # where nothing is said, borders must meet
