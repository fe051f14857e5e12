"""Positives are read off stock heads as they are, while they compute their losses."""

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict

from co_detrs import BOXES, HEADS, STRIDES, co_config, dense, images, losses_of
from detectors import build, build_detector
from visdet_assigners.codetr import AuxDenseBranch, record_positives
from visdet_assigners.codetr.positives import POINT_SIDE

MANY = [[[x, 10.0, x + 30.0, 50.0] for x in (5.0, 30.0, 60.0)], []]


def branch_of(name, **changes):
    torch.manual_seed(0)
    branch = AuxDenseBranch(dense(name, **changes)["head"], num_classes=80, embed_dims=16)
    branch.init_weights()
    return branch


def pyramid():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 16, -(-96 // s), -(-128 // s), generator=generator) for s in STRIDES]


def anchors_of(head):
    levels = head.prior_generator.grid_priors([level.shape[-2:] for level in pyramid()], device="cpu")
    return torch.cat(levels), [len(level) for level in levels]


@pytest.mark.parametrize("name", ["atss", "gfl"])
def test_positives_are_what_the_assigner_returns(name):
    branch, (_, samples) = branch_of(name), images(sizes=[(96, 128)] * 2)
    _, positives = branch.loss(pyramid(), samples)
    anchors, level_sizes = anchors_of(branch.head)
    for found, sample in zip(positives, samples):
        truths = sample.gt_instances
        result = branch.head.assigner.assign(ConfigDict(priors=anchors), level_sizes, truths)
        positive = result.gt_inds > 0
        assert positive.any()
        assert torch.equal(found.boxes, anchors[positive])
        assert torch.equal(found.gt_index, result.gt_inds[positive] - 1)
        assert torch.equal(found.gt_boxes, truths.bboxes[found.gt_index])
        assert torch.equal(found.labels, truths.labels[found.gt_index])


def test_the_losses_are_the_heads_own():
    branch, (_, samples) = branch_of("atss"), images(sizes=[(96, 128)] * 2)
    ours, _ = branch.loss(pyramid(), samples)
    theirs = branch.head.loss(tuple(pyramid()), samples)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert all(torch.equal(a, b) for a, b in zip(ours[name], value))


def test_the_head_is_left_as_it_was():
    branch, (_, samples) = branch_of("atss"), images()
    head = branch.head
    before = [set(vars(one)) for one in (head, head.sampler, head.assigner)]
    branch.loss(pyramid(), samples)
    with pytest.raises(RuntimeError), record_positives(head, samples):
        raise RuntimeError
    assert [set(vars(one)) for one in (head, head.sampler, head.assigner)] == before


def test_paa_counts_its_second_choice():
    branch, (_, samples) = branch_of("paa"), images(MANY, sizes=[(96, 128)] * 2)
    first, labels = [], []
    head = branch.head
    reassign = head.paa_reassign

    def spy(*args):
        result = reassign(*args)
        first.append(int((args[1] < 80).sum()))
        labels.append(result[0])
        return result

    head.paa_reassign = spy
    _, positives = branch.loss(pyramid(), samples)
    anchors, _ = anchors_of(head)
    kept = labels[0] < 80
    assert 0 < int(kept.sum()) < first[0]  # the choice matters here
    assert torch.equal(positives[0].boxes, anchors[kept])
    assert torch.equal(positives[0].labels, labels[0][kept])
    assert torch.equal(positives[0].labels, samples[0].gt_instances.labels[positives[0].gt_index])
    assert len(positives[1]) == 0


def test_fcos_points_stand_for_squares_of_eight_strides():
    branch, (_, samples) = branch_of("fcos", center_sampling=True), images(sizes=[(96, 128)] * 2)
    _, positives = branch.loss(pyramid(), samples)
    points = branch.head.prior_generator.grid_priors([level.shape[-2:] for level in pyramid()], device="cpu")
    for found, sample in zip(positives, samples):
        labels, distances = branch.head.get_targets(points, [sample.gt_instances])
        labels, distances = torch.cat(labels), torch.cat(distances)
        positive = labels < 80
        assert positive.any()
        strides = torch.cat([torch.full((len(p),), float(s)) for p, s in zip(points, STRIDES)])[positive]
        at = torch.cat(points)[positive]
        half = strides[:, None] * POINT_SIDE / 2
        assert torch.equal(found.boxes, torch.cat([at - half, at + half], dim=1))
        assert torch.equal(found.labels, labels[positive])
        reached = torch.cat([at - distances[positive, :2], at + distances[positive, 2:]], dim=1)
        assert torch.allclose(found.gt_boxes, reached, atol=1e-3)


def test_fcos_tells_equal_boxes_of_two_classes_apart():
    branch = branch_of("fcos")
    _, samples = images([[[10.0, 10.0, 60.0, 60.0]] * 2, []], sizes=[(96, 128)] * 2)
    _, positives = branch.loss(pyramid(), samples)
    assert len(positives[0])
    assert torch.equal(positives[0].labels, samples[0].gt_instances.labels[positives[0].gt_index])
    assert len(positives[1]) == 0


@pytest.mark.parametrize("config", ["yolox/yolox_tiny_8xb8-300e_coco.py", "rtmdet/rtmdet_tiny_8xb32-300e_coco.py"])
@pytest.mark.parametrize("boxes", [BOXES, MANY, [[], []]], ids=["full", "one empty", "empty"])
def test_heads_of_points(config, boxes):
    """An image without objects may be skipped by the head; points are centres of squares."""
    model = build_detector(config)
    inputs, samples = images(boxes, sizes=[(96, 128)] * 2)
    for sample in samples:
        del sample.gt_instances.masks  # RTMDet would take their centres
    with record_positives(model.bbox_head, samples) as recording:
        model.loss(inputs, samples)
    for found, sample in zip(recording.positives(), samples):
        truths = sample.gt_instances
        assert bool(len(found)) == bool(len(truths))
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        assert torch.equal(sides[:, 0], sides[:, 1])
        assert set((sides[:, 0] / POINT_SIDE).tolist()) <= {8.0, 16.0, 32.0}
        assert torch.equal(found.labels, truths.labels[found.gt_index])
        centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        assert ((centres > found.gt_boxes[:, :2] - 96) & (centres < found.gt_boxes[:, 2:] + 96)).all()


STOCK = [
    "retinanet/retinanet_r50_fpn_1x_coco.py",
    "vfnet/vfnet_r50_fpn_1x_coco.py",
    "tood/tood_r50_fpn_1x_coco.py",
    "ddod/ddod_r50_fpn_1x_coco.py",
    "fsaf/fsaf_r50_fpn_1x_coco.py",
    "yolof/yolof_r50-c5_8xb8-1x_coco.py",
]


@pytest.mark.parametrize("config", STOCK)
def test_anchor_heads_of_the_zoo(config):
    model = build_detector(config)
    inputs, samples = images(sizes=[(320, 320)] * 2)  # DDOD needs three cells of the coarsest level
    with record_positives(model.bbox_head, samples) as recording:
        model.loss(inputs, samples)
    for found, sample in zip(recording.positives(), samples):
        assert len(found)
        assert torch.equal(found.gt_boxes, sample.gt_instances.bboxes[found.gt_index])
        assert bbox_overlaps(found.boxes, found.gt_boxes, is_aligned=True).max() > 0.1


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("reppoints/reppoints-moment_r50_fpn_1x_coco.py", "neither anchors nor YOLOX's points"),
        ("autoassign/autoassign_r50-caffe_fpn_1x_coco.py", "decides in a way of its own"),
        ("free_anchor/freeanchor_r50_fpn_1x_coco.py", "computed targets 0 times"),
    ],
)
def test_heads_that_decide_in_a_way_of_their_own_are_refused(config, reason):
    model = build_detector(config)
    inputs, samples = images(sizes=[(96, 128)] * 2)

    def listen():
        with record_positives(model.bbox_head, samples) as recording:
            model.loss(inputs, samples)
        recording.positives()

    with pytest.raises(TypeError, match=reason):
        listen()


@pytest.mark.parametrize("name", HEADS)
def test_any_head_as_an_auxiliary(name):
    model = build(co_config("deformable", [dense(name)]))
    for boxes in (None, MANY, [[], []]):
        model.zero_grad(set_to_none=True)
        losses = losses_of(model, images(boxes))
        sum(value for key, value in losses.items() if "loss" in key).backward()
        assert all(one.grad is not None for one in model.auxiliary.parameters()), boxes
        assert all(torch.isfinite(value).all() for value in losses.values())
