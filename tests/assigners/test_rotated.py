"""Rotated boxes: mmdet's results where mmdet serves them, the rules as plain loops elsewhere, and named errors."""

import pytest
import torch
from mmdet.models.task_modules import assigners as theirs
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import visdet_assigners as ours
from rotated import RowOverlaps, TurnedBoxes, TurnedOverlaps, anchored, pointed, rows_of, truths, turned
from scenes import anchors, drawn_objects, proposals
from visdet_assigners.assigners.max_iou import match_by_iou
from visdet_assigners.functional.boxes import box_overlaps
from visdet_assigners.functional.geometry import geometry_of
from visdet_assigners.settings import using

SCENES = [
    objects for objects in drawn_objects() if objects.name in ("mixed-12-320", "twice-12-320", "mixed-40-403", "empty")
]
CALCULATORS = pytest.mark.parametrize("calculator", [TurnedOverlaps(), RowOverlaps()], ids=["in its class", "rows"])


def mmdets(name, calculator, **config):
    with DefaultScope.overwrite_default_scope("mmdet"):
        assigner = getattr(theirs, name)(**config)
    assigner.iou_calculator = calculator
    return assigner


def assert_equal(found, expected, everywhere=False):
    assert torch.equal(found.gt_inds, expected.gt_inds)
    assert torch.equal(found.labels, expected.labels)
    where = slice(None) if everywhere else expected.gt_inds > 0
    assert torch.equal(found.max_overlaps[where], expected.max_overlaps[where])


# ------------------------------------------------------------------------------------------------------ beside mmdet


@CALCULATORS
@pytest.mark.parametrize("ignore", [-1, 0.4])
def test_max_iou(calculator, ignore):
    config = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1, ignore_iof_thr=ignore)
    mine = ours.MaxIoUAssigner(**config, iou_calculator=calculator)
    reference, positives, ignored = mmdets("MaxIoUAssigner", calculator, **config), 0, 0
    for objects in SCENES:
        regions = InstanceData(bboxes=turned(objects.crowds, 3)) if len(objects.boxes) else None
        for priors in (turned(anchors(objects)[0], None), turned(proposals(objects, 200, seed=5), 6)):
            pred = InstanceData(priors=priors)
            expected = reference.assign(pred, truths(objects), regions)
            assert_equal(mine.assign(pred, truths(objects), regions), expected, everywhere=True)
            positives += int((expected.gt_inds > 0).sum())
            ignored += int((expected.max_overlaps == -1).sum())
    assert positives > 50
    assert (ignored > 50) == (ignore > 0)


def test_approx_max_iou_is_max_iou_of_the_best_box():
    """Of approximating boxes in their class; mmdet's takes four columns alone."""
    config = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1)
    approx, positives = ours.ApproxMaxIoUAssigner(**config, iou_calculator=TurnedOverlaps()), 0
    for objects in SCENES[:-1]:
        priors = turned(anchors(objects)[0], 1)
        far = rows_of(anchors(objects)[0] + 1e4)
        expected = match_by_iou(TurnedOverlaps()(priors, turned(objects.boxes)), **config)
        pred = InstanceData(priors=priors, approxs=TurnedBoxes(torch.stack([priors.tensor, far], dim=1)))
        found = approx.assign(pred, truths(objects))
        assert torch.equal(found.gt_inds, torch.where(expected.gt_index < -1, -1, expected.gt_index + 1))
        assert torch.equal(found.max_overlaps, expected.quality)
        positives += int((expected.gt_index >= 0).sum())
    assert positives > 20


@CALCULATORS
def test_grid(calculator):
    config = dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.1)
    mine = ours.GridAssigner(**config, iou_calculator=calculator)
    reference, positives = mmdets("GridAssigner", calculator, **config), 0
    for objects in SCENES:
        priors = turned(anchors(objects)[0], 1)
        flags = torch.rand(len(priors), generator=torch.Generator().manual_seed(0)) < 0.5
        pred = InstanceData(priors=priors, responsible_flags=flags)
        expected = reference.assign(pred, truths(objects))
        assert_equal(mine.assign(pred, truths(objects)), expected)
        positives += int((expected.gt_inds > 0).sum())
    assert positives > 20


@pytest.mark.parametrize("way", ["0", "1"])
def test_dynamic_soft_label(way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    mine = ours.DynamicSoftLabelAssigner(iou_calculator=RowOverlaps())
    reference, positives = mmdets("DynamicSoftLabelAssigner", RowOverlaps()), 0
    for objects in SCENES:
        expected = reference.assign(pointed(objects), truths(objects))
        assert_equal(mine.assign(pointed(objects), truths(objects)), expected)
        pred = pointed(objects)
        pred.bboxes = TurnedBoxes(pred.bboxes)
        assert_equal(mine.assign(pred, truths(objects)), expected)
        positives += int((expected.gt_inds > 0).sum())
    assert positives > 80


def test_dynamic_soft_label_asks_horizontal_boxes_too():
    """A point on their border lies inside, by their own word; of a tensor it doesn't."""
    from mmdet.structures.bbox import HorizontalBoxes

    reference = mmdets("DynamicSoftLabelAssigner", theirs.BboxOverlaps2D())
    priors = torch.tensor([[0.0, 4.0, 8.0, 8.0], [4.0, 4.0, 8.0, 8.0]])
    pred = InstanceData(priors=priors, scores=torch.zeros(2, 1), bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0]] * 2))
    for boxes, inside in ((torch.tensor([[0.0, 0.0, 8.0, 8.0]]), 1), (HorizontalBoxes([[0.0, 0.0, 8.0, 8.0]]), 2)):
        gt = InstanceData(bboxes=boxes, labels=torch.tensor([0]))
        expected = reference.assign(pred, gt)
        assert int((expected.gt_inds > 0).sum()) == inside
        assert_equal(ours.DynamicSoftLabelAssigner().assign(pred, gt), expected)


# -------------------------------------------------------------------------------------------------- beside plain loops


def atss_by_loops(priors, gts, sizes, topk, iou):
    """ATSS: mean and deviation of the candidates' overlaps, centres inside, the largest overlap wins."""
    owner, quality = [0] * len(priors), [-1.0] * len(priors)
    distance = (priors.centers[:, None] - gts.centers[None]).pow(2).sum(-1).sqrt()
    for gt in range(len(gts)):
        candidates, start = [], 0
        for size in sizes:
            near = distance[start : start + size, gt].topk(min(topk, size), largest=False).indices
            candidates += (near + start).tolist()
            start += size
        own = iou[candidates, gt]
        threshold = own.mean() + own.std()
        for prior in candidates:
            inside = gts[gt : gt + 1].find_inside_points(priors.centers[prior : prior + 1])
            if inside and iou[prior, gt] >= threshold and iou[prior, gt] > quality[prior]:
                owner[prior], quality[prior] = gt + 1, float(iou[prior, gt])
    return torch.tensor(owner)


def aligned_by_loops(pred, gt, iou, topk, inside_first):
    """Task-aligned: score * IoU^6, the best k of each object, centres inside, the largest overlap wins."""
    owner, quality = [0] * len(pred), [-1.0] * len(pred)
    for number, label in enumerate(gt.labels.tolist()):
        alignment = pred.scores[:, label] * iou[:, number] ** 6
        inside = gt.bboxes[number : number + 1].find_inside_points(pred.priors.centers)[:, 0]
        for prior in (alignment * inside if inside_first else alignment).topk(topk).indices.tolist():
            if inside[prior] and alignment[prior] > 0 and iou[prior, number] > quality[prior]:
                owner[prior], quality[prior] = number + 1, float(iou[prior, number])
    return torch.tensor(owner)


@pytest.mark.parametrize("way", ["0", "1"])
def test_atss(way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    positives, assigner = 0, ours.ATSSAssigner(topk=9, iou_calculator=TurnedOverlaps())
    for objects in SCENES:
        pred, sizes = anchored(objects)
        pred, gt = InstanceData(priors=pred.priors), truths(objects)
        found = assigner.assign(pred, sizes, gt)
        iou = TurnedOverlaps()(pred.priors, gt.bboxes)
        assert torch.equal(found.gt_inds, atss_by_loops(pred.priors, gt.bboxes, sizes, 9, iou))
        own = (found.gt_inds > 0).nonzero()[:, 0]
        assert torch.equal(found.max_overlaps[own], iou[own, found.gt_inds[own] - 1])
        positives += len(own)
    assert positives > 50


@pytest.mark.parametrize("way", ["0", "1"])
@pytest.mark.parametrize("order", ["topk_then_inside", "inside_then_topk"])
def test_task_aligned(way, order, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    assigner = ours.TaskAlignedAssigner(topk=13, iou_calculator=TurnedOverlaps(), candidate_order=order)
    positives = 0
    for objects in SCENES:
        pred, gt = anchored(objects)[0], truths(objects)
        found = assigner.assign(pred, gt)
        iou = TurnedOverlaps()(pred.bboxes, gt.bboxes)
        assert torch.equal(found.gt_inds, aligned_by_loops(pred, gt, iou, 13, order == "inside_then_topk"))
        positives += int((found.gt_inds > 0).sum())
    assert positives > 100
    targets = assigner.batch_targets([pred], [gt])
    assert targets.boxes.shape == (1, len(pred), 5)


class AsUpright:
    """The IoU of the upright boxes that boxes of angle 0 are, to the last bit where their numbers are dyadic."""

    def __call__(self, bboxes1, bboxes2, mode="iou", is_aligned=False):
        def xyxy(boxes):
            rows = getattr(boxes, "tensor", boxes)
            return torch.cat([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], dim=1)

        return box_overlaps(xyxy(bboxes1), xyxy(bboxes2), mode)


@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner", "SimOTAAssigner", "DynamicSoftLabelAssigner"])
def test_boxes_that_are_not_turned_match_as_upright_ones(name):
    """In quarters of a pixel, where centre and size are as exact as corners."""
    config = {"ATSSAssigner": dict(topk=9), "TaskAlignedAssigner": dict(topk=13)}.get(name, {})
    cls, positives = getattr(ours, name), 0
    for objects in SCENES:
        boxes = (objects.boxes * 4).round() / 4
        gt, pointwise = InstanceData(bboxes=boxes, labels=objects.labels), name[0] in "SD"
        pred, sizes = (pointed(objects), None) if pointwise else anchored(objects)
        priors = pred.priors if pointwise else anchors(objects)[0]
        predicted = torch.randint(-8, 9, (len(priors), 4), generator=torch.Generator().manual_seed(1)) / 4
        reach = pred.priors[:, [2, 2]] * 2 if pointwise else None
        around = torch.cat([priors[:, :2] - reach, priors[:, :2] + reach], dim=1) if pointwise else priors
        fields = dict(priors=priors, bboxes=around + predicted, scores=pred.scores.sigmoid())
        arguments = dict(num_level_priors=sizes) if name == "ATSSAssigner" else {}
        if name == "ATSSAssigner":
            fields = dict(priors=priors)
        expected = cls(**config).assign(InstanceData(**fields), gt, **arguments)
        for field in fields:
            if field == "bboxes" or (field == "priors" and not pointwise):
                fields[field] = turned(fields[field], None)
        gt = InstanceData(bboxes=turned(boxes, None), labels=objects.labels)
        found = cls(**config, iou_calculator=AsUpright()).assign(InstanceData(**fields), gt, **arguments)
        assert_equal(found, expected)
        positives += int((expected.gt_inds > 0).sum())
    assert positives > 50


# ---------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner", "DynamicSoftLabelAssigner"])
def test_blocks_of_any_size_give_the_same(name):
    """With a calculator that is blockwise, whose values don't depend on the call."""

    class Blockwise(RowOverlaps):
        blockwise = True

    objects = SCENES[0]
    config = {"ATSSAssigner": dict(topk=9), "TaskAlignedAssigner": dict(topk=13)}.get(name, {})
    assigner = getattr(ours, name)(**config, iou_calculator=Blockwise())
    pred, sizes = (pointed(objects), None) if name[0] == "D" else anchored(objects)
    if name == "ATSSAssigner":
        pred = InstanceData(priors=pred.priors)
    arguments = dict(num_level_priors=sizes) if sizes and name == "ATSSAssigner" else {}
    whole = assigner.assign(pred, truths(objects), **arguments)
    for budget in (100_000, 500_000):
        with using(memory_budget=budget):
            assert_equal(assigner.assign(pred, truths(objects), **arguments), whole)
    assert (whole.gt_inds > 0).sum() > 10


def test_bad_rows_are_never_matched():
    """Replaced, they have no area and lie nowhere; nothing else changes."""
    objects = SCENES[-2]
    pred, sizes = anchored(objects)
    pred, gt = InstanceData(priors=pred.priors), truths(objects)
    assigner = ours.ATSSAssigner(topk=9, iou_calculator=RowOverlaps(), on_nonfinite="replace")
    whole = assigner.assign(pred, sizes, gt)
    number = int(whole.gt_inds.max())
    gt.bboxes.tensor[number - 1, 4] = float("nan")
    found = assigner.assign(pred, sizes, gt)
    lost = whole.gt_inds == number
    assert number > 0
    assert not (found.gt_inds == number).any()
    assert torch.equal(found.gt_inds[~lost], whole.gt_inds[~lost])
    matched = int((whole.gt_inds > 0).nonzero()[0])
    gt, pred.priors.tensor[matched, 0] = truths(objects), float("inf")
    assert assigner.assign(pred, sizes, gt).gt_inds[matched] == 0


def test_functions_take_them_by_their_geometry():
    objects = SCENES[-2]
    pred, gt = pointed(objects), truths(objects)
    measure = ours.DynamicSoftLabelAssigner(iou_calculator=RowOverlaps()).measure
    found = ours.dynamic_soft_label(
        pred.priors,
        gt.bboxes.tensor,
        gt.labels,
        pred.bboxes,
        pred.scores,
        measure=measure,
        geometry=geometry_of(TurnedBoxes),
    )
    expected = ours.DynamicSoftLabelAssigner(iou_calculator=RowOverlaps()).assign(pred, gt)
    assert torch.equal(found.gt_index + 1, expected.gt_inds)


# ---------------------------------------------------------------------------------------------------------- errors


def test_rows_without_a_class_say_what_is_missing():
    objects = SCENES[0]
    pred, sizes = anchored(objects)
    rows = InstanceData(bboxes=rows_of(objects.boxes), labels=objects.labels)
    assigner = ours.ATSSAssigner(topk=9, iou_calculator=RowOverlaps())
    text = r"gt_instances.bboxes must have shape \(n, 4\), got \(\d+, 5\); .*give BaseBoxes that know them"
    with pytest.raises(ours.AssignerInputError, match=text):
        assigner.assign(InstanceData(priors=pred.priors), sizes, rows)
    text = r"pred_instances.priors has 5 columns and no class that knows their centres; .*mmrotate's RotatedBoxes"
    with pytest.raises(ours.AssignerInputError, match=text):
        assigner.assign(InstanceData(priors=pred.priors.tensor), sizes, truths(objects))


@pytest.mark.parametrize("name", ["MaxIoUAssigner", "ATSSAssigner"])
def test_a_calculator_of_upright_boxes_alone(name):
    objects = SCENES[0]
    pred, sizes = anchored(objects)
    assigner = ours.ATSSAssigner(topk=9) if name == "ATSSAssigner" else ours.MaxIoUAssigner(0.5, 0.4)
    text = "gt_instances.bboxes are TurnedBoxes, which the iou_calculator BboxOverlaps2D doesn't know; give one that"
    with pytest.raises(ours.AssignerInputError, match=f"{name}: {text}"):
        assigner.assign(InstanceData(priors=pred.priors), truths(objects), num_level_priors=sizes)


@pytest.mark.parametrize(
    ("build", "option"),
    [
        (lambda **more: ours.TaskAlignedAssigner(13, min_positives=1, **more), "min_positives"),
        (lambda **more: ours.TaskAlignedAssigner(13, side_floor=(8, 16), **more), "side_floor"),
        (lambda **more: ours.ATSSAssigner(9, min_positives=1, **more), "min_positives"),
        (lambda **more: ours.MaxIoUAssigner(0.5, 0.4, min_positives=1, **more), "min_positives"),
    ],
)
def test_options_of_upright_boxes_alone(build, option):
    """They would take the angle and the sides for corners."""
    objects = SCENES[0]
    pred, sizes = anchored(objects)
    with pytest.raises(ours.AssignerInputError, match=f"Assigner: {option} needs xyxy boxes"):
        build(iou_calculator=RowOverlaps()).assign(pred, truths(objects), num_level_priors=sizes)


def test_a_method_of_upright_boxes_alone():
    objects = SCENES[0]
    pred = InstanceData(priors=pointed(objects).priors[:, :3])
    with pytest.raises(
        ours.AssignerInputError, match=r"PointAssigner: gt_instances.bboxes are TurnedBoxes, .* upright"
    ):
        ours.PointAssigner(scale=4, pos_num=3).assign(pred, truths(objects))


def test_boxes_that_the_calculator_refuses():
    objects = SCENES[0]
    assigner = ours.MaxIoUAssigner(0.5, 0.4, iou_calculator=TurnedOverlaps())
    pred = InstanceData(priors=anchors(objects)[0])
    text = r"MaxIoUAssigner: TurnedOverlaps refuses TurnedBoxes \(\d+, 5\) and Tensor \(\d+, 4\): AssertionError"
    with pytest.raises(ours.AssignerInputError, match=text):
        assigner.assign(pred, truths(objects))


def test_a_calculator_named_without_its_scope():
    from mmdet.registry import TASK_UTILS

    name = "OnlyMmdetHasIt"
    TASK_UTILS.register_module(name=name, module=RowOverlaps, force=True)
    try:
        with (
            DefaultScope.overwrite_default_scope("mmengine"),
            pytest.raises(KeyError, match=f"write type='mmdet.{name}'"),
        ):
            ours.MaxIoUAssigner(0.5, 0.4, iou_calculator=dict(type=name))
    finally:
        TASK_UTILS.module_dict.pop(name)
    with pytest.raises(KeyError, match="no package that is loaded has it; write its package's scope in front"):
        ours.MaxIoUAssigner(0.5, 0.4, iou_calculator=dict(type=name))


def test_nothing_is_compiled_with_classes_that_are_asked():
    objects = SCENES[0]
    pred, sizes = anchored(objects)
    pred, gt = InstanceData(priors=pred.priors), truths(objects)
    plain, compiled = (ours.ATSSAssigner(topk=9, iou_calculator=RowOverlaps(), compile=on) for on in (False, True))
    assert_equal(compiled.assign(pred, sizes, gt), plain.assign(pred, sizes, gt))


@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner", "MaxIoUAssigner"])
@pytest.mark.parametrize("way", ["0", "1"])
def test_batches_are_as_images_one_by_one(name, way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    config = {"ATSSAssigner": dict(topk=9), "TaskAlignedAssigner": dict(topk=13)}
    assigner = getattr(ours, name)(
        **config.get(name, dict(pos_iou_thr=0.5, neg_iou_thr=0.4)), iou_calculator=TurnedOverlaps()
    )
    images = [objects for objects in SCENES if objects.image == SCENES[0].image]
    preds, sizes = [anchored(objects)[0] for objects in images], anchored(images[0])[1]
    preds = [InstanceData(priors=pred.priors) for pred in preds] if name != "TaskAlignedAssigner" else preds
    gts = [truths(objects) for objects in images]
    shared = dict(num_level_priors=sizes) if name == "ATSSAssigner" else {}
    for found, pred, gt in zip(assigner.assign_batch(preds, gts, **shared), preds, gts):
        assert_equal(found, assigner.assign(pred, gt, **shared))
    assert len(images) == 3
