"""Geometry of masks."""

import torch

from visdet_assigners.functional.masks import mask_boxes


def test_boxes_around_masks():
    masks = torch.zeros(4, 6, 9)
    masks[0, 2:4, 3:8] = 1
    masks[1, 0, 0] = masks[1, 5, 8] = 1  # two pixels in opposite corners
    masks[2, 1, 4] = 1
    assert mask_boxes(masks).tolist() == [[3, 2, 8, 4], [0, 0, 9, 6], [4, 1, 5, 2], [0, 0, 0, 0]]
    assert mask_boxes(masks.bool()).tolist() == mask_boxes(masks).tolist()
    assert mask_boxes(masks[:0]).shape == (0, 4)
