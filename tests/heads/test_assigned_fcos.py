"""FCOS's head with an assigner: mmdet's own FCOSHead under its own rule, and any other rule on squares."""

import pytest
import torch

pytest.importorskip("mmdet.models")
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from scenes import STRIDES, drawn_objects, feature_sizes
from visdet_assigners.assigners.atss import atss
from visdet_assigners.assigners.max_iou import max_iou
from visdet_assigners.heads import AssignedFCOSHead
from visdet_assigners.heads.assigned_fcos import squares_around

SCENES = [objects for objects in drawn_objects() if objects.image == (240, 320)]
SIZES = feature_sizes((240, 320), STRIDES)


@pytest.fixture(scope="module", autouse=True)
def mmdet_scope():
    init_default_scope("mmdet")


def head(assigner, type_="visdet_assigners.AssignedFCOSHead", **options) -> FCOSHead:
    train_cfg = None if assigner is None else dict(assigner=assigner)
    config = dict(type=type_, num_classes=8, in_channels=8, feat_channels=8, stacked_convs=1, strides=STRIDES)
    norm = dict(type="GN", num_groups=4)
    return MODELS.build({**config, "norm_cfg": norm, "train_cfg": train_cfg, **options})


def points_of(model) -> list[torch.Tensor]:
    return model.prior_generator.grid_priors(SIZES, device="cpu")


@pytest.mark.parametrize("sampling", [{}, dict(center_sampling=True, center_sample_radius=1.5)])
def test_its_own_rule_gives_the_losses_and_gradients_of_mmdets_head(sampling):
    options = dict(norm_on_bbox=True, centerness_on_reg=True, loss_bbox=dict(type="GIoULoss"))
    stock = head(None, "FCOSHead", **options, **sampling)
    ours = head(dict(type="visdet_assigners.ScaleRangeAssigner", **sampling), **options)
    torch.manual_seed(0)
    stock.init_weights()
    ours.load_state_dict(stock.state_dict())
    features = [torch.randn(len(SCENES), 8, *size) for size in SIZES]
    results = []
    for model in (stock, ours):
        outputs = model(features)
        losses = model.loss_by_feat(*outputs, [objects.instances for objects in SCENES], [{}] * len(SCENES))
        sum(losses.values()).backward()
        results.append([*losses.values(), *(parameter.grad for parameter in model.parameters())])
    assert results[0][0] > 0
    for expected, found in zip(*results, strict=True):
        assert torch.equal(expected, found)


def test_atss_on_squares_of_eight_strides():
    model = head(dict(type="visdet_assigners.ATSSAssigner", topk=9))
    points = points_of(model)
    labels, distances = map(torch.cat, model.get_targets(points, [objects.instances for objects in SCENES]))
    half = torch.cat([torch.full((len(level), 1), 4.0 * stride) for level, stride in zip(points, STRIDES)])
    centers, sizes = torch.cat(points), [len(level) for level in points]
    squares = torch.cat([centers - half, centers + half], dim=1)
    assert torch.equal(squares_around(centers, sizes, STRIDES, 8), squares)
    # mmdet puts the images of a level one after another.
    rows = torch.cat([torch.arange(size).repeat(len(SCENES)) + sum(sizes[:i]) for i, size in enumerate(sizes)])
    images = torch.cat([torch.arange(len(SCENES)).repeat_interleave(size) for size in sizes])
    positives = 0
    for image, objects in enumerate(SCENES):
        decided = atss(squares, objects.boxes, sizes).gt_index
        mine = labels[images == image][rows[images == image].argsort()]
        reach = distances[images == image][rows[images == image].argsort()]
        positive = decided >= 0
        assert torch.equal(mine < 8, positive)
        assert torch.equal(mine[positive], objects.labels[decided[positive]])
        own, place = objects.boxes[decided[positive]], centers[positive]
        assert torch.equal(reach[positive], torch.cat([place - own[:, :2], own[:, 2:] - place], dim=1))
        positives += int(positive.sum())
    assert positives > 500


def test_ignored_points_and_those_outside_are_background():
    model = head(dict(type="visdet_assigners.MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4))
    objects = next(objects for objects in SCENES if objects.name == "mixed-12-320")
    points = points_of(model)
    labels, distances = map(torch.cat, model.get_targets(points, [objects.instances]))
    squares = squares_around(torch.cat(points), [len(level) for level in points], STRIDES, 8)
    decided = max_iou(squares, objects.boxes, 0.5, 0.4).gt_index
    assert (decided == -2).any()
    outside = (decided >= 0) & (labels == 8)
    assert outside.any()
    assert (distances[outside].amin(dim=1) <= 0).all()
    assert (labels[decided < 0] == 8).all()
    assert (distances[labels < 8] > 0).all()


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r"center_sampling would have no effect; .*ScaleRangeAssigner"):
        head(dict(type="visdet_assigners.ATSSAssigner", topk=9), center_sampling=True)
    with pytest.raises(ValueError, match="train_cfg has no assigner; use FCOSHead"):
        head(None, train_cfg=dict(debug=False))
    assert isinstance(head(None), AssignedFCOSHead)  # to test a trained one


def test_an_image_without_objects():
    model = head(dict(type="visdet_assigners.ATSSAssigner", topk=9))
    nothing = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    labels, distances = model.get_targets(points_of(model), [nothing])
    assert (torch.cat(labels) == 8).all()
    assert torch.cat(distances).shape == (len(torch.cat(labels)), 4)
