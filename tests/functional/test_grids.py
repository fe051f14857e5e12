"""Points on a grid: found as such, and enumerated by rows and columns."""

import pytest
import torch

from visdet_assigners.assigners import point, region
from visdet_assigners.functional.grids import Grid, crossings, grid_of
from visdet_assigners.settings import using


def points_of(columns, rows):
    y, x = torch.meshgrid(torch.tensor(rows), torch.tensor(columns), indexing="ij")
    return x.flatten(), y.flatten()


@pytest.mark.parametrize(
    ("columns", "rows"), [([1.0, 2.0, 9.0], [4.0, 5.0]), ([3.0], [1.0, 2.0]), ([3.0, 4.0], [7.0]), ([3.0], [7.0])]
)
def test_a_grid_is_found(columns, rows):
    grid = grid_of(*points_of(columns, rows))
    assert (grid.columns.tolist(), grid.rows.tolist()) == (columns, rows)


@pytest.mark.parametrize("wrong", [[1, 0, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 3, 1, 4, 2, 5], [0, 1, 2, 3, 5, 4]])
def test_other_points_are_no_grid(wrong):
    x, y = points_of([1.0, 2.0, 9.0], [4.0, 5.0])
    assert grid_of(x[wrong], y[wrong]) is None


def test_rows_that_only_begin_at_the_same_height_are_no_grid():
    x, y = points_of([1.0, 2.0, 9.0], [4.0, 5.0])
    y[4] += 0.5
    assert grid_of(x, y) is None


def test_crossings_are_all_points_in_marked_rows_and_columns():
    g = torch.Generator().manual_seed(0)
    grid = Grid(torch.arange(7.0), torch.arange(5.0))
    for share in (0.0, 0.3, 1.0):
        rows, columns = torch.rand(9, 5, generator=g) < share, torch.rand(9, 7, generator=g) < share
        rows[2], columns[4] = False, False
        expected = (rows[:, :, None] & columns[:, None]).flatten(1).nonzero()
        assert torch.equal(torch.stack(crossings(grid, rows, columns), dim=1), expected)


def extreme_boxes():
    """Flat, thin, tiny, huge, outside, on and between points: many points equally near after rounding."""
    g = torch.Generator().manual_seed(1)
    center = torch.rand(60, 2, generator=g) * 500 - 60
    center[::3] = (center[::3] / 4).round() * 4
    size = 10 ** (torch.rand(60, 2, generator=g) * 8 - 4)
    return torch.cat([center - size / 2, center + size / 2], dim=1)


def test_points_near_extreme_boxes_are_those_of_a_search_through_all(monkeypatch):
    x, y = points_of([8.0 * column for column in range(50)], [8.0 * row for row in range(40)])
    points = torch.stack([x, y, torch.full_like(x, 8.0)], dim=1)
    gts = extreme_boxes()
    found = point.point(points, gts, [len(points)], topk=1).gt_index
    monkeypatch.setattr(point, "grid_of", lambda x, y: None)
    assert torch.equal(point.point(points, gts, [len(points)], topk=1).gt_index, found)
    assert (found >= 0).sum() > 30


@pytest.mark.parametrize("budget", [1, 2**28])
def test_regions_of_extreme_boxes_are_those_of_a_search_through_all(budget, monkeypatch):
    anchors, sizes, shapes, strides = [], [], [(40, 50), (20, 25), (10, 13)], [8, 16, 32]
    for (height, width), stride in zip(shapes, strides):
        x, y = points_of([stride * float(i) for i in range(width)], [stride * float(i) for i in range(height)])
        anchors.append(torch.stack([x - 4 * stride, y - 4 * stride, x + 4 * stride, y + 4 * stride], dim=1))
        sizes.append(len(x))
    settings = (torch.cat(anchors), extreme_boxes(), sizes, shapes, strides, 8, 0.3, 0.6)
    with using(memory_budget=budget):
        found = region.region(*settings).gt_index
    monkeypatch.setattr(region, "grid_of", lambda x, y: None)
    assert torch.equal(region.region(*settings).gt_index, found)
    assert (found >= 0).any()
    assert (found == -2).any()
