"""Geometry of masks."""

import pytest
import torch

from visdet_assigners.functional.masks import center_of_mass, mask_boxes


def test_boxes_around_masks():
    masks = torch.zeros(4, 6, 9)
    masks[0, 2:4, 3:8] = 1
    masks[1, 0, 0] = masks[1, 5, 8] = 1  # two pixels in opposite corners
    masks[2, 1, 4] = 1
    assert mask_boxes(masks).tolist() == [[3, 2, 8, 4], [0, 0, 9, 6], [4, 1, 5, 2], [0, 0, 0, 0]]
    assert mask_boxes(masks.bool()).tolist() == mask_boxes(masks).tolist()
    assert mask_boxes(masks[:0]).shape == (0, 4)


def test_centres_of_masks():
    masks = torch.zeros(3, 5, 7)
    masks[0, 1, 2] = masks[0, 4, 5] = 1
    masks[1] = 1e-7 / 35  # of soft masks, sums of less than a ten millionth count as that much
    for given in (masks, masks.double()):
        assert center_of_mass(given)[0].tolist() == [3.5, 2.5]
        assert center_of_mass(given)[1].tolist() == pytest.approx([3, 2], rel=1e-3)
        assert center_of_mass(given)[2].tolist() == [0, 0]
    assert center_of_mass(masks / 2)[1].tolist() == pytest.approx([1.5, 1], rel=1e-3)
    assert center_of_mass(masks[:1].bool()).tolist() == [[3.5, 2.5]]
