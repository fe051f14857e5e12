"""Geometry of boxes: the reference is mmdet's, bit by bit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures.bbox import bbox_overlaps, bbox_xyxy_to_cxcywh

from visdet_assigners.functional.boxes import (
    FAR,
    border_distance,
    box_area,
    box_center,
    box_iou,
    box_overlaps,
    center_distance,
    common_origin,
    l1_distance,
    xyxy_to_cxcywh,
)
from visdet_assigners.settings import using

coordinate = st.floats(-1000, 1000, width=32)
box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
)
boxes = st.lists(box, min_size=0, max_size=8).map(lambda rows: torch.tensor(rows).reshape(-1, 4))


@given(boxes, boxes, st.sampled_from(["iou", "iof", "giou"]))
def test_overlaps_are_mmdets_to_the_last_bit(first, second, mode):
    assert torch.equal(box_overlaps(first, second, mode), bbox_overlaps(first, second, mode))
    count = min(len(first), len(second))
    aligned = box_overlaps(first[:count], second[:count], mode, aligned=True)
    assert torch.equal(aligned, bbox_overlaps(first[:count], second[:count], mode, is_aligned=True))


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_0_and_1(first, second):
    iou = box_iou(first, second)
    assert torch.equal(iou, box_iou(second, first).T)
    assert ((iou >= 0) & (iou <= 1)).all()


@given(boxes)
def test_iou_with_itself_is_1_unless_there_is_no_area(some):
    own = box_overlaps(some, some, aligned=True)
    assert (own[box_area(some) > 1e-6] == 1).all()
    assert (own[box_area(some) == 0] == 0).all()


def test_batches_of_images():
    g = torch.Generator().manual_seed(0)
    first, second = (torch.rand(3, n, 2, 2, generator=g).sort(dim=2).values.flatten(2) for n in (5, 7))
    together = box_overlaps(first, second)
    assert together.shape == (3, 5, 7)
    for image in range(3):
        assert torch.equal(together[image], box_iou(first[image], second[image]))


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="mode is 'diou'"):
        box_overlaps(torch.zeros(1, 4), torch.zeros(1, 4), "diou")
    with pytest.raises(ValueError, match="got 1 and 2"):
        box_overlaps(torch.zeros(1, 4), torch.zeros(2, 4), aligned=True)


@given(boxes)
def test_centres_and_sizes(some):
    assert torch.equal(xyxy_to_cxcywh(some), bbox_xyxy_to_cxcywh(some))
    assert torch.equal(torch.stack(box_center(some), dim=1), xyxy_to_cxcywh(some)[:, :2])


@given(boxes, boxes)
def test_distance_of_centres(first, second):
    expected = torch.stack(box_center(first), 1)[:, None] - torch.stack(box_center(second), 1)
    assert torch.equal(center_distance(first, second), expected.pow(2).sum(-1).sqrt())


@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
@pytest.mark.parametrize("shapes", [((57, 4), (41, 4)), ((3, 30, 4), (3, 7, 4)), ((0, 4), (5, 4)), ((5, 4), (0, 4))])
def test_l1_distances_are_those_of_cdist_to_the_last_bit(way, shapes, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    generator = torch.Generator().manual_seed(0)
    first, second = (300 * torch.randn(*shape, generator=generator) for shape in shapes)
    expected = torch.cdist(first, second, p=1)
    assert torch.equal(l1_distance(first, second), expected)
    with using(memory_budget=2000):
        assert torch.equal(l1_distance(first, second), expected)


def test_l1_distances_on_a_device_keep_to_the_memory_budget(monkeypatch):
    """No difference of all pairs is there at once; ``cdist``, slow on a device, is not called."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    monkeypatch.setattr(torch, "cdist", None)
    made, subtract = [], torch.Tensor.__sub__
    monkeypatch.setattr(torch.Tensor, "__sub__", lambda *pair: made.append(subtract(*pair)) or made[-1])
    boxes = torch.rand(100, 4)
    with using(memory_budget=5 * 4 * 50 * 30):
        assert l1_distance(boxes, boxes[:50]).shape == (100, 50)
    assert [each.shape for each in made] == [(30, 50, 4)] * 3 + [(10, 50, 4)]


def test_distance_to_the_border():
    square = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    x, y = torch.tensor([[5.0], [9.0], [12.0], [5.0]]), torch.tensor([[10.0], [10.0], [10.0], [20.0]])
    assert border_distance(x, y, square)[:, 0].tolist() == [5, 1, -2, 0]


@pytest.mark.parametrize("side", [1, -1])
def test_the_origin_of_boxes_that_are_all_far(side):
    """Axis by axis: here all are far along x; along y the second is a pixel too near."""
    far = side * FAR
    boxes = torch.tensor([[far, far, far + 9, far + 9], [far * 2, far - side, far * 2 + 9, far + 9]])
    if side < 0:
        boxes = boxes - torch.tensor([9.0, 9, 9, 9])
    first, second = boxes[0, 0].item(), boxes[0, 1].item()
    boxes[1, 1] = side * (FAR - 1)
    assert common_origin(boxes).tolist() == [first, 0, first, 0]
    boxes[1, 1] = side * FAR
    assert common_origin(boxes).tolist() == [first, second, first, second]
    assert common_origin(torch.tensor([[side * FAR, 0, 0, 0]])).tolist() == [side * FAR, 0, side * FAR, 0]


def test_where_float32_tells_eighths_of_a_pixel():
    assert torch.tensor(FAR) + 0.125 != FAR
    assert torch.tensor(FAR) + 0.06 == FAR


def test_boxes_of_less_than_a_millionth_of_a_pixel():
    """Unions count as at least that much."""
    tiny = torch.tensor([[0.0, 0.0, 0.001, 0.0005]])
    assert box_iou(tiny, tiny).item() == pytest.approx(0.5)
