"""Rotated boxes as records keep them and pictures show them: corners, sizes of their own, polygons."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

import visdet_assigners as va
from pixels import Rendered, is_color
from rotated import RowOverlaps, TurnedBoxes, rows_of
from visdet_assigners.observe.draw import draw_assignments, object_colors, object_table
from visdet_assigners.observe.outlines import are_inside, around, corners_of, rotated_corners, sides
from visdet_assigners.observe.panels import panels_of
from visdet_assigners.observe.records import AssignmentCall, as_record
from visdet_assigners.observe.statistics import ObjectTable, PriorCounts, match_quality
from visdet_assigners.testing.scenes import generator

DIAMOND = torch.tensor([[100.0, 60.0, 40.0, 40.0, torch.pi / 4]])
IMAGE = np.full((120, 200, 3), 200, dtype=np.uint8)


def record_of(priors, gts, regions=None, **fields):
    """What the tap keeps of a call of MaxIoU."""
    pred, gt = InstanceData(priors=priors, **fields), InstanceData(bboxes=gts, labels=torch.zeros(len(gts)).long())
    ignore = None if regions is None else InstanceData(bboxes=regions)
    result = va.MaxIoUAssigner(0.5, 0.4, iou_calculator=RowOverlaps()).assign(pred, gt, ignore)
    arguments = dict(pred_instances=pred, gt_instances=gt, gt_instances_ignore=ignore)
    return as_record(AssignmentCall("head", "assigner", va.MaxIoUAssigner(0.5, 0.4), 0, 0, None, arguments, result))


def test_corners_go_around_and_have_the_sides():
    boxes = rows_of(torch.rand(20, 4, generator=generator(4)).cumsum(dim=1) * 40, seed=3)
    corners = rotated_corners(boxes)
    assert torch.allclose(sides(corners), boxes[:, 2:4], atol=1e-4)
    assert torch.allclose(corners.mean(dim=1), boxes[:, :2], atol=1e-4)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
    assert torch.allclose((first * second).sum(dim=1), torch.zeros(20), atol=1e-2)
    turn = torch.atan2(first[:, 1], first[:, 0])
    assert torch.allclose(turn, boxes[:, 4], atol=1e-4)
    for share, inside in ((0.95, True), (1.05, False)):
        near = boxes[:, None, :2] + share * (corners - boxes[:, None, :2])  # (20, 4, 2), on the way to each corner
        for points in near.unbind(1):
            assert are_inside(points, corners).diagonal().eq(inside).all()


@pytest.mark.parametrize(
    ("boxes", "columns", "expected"),
    [
        (None, None, None),
        (torch.rand(3, 4), None, None),
        (HorizontalBoxes(torch.rand(3, 4)), None, None),
        (torch.rand(3, 5), None, (3, 4, 2)),
        (torch.rand(3, 5), 5, (3, 4, 2)),
        (torch.rand(3, 5), 4, None),  # a score behind the box
        (torch.rand(3, 3), 5, None),  # points
        (torch.rand(3, 8), None, (3, 4, 2)),
        (TurnedBoxes(torch.rand(3, 5)), 4, (3, 4, 2)),
        (torch.rand(0, 5), None, (0, 4, 2)),
    ],
)
def test_which_boxes_have_corners(boxes, columns, expected):
    found = corners_of(boxes, columns)
    assert expected == (None if found is None else tuple(found.shape))


def test_a_record_keeps_upright_boxes_around_them():
    priors = torch.cat([DIAMOND, DIAMOND + torch.tensor([[50.0, 0.0, 0.0, 0.0, 0.0]])])
    record = record_of(TurnedBoxes(priors), TurnedBoxes(DIAMOND), TurnedBoxes(DIAMOND))
    reach = 20 * 2**0.5
    expected = torch.tensor([[100 - reach, 60 - reach, 100 + reach, 60 + reach]])
    assert torch.allclose(record.gt_boxes, expected)
    assert torch.allclose(record.priors[:1], expected)
    assert torch.allclose(record.ignored_boxes, expected)
    assert record.corners.keys() == {"gt_boxes", "ignored_boxes", "priors"}
    assert torch.equal(around(record.corners["priors"]), record.priors)
    assert torch.allclose(record.gt_sizes, torch.tensor([[40.0, 40.0]]))
    assert record.gt_index.tolist() == [0, -1]


def test_upright_boxes_are_as_before():
    priors, gts = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 8.0]])
    pred, gt = SimpleNamespace(priors=priors), SimpleNamespace(bboxes=gts, labels=torch.tensor([0]))
    result = va.MaxIoUAssigner(0.5, 0.4).assign(pred, gt)
    arguments = dict(pred_instances=pred, gt_instances=gt)
    record = as_record(AssignmentCall("head", "assigner", None, 0, 0, None, arguments, result))
    assert record.corners == {}
    assert torch.equal(record.priors, priors)
    assert record.gt_sizes.tolist() == [[10.0, 8.0]]


def test_pictures_show_polygons():
    """The border of a rotated box and of a positive proposal, and nothing at the corners of the box around it."""
    proposals = torch.cat([DIAMOND + torch.tensor([[4.0, 0, 0, 0, 0]]), DIAMOND + torch.tensor([[60.0, 30, -9, 3, 1]])])
    record = record_of(TurnedBoxes(proposals), TurnedBoxes(DIAMOND))
    figure = draw_assignments(IMAGE, [record], panel_width=800)
    pixel = Rendered(figure)
    (red,) = object_colors(1)
    reach = 20 * 2**0.5
    background = pixel(0, 8, 8)
    edge = [(100 - reach / 2, 60 - reach / 2), (100 + reach / 2, 60 + reach / 2)]
    assert all(is_color(pixel(0, x, y), red, 0.3) for x, y in edge)
    assert is_color(pixel(0, 100 - reach, 60 - reach), background)
    assert is_color(pixel(0, 100, 60 - reach + 0.2), red, 0.45)
    (panel,) = panels_of(record)
    assert panel.boxes.shape == (2, 4, 2)
    assert object_table(record, [panel])[1][2] == "40x40"


def test_statistics_take_their_own_sizes():
    record = record_of(TurnedBoxes(DIAMOND), TurnedBoxes(torch.cat([DIAMOND, DIAMOND + 1])))
    table = ObjectTable.of([record], [0])
    assert np.allclose(table.size, [40, 41], atol=1e-3)
    assert PriorCounts.of([record]).contested == 1
    outside = DIAMOND.clone()
    outside[0, :2] -= 24  # in the corner of the upright box around the other, not in that itself
    record = record_of(TurnedBoxes(DIAMOND), TurnedBoxes(torch.cat([DIAMOND, outside])))
    assert PriorCounts.of([record]).contested == 0
    assert torch.equal(match_quality(record), record.quality)
