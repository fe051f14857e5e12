"""Priors of scenes are those of mmdet's generators, to the last bit; scenes need torch alone."""

import subprocess
import sys

import pytest
import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator, MlvlPointGenerator, YOLOAnchorGenerator

from visdet_assigners.testing.benchmarks import OCTAVES
from visdet_assigners.testing.priors import anchor_levels, point_levels, yolo_levels

SIZES, STRIDES = [(10, 13), (5, 7), (1, 1)], [8, 16, 100]


def equal(mine, theirs):
    return all(torch.equal(*pair) for pair in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("ratios", [[1.0], [0.5, 1.0, 2.0]])
def test_anchors(ratios):
    made = AnchorGenerator(strides=STRIDES, ratios=ratios, octave_base_scale=4, scales_per_octave=3)
    assert equal(anchor_levels(SIZES, STRIDES, ratios, OCTAVES), made.grid_priors(SIZES, device="cpu"))
    made = AnchorGenerator(strides=STRIDES, ratios=ratios, scales=[8])
    assert equal(anchor_levels(SIZES, STRIDES, ratios, [8]), made.grid_priors(SIZES, device="cpu"))


def test_points():
    made = MlvlPointGenerator(STRIDES, offset=0)
    assert equal(point_levels(SIZES, STRIDES), made.grid_priors(SIZES, device="cpu", with_stride=True))


def test_anchors_of_yolo():
    boxes = [[(116, 90), (156, 198)], [(30, 61), (63, 45)], [(10, 13), (33, 23)]]
    made = YOLOAnchorGenerator(strides=STRIDES, base_sizes=boxes)
    assert equal(yolo_levels(SIZES, STRIDES, boxes), made.grid_priors(SIZES, device="cpu"))


WITHOUT = """
import sys
sys.modules.update(mmdet=None, mmcv=None)
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mmengine":
            raise ModuleNotFoundError(name, name="mmengine")
sys.meta_path.insert(0, Nowhere())
import torch, visdet_assigners
from visdet_assigners.testing import benchmarks, feeds, scenes
for scene in benchmarks.SCENES.values():
    objects = benchmarks.drawn(3, (240, 320))
    config = dict(scene.config)
    assigner = getattr(visdet_assigners, config.pop("type"))(**config)
    result = assigner.assign(*scene.call(objects))
    for call in feeds.feeds(scene.config, objects):
        assigner.assign(*call)
    print(scene.name, len(result.gt_inds))
"""


def test_scenes_and_feeds_need_torch_alone():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 18
