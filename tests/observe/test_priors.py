"""The grid that priors stand on is found again in a plain list of them."""

import pytest
import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator, MlvlPointGenerator

from scenes import draw_boxes, feature_sizes
from visdet_assigners.observe.priors import are_points, centers_and_sizes, grid_stride, infer_level_sizes

STRIDES = [8, 16, 32, 64, 128]
ANCHORS = {
    "one": {"ratios": [1.0], "scales": [8]},
    "rpn": {"ratios": [0.5, 1.0, 2.0], "scales": [8]},
    "retina": {"ratios": [0.5, 1.0, 2.0], "octave_base_scale": 4, "scales_per_octave": 3},
    "centred": {"ratios": [1.0, 3.0], "scales": [5], "center_offset": 0.5},
}
IMAGES = [(240, 320), (301, 403), (800, 1333)]


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("kind", ANCHORS)
def test_levels_of_anchors(kind, image):
    levels = AnchorGenerator(strides=STRIDES, **ANCHORS[kind]).grid_priors(feature_sizes(image, STRIDES), device="cpu")
    assert infer_level_sizes(torch.cat(levels)) == tuple(map(len, levels))
    strides = [grid_stride(centers_and_sizes(level)[0]) for level in levels]
    assert strides == STRIDES


@pytest.mark.parametrize("kind", ANCHORS)
def test_levels_without_the_anchors_outside_the_image(kind):
    image = (301, 403)
    levels = AnchorGenerator(strides=STRIDES, **ANCHORS[kind]).grid_priors(feature_sizes(image, STRIDES), device="cpu")
    inside = [
        level[(level[:, :2] >= 0).all(1) & (level[:, 2] <= image[1]) & (level[:, 3] <= image[0])] for level in levels
    ]
    assert infer_level_sizes(torch.cat(inside)) == tuple(len(level) for level in inside if len(level))


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("offset", [0, 0.5])
def test_levels_of_points(offset, image):
    strides = [8, 16, 32]
    generator = MlvlPointGenerator(strides, offset=offset)
    levels = generator.grid_priors(feature_sizes(image, strides), device="cpu", with_stride=True)
    for columns in (3, 4):  # one stride, or one for each axis
        priors = torch.cat(levels)[:, :columns]
        assert are_points(priors)
        assert infer_level_sizes(priors) == tuple(map(len, levels))
    centers, sizes = centers_and_sizes(levels[1])
    assert centers.tolist() == levels[1][:, :2].tolist()
    assert sizes.unique().tolist() == [16]


@pytest.mark.parametrize("count", [1, 3, 7, 200, 1000])
def test_proposals_are_on_no_grid(count):
    proposals = draw_boxes(count, (480, 640), "mixed", seed=1)
    assert not are_points(proposals)
    assert infer_level_sizes(proposals) is None


def test_barely_moved_anchors_are_on_no_grid():
    # what an untrained region proposal network proposes
    levels = AnchorGenerator(strides=[16], ratios=[1.0], scales=[8]).grid_priors([(15, 20)], device="cpu")
    shift = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    assert infer_level_sizes(levels[0]) == (300,)
    assert infer_level_sizes(levels[0] + shift.repeat(1, 2)) is None


def test_several_anchors_at_one_location_are_one_level():
    strides = [8, 64]
    levels = AnchorGenerator(strides=strides, **ANCHORS["retina"]).grid_priors([(8, 8), (1, 1)], device="cpu")
    assert infer_level_sizes(torch.cat(levels)) == (8 * 8 * 9, 9)
    assert grid_stride(centers_and_sizes(levels[1])[0]) is None


def test_no_priors():
    assert infer_level_sizes(torch.zeros(0, 4)) == ()
    assert grid_stride(torch.zeros(0, 2)) is None


def test_stride_of_a_single_column():
    assert grid_stride(torch.tensor([[4.0, 4.0], [4.0, 20.0], [4.0, 36.0]])) == 16
