"""Many images at once on a device: to the last bit what each is by itself, without a wait, within the budget."""

from unittest.mock import patch

import pytest
import torch
from mmengine.structures import InstanceData

from assigners.cases import CASES
from scenes import Objects, draw_boxes
from visdet_assigners import ATSSAssigner, BaseAssigner, MaxIoUAssigner, TaskAlignedAssigner, set_memory_budget
from visdet_assigners.testing.measure import OperatorCounter

IMAGE = (240, 320)
COUNTS = (12, 0, 30, 3, 25, 1)


def scene(count: int, seed: int) -> Objects:
    boxes = draw_boxes(2 * count + 10, IMAGE, "mixed", seed)[:count]
    return Objects("batch", boxes, torch.arange(count) % 8, draw_boxes(3, IMAGE, "mixed", seed + 1), IMAGE)


MAKE = {
    "atss": ("ATSSAssigner", lambda: ATSSAssigner(9, ignore_iof_thr=0.5)),
    "atss-by-index": ("ATSSAssigner", lambda: ATSSAssigner(9, deterministic=True)),
    "ddod": ("ATSSAssigner-ddod", lambda: ATSSAssigner(9, alpha=0.8)),
    "tood": ("TaskAlignedAssigner", lambda: TaskAlignedAssigner(13)),
    "retinanet": ("MaxIoUAssigner", lambda: MaxIoUAssigner(0.5, 0.4, ignore_iof_thr=0.5)),
    "yolov8": ("TaskAlignedAssigner", lambda: TaskAlignedAssigner(10, candidate_order="inside_then_topk")),
}
every_way = pytest.mark.parametrize("name", MAKE)


def batch(name, counts=COUNTS):
    """The assigner, its inputs and, for calls one by one, those of each image."""
    case, scenes = CASES[MAKE[name][0]], [scene(count, 10 * seed) for seed, count in enumerate(counts)]
    preds, gts = [case.pred(objects) for objects in scenes], [case.gt(objects) for objects in scenes]
    ignores = [objects.ignore if number % 2 else None for number, objects in enumerate(scenes)]
    return MAKE[name][1](), (preds, gts, ignores), case.shared(scenes[0])


def tensors(result):
    found = [result.gt_inds, result.labels, result.max_overlaps]
    return found + [getattr(result, name) for name in ("assign_metrics", "norm_metrics") if hasattr(result, name)]


@pytest.fixture
def device_path(monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    yield
    set_memory_budget(None)


@every_way
@pytest.mark.parametrize("images_a_budget", [100, 2.5, 0.1])
def test_a_batch_is_the_loop_to_the_last_bit(name, images_a_budget, device_path):
    assigner, (preds, gts, ignores), shared = batch(name)
    expected = [
        assigner.assign(pred, gt_instances=gt, gt_instances_ignore=ignore, **shared)
        for pred, gt, ignore in zip(preds, gts, ignores)
    ]
    set_memory_budget(int(images_a_budget * 32 * len(preds[0]) * max(COUNTS)))
    with patch.object(assigner, "decide_images", wraps=assigner.decide_images) as at_once:
        results = assigner.assign_batch(preds, gts, ignores, **shared)
    assert sorted(len(call.args[0]) for call in at_once.call_args_list) == [1, 5]  # one has no objects
    for mine, alone in zip(results, expected, strict=True):
        assert type(mine) is type(alone)
        assert mine.num_gts == alone.num_gts
        for found, wanted in zip(tensors(mine), tensors(alone), strict=True):
            assert torch.equal(found, wanted)
    assert sum(int((result.gt_inds > 0).sum()) for result in results) > 30


@every_way
def test_a_batch_takes_no_wait_and_a_third_of_the_operators(name, device_path):
    assigner, inputs, shared = batch(name, counts=(5,) * 10)
    with OperatorCounter() as together:
        assigner.assign_batch(*inputs, **shared)
    with OperatorCounter() as loop:
        BaseAssigner.assign_batch(assigner, *inputs, **shared)
    assert together.waits.total() == loop.waits.total() == 0
    assert together.total * 3 < loop.total


@every_way
def test_a_cpu_takes_images_one_by_one(name):
    assigner, inputs, shared = batch(name)
    with patch.object(assigner, "decide_images", wraps=assigner.decide_images) as at_once:
        assert len(assigner.assign_batch(*inputs, **shared)) == len(COUNTS)
    assert all(len(call.args[0]) == 1 for call in at_once.call_args_list)


@pytest.mark.parametrize("name", ["atss", "tood"])
def test_images_are_taken_one_by_one_where_a_calculator_compares_all_pairs(name, device_path):
    made, inputs, shared = batch(name)
    expected = made.assign_batch(*inputs, **shared)
    pairwise = made.iou_calculator
    made.iou_calculator = lambda boxes1, boxes2, mode="iou": pairwise(boxes1, boxes2, mode)
    with patch.object(made, "decide_images", wraps=made.decide_images) as at_once:
        results = made.assign_batch(*inputs, **shared)
    assert all(len(call.args[0]) == 1 for call in at_once.call_args_list)
    assert all(torch.equal(mine.gt_inds, other.gt_inds) for mine, other in zip(results, expected, strict=True))


def test_images_of_other_sizes_go_into_other_batches(device_path):
    assigner, (preds, gts, ignores), _ = batch("tood")
    preds[2], preds[3] = preds[2][:300], preds[3][:300]
    with patch.object(assigner, "decide_images", wraps=assigner.decide_images) as at_once:
        results = assigner.assign_batch(preds, gts, ignores)
    assert sorted(len(call.args[0]) for call in at_once.call_args_list) == [1, 2, 3]  # one has no objects
    assert [len(result.gt_inds) for result in results] == [len(pred) for pred in preds]


@pytest.mark.parametrize("regions", ["all", "some", "none"])
def test_regions_of_all_images_of_some_or_of_none(regions, device_path):
    assigner, (preds, gts, _), shared = batch("atss", counts=(5, 6, 7))
    crowd = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 160.0, 120.0]]))
    ignores = [crowd if regions == "all" or (regions == "some" and number == 1) else None for number in range(3)]
    with patch.object(assigner, "decide_images", wraps=assigner.decide_images) as at_once:
        results = assigner.assign_batch(preds, gts, ignores, **shared)
    assert at_once.call_count == 1
    for mine, pred, gt, ignore in zip(results, preds, gts, ignores, strict=True):
        alone = assigner.assign(pred, gt_instances=gt, gt_instances_ignore=ignore, **shared)
        assert torch.equal(mine.gt_inds, alone.gt_inds)
        assert (mine.gt_inds == -1).any() == (ignore is not None)


@every_way
@pytest.mark.parametrize("wrong", [0, 2])
def test_the_image_that_is_wrong_is_named(name, wrong, device_path):
    """Before anything is worked out: the others' numbers are of no use."""
    assigner, (preds, gts, _), shared = batch(name, counts=(5, 6, 7))
    assigner.on_nonfinite = "raise"
    gts[wrong].bboxes = gts[wrong].bboxes.clone()
    gts[wrong].bboxes[3, 1] = float("nan")
    metas = [dict(img_path=f"{number}.jpg") for number in range(3)]
    with pytest.raises(ValueError, match=rf"gt_instances.bboxes\[3, 1\] is nan.*\(image {wrong}.jpg\)"):
        assigner.assign_batch(preds, gts, None, metas, **shared)
    if not name.startswith(("atss", "retina")):  # with scores, of which a wrong label would be no column
        assigner, (preds, gts, _), shared = batch(name, counts=(5, 6, 7))
        assigner.on_nonfinite = "raise"
        gts[wrong].labels = gts[wrong].labels.index_fill(0, torch.tensor([4]), 8)
        with pytest.raises(ValueError, match=rf"labels\[4\] is 8 but scores have 8 classes.*\(image {wrong}.jpg\)"):
            assigner.assign_batch(preds, gts, None, metas, **shared)
    with pytest.raises(ValueError, match=r"lists of different lengths: \[3, 2\]"):
        assigner.assign_batch(preds, gts[:2], **shared)
