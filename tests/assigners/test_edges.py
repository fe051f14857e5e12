"""Where one thing ends and another begins: a single prior, borders and thresholds that are met exactly, blocks.

A test for each edge, hence the length.
"""

import math
from types import SimpleNamespace as Instances

import pytest
import torch

import visdet_assigners as va
from scenes import draw_boxes
from visdet_assigners import inputs
from visdet_assigners.assigners.atss import atss
from visdet_assigners.assigners.center_region import center_region, scale_boxes
from visdet_assigners.assigners.dynamic_soft_label import dynamic_soft_label
from visdet_assigners.assigners.grid import grid
from visdet_assigners.assigners.max_iou import ignore_outside, max_iou
from visdet_assigners.assigners.multi_instance import multi_instance
from visdet_assigners.assigners.point import point
from visdet_assigners.assigners.region import inside_image, region
from visdet_assigners.assigners.scale_range import scale_range
from visdet_assigners.assigners.sim_ota import sim_ota
from visdet_assigners.assigners.task_aligned import task_aligned
from visdet_assigners.assigners.topk_hungarian import topk_hungarian
from visdet_assigners.assigners.uniform import uniform
from visdet_assigners.functional import overlaps
from visdet_assigners.functional.validity import NOWHERE
from visdet_assigners.registry import REGISTERED
from visdet_assigners.settings import using

BOX = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
LABELS = torch.tensor([1])
SCORES = torch.tensor([[0.3, 0.8]])
POINT = torch.tensor([[8.0, 8.0, 8.0, 8.0]])
every_way = pytest.mark.parametrize("way", ["0", "1"])


@pytest.fixture
def device_path(way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)


# -------------------------------------------------------------------------------------------------------- one prior

ONE = {
    "max_iou": lambda: max_iou(BOX, BOX, 0.5, 0.4),
    "max_iou, low quality": lambda: max_iou(BOX, BOX[:, :2].repeat(1, 2) + torch.tensor([0, 0, 9, 9]), 0.5, 0.4),
    "atss": lambda: atss(BOX, BOX, [1]),
    "task_aligned": lambda: task_aligned(BOX, BOX, LABELS, BOX, SCORES),
    "sim_ota": lambda: sim_ota(POINT, BOX, LABELS, BOX, SCORES),
    "dynamic_soft_label": lambda: dynamic_soft_label(POINT, BOX, LABELS, BOX, SCORES.logit()),
    "scale_range": lambda: scale_range(BOX, BOX, [1], [(0, 99)]),
    "center_region": lambda: center_region(BOX, BOX, LABELS, 0.9, 0.95),
    "grid": lambda: grid(BOX, BOX, torch.tensor([True]), 0.5, 0.4),
    "uniform": lambda: uniform(BOX, BOX, BOX, 0.15, 0.7),
    "point": lambda: point(POINT[:, :3], BOX, [1]),
    "region": lambda: region(BOX, BOX, [1], [(2, 2)], [8], 2),
}


@every_way
@pytest.mark.parametrize("name", ONE)
def test_one_prior_on_one_object_is_its_own(name, device_path):
    assert ONE[name]().gt_index.tolist() == [0]


def test_one_prior_for_several_objects_or_none():
    assert max_iou(BOX, torch.cat([BOX, BOX]), 0.5, 0.4, match_low_quality=False).gt_index.tolist() == [0]
    for nothing in (max_iou(BOX, BOX[:0], 0.5, 0.4), atss(BOX, BOX[:0], [1])):
        assert nothing.gt_index.tolist() == [-1]
    assert max_iou(BOX[:0], BOX, 0.5, 0.4).gt_index.shape == (0,)
    assert atss(BOX[:0], BOX, [0]).gt_index.shape == (0,)


# ---------------------------------------------------------------------------------------------------------- borders


@every_way
@pytest.mark.parametrize("name", ["sim_ota", "dynamic_soft_label"])
@pytest.mark.parametrize("side", [0.9, 20.0])
def test_a_point_on_the_border_is_no_candidate(name, side, device_path):
    """One inside is, even of an object of less than a pixel; the centre is too far for either."""
    gts = torch.tensor([[0.0, 0.0, side, side]])
    for x, inside in ((0.0, False), (0.25, True)):
        points = torch.tensor([[x, 0.3, 0.01, 0.01]])
        if name == "sim_ota":
            found = sim_ota(points, gts, LABELS, gts, SCORES, center_radius=0.1)
        else:
            found = dynamic_soft_label(points, gts, LABELS, gts, SCORES.logit())
        assert found.gt_index.tolist() == [0 if inside else -1]


@every_way
def test_the_border_of_task_aligned_is_a_hundredth_of_a_pixel_wide(device_path):
    for order in ("topk_then_inside", "inside_then_topk"):
        for inside, positive in ((0.0, False), (0.01, False), (0.015, True)):
            prior = torch.tensor([[0.0, 6.0, 2 * inside, 14.0]])  # its centre is exact
            found = task_aligned(prior, BOX, LABELS, BOX, SCORES, candidate_order=order)
            assert (found.gt_index == 0).item() == positive


@every_way
def test_what_is_not_inside_takes_no_place_among_the_candidates(device_path):
    """In YOLOv8's order: the better one lies on the border, and the only place goes to the other."""
    priors = torch.tensor([[0.0, 6.0, 0.02, 14.0], [4.0, 4.0, 12.0, 12.0]])
    predicted = torch.cat([BOX, BOX - torch.tensor([0, 0, 2, 0])])
    both = SCORES.repeat(2, 1)
    for order, taken in (("inside_then_topk", [-1, 0]), ("topk_then_inside", [-1, -1])):
        found = task_aligned(priors, BOX, LABELS, predicted, both, topk=1, candidate_order=order)
        assert found.gt_index.tolist() == taken


@every_way
def test_points_near_an_object_of_no_area_are_no_candidates(device_path):
    """Of SimOTA, which takes points around centres, too."""
    gts = torch.tensor([[50.0, 50.0, 50.0, 60.0], [0.0, 0.0, 4.0, 4.0]])
    points = torch.tensor([[50.0, 55.0, 8.0, 8.0]])
    found = sim_ota(points, gts, torch.tensor([0, 1]), gts[:1], SCORES, center_radius=0.5)
    assert found.gt_index.tolist() == [-1]


def test_a_centre_on_the_border_counts_as_outside():
    """MaxIoU's option for heads with centerness: up to a hundredth of a pixel inside."""
    for inside, kept in ((0.0, False), (0.01, False), (0.015, True)):
        prior = torch.tensor([[0.0, 6.0, 2 * inside, 14.0]])
        assert ignore_outside(torch.tensor([0]), prior, BOX).item() == (0 if kept else va.IGNORED)


@every_way
def test_shares_that_are_met_exactly_are_not_above(device_path):
    """A quarter of the prior, 4 x 4 of 8 x 8 pixels, lies in the core, or in the shadow."""
    prior, gts = torch.tensor([[4.0, 4.0, 12.0, 12.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]])

    def found(least, scale):
        """Decision and shadows, core and shadow being as large."""
        assigner = va.CenterRegionAssigner(0.01, scale, min_pos_iof=least), va.CenterRegionAssigner(scale, 0.01, least)
        results = [each.assign(Instances(priors=prior), Instances(bboxes=gts, labels=LABELS)) for each in assigner]
        return results[1].gt_inds.item(), len(results[0].get_extra_property("shadowed_labels"))

    assert found(0.25, 0.25) == (0, 0)
    assert found(0.24, 0.25) == (1, 1)
    assert found(0.25, 0.26) == (1, 1)


@every_way
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_border_of_an_ignore_region_is_outside(scale, device_path):
    assigner = va.CenterRegionAssigner(0.2, 0.5, ignore_gt_scale=scale)
    regions = Instances(bboxes=scale_boxes(BOX, 1 / scale))
    for x, ignored in ((0.0, False), (0.5, True), (15.5, True), (16.0, False)):
        prior = torch.tensor([[x - 2, 6.0, x + 2, 10.0]])
        gt = Instances(bboxes=torch.tensor([[50.0, 50, 60, 60]]), labels=LABELS)
        result = assigner.assign(Instances(priors=prior), gt, regions)
        assert result.gt_inds.tolist() == [-1 if ignored else 0]


def test_anchors_that_touch_the_border_of_the_image():
    anchors = torch.tensor([[0.0, 0, 9, 9], [-1, 0, 9, 9], [0, -1, 9, 9], [1, 1, 20, 9], [1, 1, 9, 10], [1, 1, 19, 9]])
    valid = torch.ones(6, dtype=torch.bool)
    assert inside_image(anchors, valid, (10, 20), 0).tolist() == [True, False, False, False, False, True]
    assert inside_image(anchors, valid, (10, 20), 1).all()
    assert inside_image(anchors, valid, (10, 20), -1).all()
    valid[0] = False
    assert not inside_image(anchors, valid, (10, 20), -1)[0]


# ------------------------------------------------------------------------------------------------------- thresholds


@every_way
@pytest.mark.parametrize("blocks", [1, 3])
def test_thresholds_of_grid_that_are_met_exactly(blocks, device_path, monkeypatch):
    """Responsible at 1/2 and 3/8, not responsible at 1/2 and 1/4, responsible at none."""
    monkeypatch.setattr(overlaps, "LEAST", 1)
    heights = torch.tensor([8.0, 6.0, 8.0, 4.0, 0.0])
    priors = torch.stack([0 * heights, 0 * heights, 0 * heights + 16, heights], dim=1)
    responsible = torch.tensor([True, True, False, False, True])

    def found(*thresholds, **options):
        with using(memory_budget=10**6 if blocks == 1 else 100):
            return grid(priors, BOX, responsible, *thresholds, **options).gt_index.tolist()

    none = dict(min_pos_iou=0.9)
    assert found(0.5, 0.25, **none) == [-2, -2, -2, -1, -1]  # above 1/2 nothing is, at 1/4 is negative
    assert found(0.49, 0.25, **none) == [0, -2, -2, -1, -1]
    assert found(0.49, (0.25, 0.375), **none) == [0, -1, -2, -2, -2]  # above the lower end, up to the upper
    assert found(0.9, 0.25, min_pos_iou=0.5) == [-2, -2, -2, -1, -1]
    assert found(0.9, 0.25, min_pos_iou=0.49) == [0, -2, -2, -1, -1]


@every_way
def test_thresholds_of_uniform_that_are_met_exactly(device_path):
    """An anchor that overlaps its object by just enough counts; a prediction that overlaps another by 0.5 doesn't."""
    anchors = torch.tensor([[0.0, 0, 16, 8], [100, 100, 116, 116], [200, 200, 216, 216]])
    predicted = torch.tensor([[0.0, 0, 16, 16], [0, 0, 16, 8], [200, 200, 216, 216]])
    found = uniform(anchors, BOX, predicted, 0.5, 0.5, topk=1)
    assert found.gt_index.tolist() == [0, -1, -1]
    assert uniform(anchors, BOX, predicted, 0.51, 0.5, topk=1).gt_index.tolist() == [-2, -1, -1]
    assert uniform(anchors, BOX, predicted, 0.5, 0.49, topk=1).gt_index.tolist() == [0, -2, -1]


@every_way
def test_an_object_that_is_taken_out_leaves_uniform_as_it_was(device_path):
    """Even where no overlap is asked for."""
    decide = uniform.__wrapped__  # below the checks, which know no such boxes
    anchors = torch.tensor([[0.0, 0, 16, 8], [100, 100, 116, 116], [200, 200, 216, 216]])
    gts = torch.cat([BOX, torch.full((1, 4), NOWHERE), anchors[2:]])
    found = decide(anchors, gts, anchors, 0.0, 0.7, topk=1)
    assert found.gt_index.tolist() == [0, -1, 2]
    counts = found.extras["pos_idx"].view(2, 3)  # of anchors and of predictions, for each object
    assert counts.tolist() == [[True, False, True]] * 2
    turned = anchors[[1, 0, 2]]  # the first is then nobody's, and stays background
    assert decide(turned, gts, turned, 0.0, 0.7, topk=1).gt_index.tolist() == [-1, 0, 2]
    taken_out = anchors.clone()
    taken_out[2] = -NOWHERE
    found = decide(taken_out, gts[[0, 2]], taken_out, 0.0, 0.7, topk=3)
    assert found.extras["pos_idx"].sum() == 8  # of three anchors and three predictions for each, the good ones


def test_instances_whose_overlaps_are_as_large_as_those_of_crowds():
    """A crowd takes the place of a box only where it covers more, and the box is not foreground by itself."""
    labels = torch.tensor([1, -1])

    def found(iou, iof, **options):
        table = torch.tensor([[iou, 0.0]]), torch.tensor([[0.0, iof]])
        index, overlap, flag = multi_instance(*table, labels, 0.5, 0.3, 1, **options)
        return index.item(), overlap.item(), flag.item()

    assert found(0.5, 0.75) == (0, 0.5, 1)  # 0.5 reaches the threshold
    assert found(0.375, 0.375) == (0, 0.375, 1)  # between the thresholds the flag is the label, as in mmdet
    assert found(0.375, 0.5) == (1, 0.5, -1)
    assert found(0.25, 0.125) == (0, 0.25, 0)


def test_the_flag_between_the_thresholds_is_the_class_plus_one():
    """As mmdet has it, whose head takes it for foreground where it is 1."""
    pred = Instances(priors=torch.tensor([[0.0, 0.0, 16.0, 7.0]]))
    assigner = va.MultiInstanceAssigner(1, pos_iou_thr=0.5, neg_iou_thr=0.3)
    result = assigner.assign(pred, Instances(bboxes=BOX, labels=LABELS))
    assert result.labels[0].tolist() == [2]


def test_sides_of_less_than_a_millionth_of_a_pixel():
    """They count as that: the point 3 pixels across is 3e6 sides away, the one 4 pixels down 2e6."""
    gt = torch.tensor([[0.0, 0.0, 5e-7, 2e-6]])
    points = torch.tensor([[3.0, 0.0, 8.0], [0.0, 4.0, 8.0]])
    assert point(points, gt, [2], topk=1).gt_index.tolist() == [-1, 0]


# ------------------------------------------------------------------------------------------------------------ costs


@every_way
@pytest.mark.parametrize(("extra", "first"), [(-0.5, False), (0.5, True)])
def test_no_overlap_costs_as_one_of_a_ten_millionth(extra, first, device_path):
    """3 * -log(1e-7) = 48.35: the other point, at an IoU of 1e-4, costs 27.6, and 20.7 more by its class or not."""
    share = 1e-4
    gap = 3 * (math.log(share + 1e-7) - math.log(1e-7)) + extra
    points = POINT.repeat(2, 1)
    side = 16 / math.sqrt(share)
    boxes = torch.tensor([[2e4, 2e4, 3e4, 3e4], [0, 0, side, side]])
    sure, unsure = math.exp(-1e-3), math.exp(-1e-3 - gap)
    scores = torch.tensor([[0.0, sure], [0.0, unsure]])
    found = sim_ota(points, BOX, LABELS, boxes, scores)
    assert found.gt_index.tolist() == ([0, -1] if first else [-1, 0])
    # A wrong class of logit z costs z, squared sigmoids of large ones being 1.
    logits = torch.tensor([[-60.0, -60.0], [gap, -60.0]])
    found = dynamic_soft_label(points, BOX, LABELS, boxes, logits)
    assert found.gt_index.tolist() == ([0, -1] if first else [-1, 0])


def test_the_class_cost_of_sim_ota_is_weighted():
    """The first point has the better box, the second the better class."""
    boxes = torch.tensor([[0.0, 0, 16, 16], [0, 0, 16, 8]])
    scores = torch.tensor([[0.0, 0.5], [0.0, 0.9]])
    for weight, taken in ((1.0, 0), (3.0, 0), (4.0, 1)):  # 3 * log 2 = 2.08 against weight * log 1.8
        found = sim_ota(POINT.repeat(2, 1), BOX, LABELS, boxes, scores, topk=1, cls_weight=weight)
        assert found.gt_index[taken] == 0
        assert found.gt_index[1 - taken] == -1


@every_way
def test_an_object_of_no_area_gets_no_point_whose_costs_overflow(device_path):
    """Ten to the power of fifty strides is infinite in float32, and so is what may not match."""
    gts = torch.tensor([[100.0, 100.0, 100.0, 200.0], [0.0, 0.0, 900.0, 900.0], [0.0, 0.0, 900.0, 900.0]])
    points = torch.tensor([[1.0, 1.0, 8.0], [899.0, 1.0, 8.0]])
    boxes = torch.tensor([[0.0, 0.0, 900.0, 900.0]]).repeat(2, 1)
    with using(memory_budget=1):
        found = dynamic_soft_label(points, gts, torch.tensor([0, 0, 1]), boxes, torch.zeros(2, 2))
    assert set(found.gt_index.tolist()) <= {1, 2}


def test_topk_of_topk_hungarian_is_cut_to_what_there_is():
    cost = torch.arange(10.0).view(5, 2)
    rows, columns = topk_hungarian(cost, topk=9)
    assert columns.bincount().tolist() == [2, 2]
    assert topk_hungarian(cost, topk=1)[1].bincount().tolist() == [1, 1]
    assert len(rows) == 4


@every_way
@pytest.mark.parametrize(("num_gts", "matched"), [(1, 3), (2, 2), (3, 3), (5, 3)])
def test_how_many_topk_hungarian_matches(num_gts, matched, device_path):
    """Of three predictions: as often as each object can be, at least once while there are some."""
    boxes, scores = BOX + torch.arange(3.0)[:, None], SCORES.repeat(3, 1)
    gts, labels = BOX.repeat(num_gts, 1), torch.zeros(num_gts).long()
    meta = dict(img_shape=(32, 32))
    result = va.TopkHungarianAssigner(4).assign(scores, boxes, gts, labels, meta)
    assert (result.gt_inds > 0).sum() == matched
    squared = va.TopkHungarianAssigner(4).assign(scores, boxes, gts, labels, meta, alpha=2, beta=1)
    expected = SCORES[0, 0] ** 2 * squared.max_overlaps
    assert torch.allclose(squared.assign_metrics, expected)


def test_the_first_object_is_foreground_of_targets():
    pred = Instances(priors=BOX, bboxes=BOX, scores=SCORES)
    targets = va.TaskAlignedAssigner(1).batch_targets([pred], [Instances(bboxes=BOX, labels=LABELS)])
    assert targets.foreground.tolist() == [[True]]


# ----------------------------------------------------------------------------------------------------------- blocks


def rows_of_boxes(count, seed):
    boxes = draw_boxes(count, (240, 320), "mixed", seed)
    return boxes[boxes[:, 1].argsort()]


@pytest.mark.parametrize("min_pos_iof", [0.01, 0.0, -1.0])
@pytest.mark.parametrize("scales", [(0.5, 0.8), (0.8, 2.5), (2.0, 0.5)])
def test_blocks_of_center_region(scales, min_pos_iof, monkeypatch):
    """Shadows may reach beyond their objects, and below no share at all every prior lies in every shadow."""
    monkeypatch.setattr(overlaps, "LEAST", 4)
    priors, gts = rows_of_boxes(80, 1), rows_of_boxes(12, 2)
    labels = torch.arange(len(gts)) % 3
    whole = center_region(priors, gts, labels, *scales, min_pos_iof, reach=None)
    with using(memory_budget=2000):
        parts = center_region(priors, gts, labels, *scales, min_pos_iof)
    assert torch.equal(whole.gt_index, parts.gt_index)
    assert torch.equal(whole.extras["shadowed_labels"], parts.extras["shadowed_labels"])
    assert len(whole.extras["shadowed_labels"]) > 20


@pytest.mark.parametrize("ratios", [(0.3, 0.7), (0.7, 0.3)])
def test_blocks_of_region_without_a_grid(ratios, monkeypatch):
    """Anchors that stand on none, inner parts within the ring and around it."""
    monkeypatch.setattr(overlaps, "LEAST", 4)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    center = torch.stack([x, y], dim=-1).view(-1, 2) * 8 + torch.rand(
        768, 2, generator=torch.Generator().manual_seed(0)
    )
    anchors = torch.cat([center - 16, center + 16], dim=1)
    gts = rows_of_boxes(15, 3)
    args = (anchors, gts, [768], [(24, 32)], [8], 4, *ratios)
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    whole = region(*args)
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "0")
    with using(memory_budget=2000):
        parts = region(*args)
    assert torch.equal(whole.gt_index, parts.gt_index)
    assert len(whole.gt_index.unique()) > 5


@pytest.mark.parametrize("on_grid", [True, False])
def test_points_that_are_nearly_as_near(on_grid):
    """Of many points only those near enough are looked at, and of these the nearest wins, not the farthest."""
    y, x = torch.meshgrid(torch.arange(40.0) * 8, torch.arange(40.0) * 8, indexing="ij")
    points = torch.stack([x, y, torch.full_like(x, 8.0)], dim=-1).view(-1, 3)
    if not on_grid:
        points[-1, 0] += 1
    for shift, expected in ((4e-6, 41), (-4e-6, 40), (0.0, 40)):
        center = torch.tensor([4 + shift, 8.0])  # between the points (0, 8) and (8, 8)
        gt = torch.cat([center - 16, center + 16])[None]
        found = point(points, gt, [1600], topk=1)
        assert (found.gt_index >= 0).nonzero().flatten().tolist() == [expected]


def test_the_origin_of_maps_is_taken_off_before_distances():
    """At 2**21 pixels centres would be rounded to quarters."""
    far = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.25, 0.0, 10.5, 10.0], [0.0, 0.0, 10.25, 10.0]]) + 2.0**21
    found = uniform(far[:2], far[2:], far[:2], 0.15, 0.7, topk=1)
    near = uniform(far[:2] - 2.0**21, far[2:] - 2.0**21, far[:2] - 2.0**21, 0.15, 0.7, topk=1)
    assert found.gt_index.tolist() == near.gt_index.tolist() == [-2, 0]


# ---------------------------------------------------------------------------------------------------------- options

AT_LEAST_ONE = {
    "ATSSAssigner": "topk",
    "TaskAlignedAssigner": "topk",
    "SimOTAAssigner": "candidate_topk",
    "DynamicSoftLabelAssigner": "topk",
    "UniformAssigner": "match_times",
    "PointAssigner": "pos_num",
    "TopkHungarianAssigner": "topk",
    "MultiInstanceAssigner": "num_instance",
}
NEEDED = {
    "ATSSAssigner": dict(topk=9),
    "TaskAlignedAssigner": dict(topk=13),
    "UniformAssigner": dict(pos_ignore_thr=0.15, neg_ignore_thr=0.7),
    "MultiInstanceAssigner": dict(pos_iou_thr=0.5, neg_iou_thr=0.5),
    "GridAssigner": dict(pos_iou_thr=0.5, neg_iou_thr=0.5),
    "ScaleRangeAssigner": dict(regress_ranges=[(0, 99)]),
}


@pytest.mark.parametrize("name", AT_LEAST_ONE)
def test_numbers_are_at_least_one(name):
    option = AT_LEAST_ONE[name]
    assert REGISTERED[name](**{**NEEDED.get(name, {}), option: 1}) is not None
    with pytest.raises(ValueError, match=rf"^{name}: {option} is 0"):
        REGISTERED[name](**{**NEEDED.get(name, {}), option: 0})


@pytest.mark.parametrize("name", ["SimOTAAssigner", "DynamicSoftLabelAssigner"])
def test_weights_are_numbers(name):
    with pytest.raises(ValueError, match=rf"^{name}: iou_weight is nan; a finite number"):
        REGISTERED[name](iou_weight=math.nan)


@pytest.mark.parametrize(
    "name", ["GridAssigner", "MultiInstanceAssigner", "AscendMaxIoUAssigner", "ApproxMaxIoUAssigner"]
)
def test_thresholds_that_cross_are_told(name, recwarn):
    inputs.warned.clear()
    REGISTERED[name](pos_iou_thr=0.3, neg_iou_thr=0.4)
    assert f"{name}: neg_iou_thr 0.4 is above pos_iou_thr 0.3" in str(recwarn.list[0].message)


FIELDS = dict(priors=BOX, bboxes=BOX, scores=SCORES, decoder_priors=BOX, responsible_flags=torch.tensor([True]))
USELESS = {
    "TaskAlignedAssigner": FIELDS,
    "SimOTAAssigner": {**FIELDS, "priors": POINT},
    "DynamicSoftLabelAssigner": {**FIELDS, "priors": POINT},
    "GridAssigner": FIELDS,
    "UniformAssigner": FIELDS,
    "PointAssigner": {**FIELDS, "priors": POINT[:, :3]},
    "ScaleRangeAssigner": FIELDS,
}


@pytest.mark.parametrize("name", USELESS)
def test_regions_without_a_use_are_told(name, recwarn):
    inputs.warned.clear()
    assigner, shared = REGISTERED[name](**NEEDED.get(name, {})), {}
    if name == "ScaleRangeAssigner":
        shared = dict(num_level_priors=[1])
    gt = Instances(bboxes=BOX, labels=LABELS)
    pred = Instances(**USELESS[name])
    assigner.assign(pred, gt, **shared)
    assert not recwarn
    assigner.assign(pred, gt, gt_instances_ignore=Instances(bboxes=BOX), **shared)
    assert f"{name}: gt_instances_ignore has 1 regions, which are not used" in str(recwarn.list[0].message)
