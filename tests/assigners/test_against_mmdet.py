"""The oracle: mmdet's own assigners on the same inputs, over every setting of mmdet's configs.

Argued differences, which the scenes here leave out or the comparison allows; each has a test of its own:

- a ground truth that overlaps no prior takes none (MaxIoU with ``min_pos_iou=0``): test_max_iou.py;
- ignore regions hold in images without ground truths: test_max_iou.py, test_atss.py;
- ``max_overlaps`` of unmatched priors is 0, mmdet writes -1e8 (ATSS, TaskAligned, DynamicSoftLabel) or -1e5 (SimOTA):
  compared at positives here, and 0 elsewhere in test_contract.py;
- a ground truth of no area takes no prior (SimOTA, DynamicSoftLabel, Point, Region): test_sim_ota.py, test_point.py,
  test_region.py;
- Uniform's ``max_overlaps`` has length N, Region's ``labels`` are -1 where nothing is matched: compared so here;
- TaskAligned's ``assign_metrics`` of a pair doesn't depend on the place of the pair in memory; mmdet's does at the last
  entries, which don't fill a register and are rounded by other instructions: within one unit in the last place there;
  the same holds for DynamicSoftLabel's costs, and seldom for a decision between nearly equal ones: testing/parity.py;
- MultiInstance needs as many boxes as instances in mmdet: test_multi_instance.py.

A test for each assigner, hence the length.
"""

import numpy as np
import pytest
import torch
from mmdet.models.task_modules import assigners as theirs
from mmdet.registry import TASK_UTILS as MMDET
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import visdet_assigners as ours
from scenes import (
    STRIDES,
    anchors,
    drawn_objects,
    feature_sizes,
    logits,
    needs,
    points,
    predicted_boxes,
    proposals,
    real_objects,
)
from visdet_assigners.functional.tensors import REGISTER

pytestmark = pytest.mark.thinned

MAX_IOU = {
    "rpn": dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True),
    "rpn-default-lq": dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
    "rcnn": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
    "mask-rcnn": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=True),
    "scnet": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5),
    "cascade-2": dict(pos_iou_thr=0.6, neg_iou_thr=0.6, min_pos_iou=0.6, match_low_quality=False),
    "cascade-2-lq": dict(pos_iou_thr=0.6, neg_iou_thr=0.6, min_pos_iou=0.6),
    "cascade-3": dict(pos_iou_thr=0.7, neg_iou_thr=0.7, min_pos_iou=0.7, match_low_quality=False),
    "cascade-3-lq": dict(pos_iou_thr=0.7, neg_iou_thr=0.7, min_pos_iou=0.7),
    "cascade-rpn-rcnn": dict(pos_iou_thr=0.65, neg_iou_thr=0.65, min_pos_iou=0.65, match_low_quality=False),
    "retinanet": dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
    "ssd": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, gt_max_assign_all=False),
    "yolact": dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0, gt_max_assign_all=False),
    "paa": dict(pos_iou_thr=0.1, neg_iou_thr=0.1, min_pos_iou=0),
    "efficientnet": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0),
    "ga-retinanet": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0),
    "cascade-rpn": dict(pos_iou_thr=0.7, neg_iou_thr=0.7, min_pos_iou=0.3),
    "cascade-rpn-explicit": dict(
        pos_iou_thr=0.7, neg_iou_thr=0.7, min_pos_iou=0.3, iou_calculator=dict(type="BboxOverlaps2D")
    ),
    "crowddet-rpn": dict(pos_iou_thr=0.7, neg_iou_thr=(0.3, 0.7), min_pos_iou=0.3, match_low_quality=True),
    "qdtrack": dict(pos_iou_thr=0.7, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
    "v3det-1": dict(
        pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False,
        perm_repeat_gt_cfg=dict(iou_thr=0.7, perm_range=0.01),
    ),
    "v3det-2": dict(
        pos_iou_thr=0.6, neg_iou_thr=0.6, min_pos_iou=0.6, match_low_quality=False,
        perm_repeat_gt_cfg=dict(iou_thr=0.7, perm_range=0.01),
    ),
    "v3det-3": dict(
        pos_iou_thr=0.7, neg_iou_thr=0.7, min_pos_iou=0.7, match_low_quality=False,
        perm_repeat_gt_cfg=dict(iou_thr=0.7, perm_range=0.01),
    ),
    "v3det-fcos": dict(
        pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, perm_repeat_gt_cfg=dict(iou_thr=0.7, perm_range=0.01)
    ),
    # not in mmdet's configs, but in its constructor
    "ignore": dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.2, ignore_iof_thr=0.5),
    "ignore-wrt-regions": dict(
        pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.2, ignore_iof_thr=0.1, ignore_wrt_candidates=False
    ),
    "cpu-above-10": dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.2, gpu_assign_thr=10),
    "perm-far": dict(
        pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.2, perm_repeat_gt_cfg=dict(iou_thr=0.99, perm_range=0.3)
    ),
    "numpy-threshold": dict(pos_iou_thr=np.float64(0.5), neg_iou_thr=np.float64(0.5), min_pos_iou=0.3),
}  # fmt: skip

ATSS = {
    "atss": dict(topk=9),
    "glip": dict(topk=9, iou_calculator=dict(type="BboxOverlaps2D_GLIP")),
    "ddod-cls": dict(topk=9, alpha=0.8),
    "ddod-reg": dict(topk=9, alpha=0.5),
    "ignore": dict(topk=9, ignore_iof_thr=0.5),
    "ignore-all-of-a-level": dict(topk=300, ignore_iof_thr=0.1),
    "topk-1": dict(topk=1),
}

BOX = dict(type="BBoxL1Cost", weight=5.0, box_format="xywh")
GIOU = dict(type="IoUCost", iou_mode="giou", weight=2.0)
HUNGARIAN = {
    "sparse-rcnn": [dict(type="FocalLossCost", weight=2.0), dict(type="BBoxL1Cost", weight=5.0), GIOU],
    "grounding-dino": [dict(type="BinaryFocalLossCost", weight=2.0), BOX, GIOU],
    "dino": [dict(type="FocalLossCost", weight=2.0), BOX, GIOU],
    "mask2former": [
        dict(type="ClassificationCost", weight=2.0),
        dict(type="CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
        dict(type="DiceCost", weight=5.0, pred_act=True, eps=1.0),
    ],
    "detr": [dict(type="ClassificationCost", weight=1.0), BOX, GIOU],
    "maskformer": [
        dict(type="ClassificationCost", weight=1.0),
        dict(type="FocalLossCost", weight=20.0, binary_input=True),
        dict(type="DiceCost", weight=1.0, pred_act=True, eps=1.0),
    ],
    "dab-detr": [dict(type="FocalLossCost", weight=2.0, eps=1e-8), BOX, GIOU],
    # not in mmdet's configs, but in its constructors
    "five": [
        dict(type="FocalLossCost", weight=2.0, alpha=0.3, gamma=1.5),
        BOX,
        dict(type="IoUCost", iou_mode="iou"),
        dict(type="DiceCost", naive_dice=False),
        dict(type="ClassificationCost", weight=0.7),
    ],
}


def all_objects():
    """Drawn scenes, and real ones where the data are there; a test says if they are not."""
    return [*drawn_objects(), *real_objects()]


OBJECTS = all_objects()
NAMES = [objects.name for objects in OBJECTS]


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in ("bccd", "tiny_coco")])
def test_real_boxes_are_among_the_scenes(name):
    assert sum(one.startswith(name) for one in NAMES) >= 15


def equal(mine, reference, everywhere=False):
    """Same ``gt_inds`` and ``labels``; same ``max_overlaps`` at positives or everywhere."""
    assert torch.equal(mine.gt_inds, reference.gt_inds)
    assert torch.equal(mine.labels, reference.labels)
    assert mine.num_gts == reference.num_gts
    if reference.max_overlaps is None:
        assert mine.max_overlaps is None
    else:
        where = slice(None) if everywhere else reference.gt_inds > 0
        assert torch.equal(mine.max_overlaps[where], reference.max_overlaps[where])


def both(name, **config):
    """Ours and mmdet's of the same name and arguments; nested types are mmdet's for mmdet's."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        return getattr(ours, name)(**config), getattr(theirs, name)(**config)


@pytest.mark.parametrize("setting", MAX_IOU)
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_max_iou(objects, setting):
    mine, reference = both("MaxIoUAssigner", **MAX_IOU[setting])
    for priors in (anchors(objects, ratios=(0.5, 1.0, 2.0))[0], proposals(objects, 300, seed=5)):
        kept = objects.instances
        if len(kept):  # objects that overlap no prior are an argued difference
            kept = kept[theirs.BboxOverlaps2D()(objects.boxes, priors).amax(dim=1) > 0]
        regions = objects.ignore if len(kept) else None  # so are ignore regions without objects
        results = []
        for assigner in (mine, reference):
            torch.manual_seed(0)  # perm_repeat_gt_cfg draws
            results.append(assigner.assign(InstanceData(priors=priors), kept, regions))
        equal(*results, everywhere=True)


@pytest.mark.parametrize("setting", ATSS)
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_atss(objects, setting):
    mine, reference = both("ATSSAssigner", **ATSS[setting])
    priors, level_sizes = anchors(objects)
    pred = InstanceData(priors=priors)
    if reference.alpha is not None:
        pred.bboxes = predicted_boxes(priors, objects, seed=1)
        pred.scores = logits(len(priors), objects, seed=2)
    regions = objects.ignore if len(objects.boxes) else None
    arguments = (pred, level_sizes, objects.instances, regions)
    equal(mine.assign(*arguments), reference.assign(*arguments))


@pytest.mark.parametrize(("alpha", "beta", "topk"), [(1, 6, 13), (0.5, 2.0, 4), (1, 6, 10**6)])
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_task_aligned(objects, alpha, beta, topk):
    mine, reference = both("TaskAlignedAssigner", topk=topk)
    priors, _ = anchors(objects)
    pred = InstanceData(
        priors=priors,
        bboxes=predicted_boxes(priors, objects, seed=3),
        scores=logits(len(priors), objects, seed=4).sigmoid(),
    )
    results = [assigner.assign(pred, objects.instances, None, alpha, beta) for assigner in (mine, reference)]
    equal(*results)
    metrics, expected = (result.assign_metrics for result in results)
    last = len(priors) - REGISTER // max(1, len(objects.boxes)) - 1
    assert torch.equal(metrics[:last], expected[:last])
    assert (torch.nextafter(metrics[last:], expected[last:]) == expected[last:]).all()


@pytest.mark.parametrize(
    "config", [dict(center_radius=2.5), dict(center_radius=1.0, candidate_topk=30, iou_weight=1.5)]
)
@pytest.mark.parametrize("sharp", [False, True], ids=["", "certain"])
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_sim_ota(objects, sharp, config):
    mine, reference = both("SimOTAAssigner", **config)
    priors = points(objects)
    anchors_of_points = torch.cat([priors[:, :2] - 2 * priors[:, 2:], priors[:, :2] + 2 * priors[:, 2:]], dim=1)
    scores = logits(len(priors), objects, seed=6).sigmoid()
    pred = InstanceData(
        priors=priors,
        bboxes=predicted_boxes(anchors_of_points, objects, seed=7),
        scores=scores.round() if sharp else scores,  # probabilities of 0 and 1 make many equal costs
    )
    equal(mine.assign(pred, objects.instances), reference.assign(pred, objects.instances))


@pytest.mark.parametrize(
    "config",
    [
        dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),  # GA-RPN
        dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.4),  # GA-RetinaNet
        dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0),  # SABL
        dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.2, ignore_iof_thr=0.5, gt_max_assign_all=False),
    ],
)
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_approx_max_iou(objects, config):
    mine, reference = both("ApproxMaxIoUAssigner", **config)
    squares, _ = anchors(objects)
    width = (squares[:, 2:] - squares[:, :2]).repeat(1, 2) / 2 * torch.tensor([-1, -1, 1, 1])
    approxs = torch.stack([squares + width * (factor - 1) for factor in (1.0, 1.26, 1.59)], dim=1)
    kept = objects.instances
    if len(kept):  # objects that overlap no prior are an argued difference
        overlap = theirs.BboxOverlaps2D()(objects.boxes, approxs.flatten(0, 1))
        kept = kept[overlap.amax(dim=1) > 0]
    arguments = (InstanceData(priors=squares, approxs=approxs), kept, objects.ignore if len(kept) else None)
    equal(mine.assign(*arguments), reference.assign(*arguments), everywhere=True)


@pytest.mark.parametrize(
    "config",
    [
        dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0),  # YOLOv3
        dict(pos_iou_thr=0.4, neg_iou_thr=(0.1, 0.3), min_pos_iou=0.1, gt_max_assign_all=False),
        dict(pos_iou_thr=0.5, neg_iou_thr=[0.0, 0.5]),
    ],
)
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_grid(objects, config):
    mine, reference = both("GridAssigner", **config)
    priors, sizes = anchors(objects, ratios=(0.5, 1.0, 2.0), scale=4)
    flags = []
    center = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    for stride, (height, width) in zip(STRIDES, feature_sizes(objects.image, STRIDES)):
        column, row = (center // stride).long().clamp(min=0).unbind(1)
        cells = torch.zeros(height, width, dtype=torch.uint8)
        cells[row.clamp(max=height - 1), column.clamp(max=width - 1)] = 1
        flags.append(cells.flatten().repeat_interleave(3))
    flags = torch.cat(flags)
    assert len(flags) == sum(sizes)
    pred = InstanceData(priors=priors, responsible_flags=flags)
    equal(mine.assign(pred, objects.instances), reference.assign(pred, objects.instances), everywhere=True)


@pytest.mark.parametrize("match_times", [4, 1])
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_uniform(objects, match_times):
    mine, reference = both("UniformAssigner", pos_ignore_thr=0.15, neg_ignore_thr=0.7, match_times=match_times)
    priors, _ = anchors(objects)
    pred = InstanceData(priors=priors, decoder_priors=predicted_boxes(priors, objects, seed=12))
    result, expected = (assigner.assign(pred, objects.instances) for assigner in (mine, reference))
    assert result.max_overlaps.shape == (len(priors),)
    expected.max_overlaps = result.max_overlaps
    equal(result, expected)
    for name in ("pos_idx", "pos_predicted_boxes", "target_boxes"):
        assert torch.equal(result.get_extra_property(name), expected.get_extra_property(name))


@pytest.mark.parametrize("config", [dict(center_ratio=0.2, ignore_ratio=0.5), dict(center_ratio=0.6, ignore_ratio=0.7)])
@pytest.mark.parametrize("border", [0, 40, -1])
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_region(objects, config, border):
    mine, reference = both("RegionAssigner", **config)
    priors, sizes = anchors(objects)
    valid = torch.rand(len(priors), generator=torch.Generator().manual_seed(13)) < 0.95
    arguments = (
        InstanceData(priors=priors, valid_flags=valid), objects.instances, dict(img_shape=objects.image),
        feature_sizes(objects.image, STRIDES), sizes, 8, STRIDES, None, border,
    )  # fmt: skip
    result, expected = mine.assign(*arguments), reference.assign(*arguments)
    expected.labels = torch.where(expected.gt_inds > 0, expected.labels, -1)
    equal(result, expected, everywhere=True)
    assert isinstance(mine, theirs.RegionAssigner)  # Cascade RPN asks


@pytest.mark.parametrize(
    "config",
    [
        dict(pos_scale=0.2, neg_scale=0.2, min_pos_iof=0.01),  # FSAF
        dict(pos_scale=0.3, neg_scale=0.6),
        dict(pos_scale=0.3, neg_scale=0.6, foreground_dominate=True),
    ],
)
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_center_region(objects, config):
    mine, reference = both("CenterRegionAssigner", **config)
    arguments = (InstanceData(priors=anchors(objects, scale=4)[0]), objects.instances, objects.ignore)
    result, expected = mine.assign(*arguments), reference.assign(*arguments)
    equal(result, expected)
    assert torch.equal(result.get_extra_property("shadowed_labels"), expected.get_extra_property("shadowed_labels"))


@pytest.mark.parametrize("config", [dict(scale=4, pos_num=1), dict(scale=4, pos_num=3), dict(scale=8, pos_num=2)])
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_point(objects, config):
    mine, reference = both("PointAssigner", **config)
    pred = InstanceData(priors=points(objects)[:, :3])
    equal(mine.assign(pred, objects.instances), reference.assign(pred, objects.instances))


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("config", [dict(topk=13), dict(soft_center_radius=1.5, topk=5, iou_weight=2.0)])
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_dynamic_soft_label(objects, config, with_masks):
    mine, reference = both("DynamicSoftLabelAssigner", **config)
    priors = points(objects)
    reach = 2 * priors[:, 2:]
    pred = InstanceData(
        priors=priors,
        bboxes=predicted_boxes(torch.cat([priors[:, :2] - reach, priors[:, :2] + reach], dim=1), objects, seed=14),
        scores=logits(len(priors), objects, seed=15),
    )
    gt = objects.instances
    if with_masks:
        height, width = objects.image
        x, y = torch.arange(width), torch.arange(height)[:, None]
        x1, y1, x2, y2 = objects.boxes[:, :, None, None].unbind(1)
        gt.masks = (x >= x1) & (y >= y1) & (x < (x1 + x2) / 2) & (y < y2)
    equal(mine.assign(pred, gt), reference.assign(pred, gt))


@pytest.mark.parametrize("topk", [4, 8])
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_topk_hungarian(objects, topk):
    mine, reference = both("TopkHungarianAssigner", topk=topk)
    pred, _ = queries(objects, "dino")
    arguments = (pred.scores.sigmoid(), pred.bboxes, objects.boxes, objects.labels, dict(img_shape=objects.image))
    result, expected = mine.assign(*arguments), reference.assign(*arguments)
    equal(result, expected, everywhere=True)
    if len(objects.boxes):
        assert torch.equal(result.assign_metrics, expected.assign_metrics)


@pytest.mark.parametrize("num_instance", [2, 3])
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_multi_instance(objects, num_instance):
    config = dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.3, match_low_quality=False, num_instance=num_instance)
    mine, reference = both("MultiInstanceAssigner", **config)
    if len(objects.boxes) + len(objects.crowds) < num_instance:
        return  # mmdet mixes up the proposals, see test_multi_instance.py
    ignore = objects.ignore
    ignore.labels = torch.full((len(ignore),), -1)
    arguments = (InstanceData(priors=proposals(objects, 200, seed=16)), objects.instances, ignore)
    result, expected = mine.assign(*arguments), reference.assign(*arguments)
    for name in ("gt_inds", "labels", "max_overlaps"):
        assert torch.equal(getattr(result, name), getattr(expected, name))
    assert result.num_gts == expected.num_gts


def queries(objects, setting):
    """Predictions and ground truths with what the costs of a setting read."""
    pred = InstanceData(bboxes=proposals(objects, 100, seed=8))
    pred.scores = logits(len(pred.bboxes), objects, seed=9)
    gt = objects.instances
    if setting in ("mask2former", "maskformer", "five"):
        g = torch.Generator().manual_seed(10)
        pred.masks = torch.randn(len(pred), 12, 16, generator=g)
        if setting == "five":
            pred.masks = pred.masks.sigmoid()
        gt.masks = (torch.rand(len(gt), 12, 16, generator=g) < 0.3).long()
    if setting == "grounding-dino":
        g = torch.Generator().manual_seed(11)
        gt.text_token_mask = (torch.arange(objects.num_classes) < objects.num_classes - 2).repeat(len(gt), 1)
        gt.positive_maps = (torch.rand(len(gt), objects.num_classes, generator=g) < 0.3).float()
        pred.scores[:, -2:] = -torch.inf  # as the head masks the words that a text lacks
    return pred, gt


@pytest.mark.parametrize("setting", HUNGARIAN)
@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_hungarian(objects, setting):
    mine, reference = both("HungarianAssigner", match_costs=HUNGARIAN[setting])
    pred, gt = queries(objects, setting)
    meta = dict(img_shape=objects.image)
    equal(mine.assign(pred, gt, img_meta=meta), reference.assign(pred, gt, img_meta=meta))
    for cost, reference_cost in zip(mine.match_costs, reference.match_costs):
        assert type(cost).__module__.startswith("visdet_assigners")
        if len(gt):
            assert torch.equal(cost(pred, gt, meta), reference_cost(pred, gt, meta))


@pytest.mark.parametrize("objects", OBJECTS, ids=NAMES)
def test_hungarian_in_the_form_of_mmdet_2(objects):
    class_cost, box_cost, iou_cost = HUNGARIAN["dino"]
    mine = ours.HungarianAssigner(cls_cost=class_cost, reg_cost=box_cost, iou_cost=iou_cost)
    _, reference = both("HungarianAssigner", match_costs=HUNGARIAN["dino"])
    pred, gt = queries(objects, "dino")
    meta = dict(img_shape=objects.image)
    equal(mine.assign(pred, gt, meta), reference.assign(pred, gt, meta))


def test_more_objects_than_queries():
    objects = max(drawn_objects(), key=lambda scene: len(scene.boxes))
    mine, reference = both("HungarianAssigner", match_costs=HUNGARIAN["detr"])
    pred, gt = queries(objects, "detr")
    meta = dict(img_shape=objects.image)
    equal(mine.assign(pred[:5], gt, meta), reference.assign(pred[:5], gt, meta))
    assert (mine.assign(pred[:5], gt, meta).gt_inds > 0).all()


@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
@pytest.mark.parametrize("dtype", [None, "fp16"])
@pytest.mark.parametrize("aligned", [False, True])
def test_bbox_overlaps(mode, dtype, aligned):
    g = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 200, 2, 2, generator=g).mul(50).sort(dim=2).values
    first, second = corners.flatten(2)
    second[:5] = first[:5]  # the same, and of no area
    second[5:9, 2:] = second[5:9, :2]
    config = dict(scale=2.0, dtype=dtype)
    mine = MMDET.build(dict(type="visdet_assigners.BboxOverlaps2D", **config))
    reference = theirs.BboxOverlaps2D(**config)
    for a, b in ((first, second), (first[:0], second[: 0 if aligned else 200])):
        assert torch.equal(mine(a, b, mode, aligned), reference(a, b, mode, aligned))
    with_score = torch.cat([first, torch.rand(200, 1, generator=g)], dim=1)
    assert torch.equal(mine(with_score, second, mode, aligned), reference(with_score, second, mode, aligned))
