"""The laws that every assigner keeps, walked over the registry.

A test for each law, hence the length.
"""

import copy
from dataclasses import replace

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from assigners.cases import CASES, as_cascade_rpn, as_mask_tensors, scene, with_meta
from scenes import anchors, drawn_objects
from visdet_assigners import AssignResult, BaseAssigner, dropped, inputs
from visdet_assigners.assigners import calling
from visdet_assigners.registry import REGISTERED
from visdet_assigners.settings import DEFAULT_BUDGET, set_memory_budget
from visdet_assigners.testing.feeds import meta
from visdet_assigners.testing.measure import OperatorCounter

every_case = pytest.mark.parametrize("name", CASES)
every_case_of_one_per_prior = pytest.mark.parametrize("name", [name for name in CASES if not CASES[name].own_layout])
# One-to-one matching reads boxes through its costs alone, see test_hungarian.py.
every_case_with_boxes = pytest.mark.parametrize(
    "name", [name for name in CASES if CASES[name].call not in (with_meta, as_mask_tensors)]
)
every_case_with_ignore_regions = pytest.mark.parametrize("name", [name for name in CASES if CASES[name].ignores])


EMPTY = next(objects for objects in drawn_objects() if objects.name == "empty")


def same(result: AssignResult, other: AssignResult) -> bool:
    return torch.equal(result.gt_inds, other.gt_inds) and torch.equal(result.labels, other.labels)


def test_every_registered_assigner_has_a_case():
    assigners = {name for name, cls in REGISTERED.items() if issubclass(cls, BaseAssigner)}
    assert assigners <= {name.split("-")[0] for name in CASES}


@every_case_of_one_per_prior
@pytest.mark.parametrize("objects", drawn_objects(), ids=lambda objects: objects.name)
def test_result_is_well_formed(name, objects):
    case = CASES[name]
    pred = case.pred(objects)
    result = case.assign(objects, pred)
    assert type(result) is AssignResult
    assert result.num_gts == len(objects.boxes)
    assert result.num_preds == len(pred)
    assert result.gt_inds.dtype == result.labels.dtype == torch.long
    assert result.gt_inds.shape == result.labels.shape == (len(pred),)
    assert result.gt_inds.min() >= -1
    assert result.gt_inds.max() <= len(objects.boxes)
    positive = result.gt_inds > 0
    assert torch.equal(result.labels >= 0, positive)
    assert torch.equal(result.labels[positive], objects.labels[result.gt_inds[positive] - 1])
    if result.max_overlaps is not None:
        assert result.max_overlaps.shape == ((positive.sum(),) if case.matched_only else (len(pred),))
        if not case.best_overlap and not case.matched_only:
            assert (result.max_overlaps[~positive] == 0).all()


@every_case
def test_something_is_assigned(name):
    assert (CASES[name].assign(scene()).gt_inds > 0).any()


@every_case_of_one_per_prior
@pytest.mark.parametrize("num_priors", [0, 1, 2, None])
@pytest.mark.parametrize("num_gts", [0, 1, 12])
def test_few_or_none(name, num_priors, num_gts):
    """No objects, no priors, both, one of each, fewer priors than k."""
    case, objects = CASES[name], scene()
    gt = case.gt(objects)[:num_gts]
    pred = case.pred(objects)
    pred = pred if num_priors is None else pred[:num_priors]
    result = case.assign(objects, pred, gt)
    assert result.num_gts == num_gts
    assert len(result.gt_inds) == len(result.labels) == len(pred)
    if num_gts == 0:
        assert (result.gt_inds == 0).all()
        assert (result.labels == -1).all()
        assert result.max_overlaps is None or (result.max_overlaps == 0).all()


@every_case
def test_empty_boxes_of_any_shape(name):
    case = CASES[name]
    pred = case.pred(EMPTY)
    gt = case.gt(EMPTY)
    flat = InstanceData(bboxes=torch.zeros(0), labels=torch.zeros(0, dtype=torch.long))
    assert same(case.assign(EMPTY, pred, gt), case.assign(EMPTY, pred, flat))


@every_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_assignment_of_the_same_values(name, dtype):
    case, objects = CASES[name], scene()

    def cast(instances, *dtypes):
        made = InstanceData()
        for field, value in instances.items():
            for target in dtypes if value.is_floating_point() else ():
                value = value.to(target)
            setattr(made, field, value)
        return made

    halves = case.assign(objects, cast(case.pred(objects), dtype), cast(case.gt(objects), dtype))
    widened = case.assign(
        objects, cast(case.pred(objects), dtype, torch.float32), cast(case.gt(objects), dtype, torch.float32)
    )
    assert same(halves, widened)
    assert (halves.gt_inds > 0).any()


@every_case
def test_double_precision(name):
    case, objects = CASES[name], scene()
    pred, gt = case.pred(objects), case.gt(objects)
    for instances in (pred, gt):
        for field, value in list(instances.items()):
            if value.is_floating_point():
                setattr(instances, field, value.double())
    assert (case.assign(objects, pred, gt).gt_inds > 0).any()


@every_case
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_predictions_are_named(name, value):
    case, objects = CASES[name], scene()
    for field in case.fields:
        pred = copy.deepcopy(case.pred(objects))
        if "HungarianAssigner" in name and field != "bboxes" and value == float("inf"):
            continue  # a certain logit has a finite cost
        getattr(pred, field).view(-1)[5] = value
        with pytest.raises(ValueError, match=r"Assigner: .*(nan|inf)"):
            case.assign(objects, pred)


@every_case_with_boxes
def test_non_finite_ground_truths_are_named(name):
    case, objects = CASES[name], scene()
    gt = case.gt(objects)
    gt.bboxes = gt.bboxes.clone()
    gt.bboxes[3, 1] = float("nan")
    with pytest.raises(ValueError, match=r"Assigner: .*nan"):
        case.assign(objects, gt=gt)


@every_case
def test_missing_fields_are_named(name):
    case, objects = CASES[name], scene()
    for field in case.fields:
        if name.startswith("MaskHungarianAssigner") and field == "scores":
            continue  # without scores it matches by masks alone
        pred = case.pred(objects)
        delattr(pred, field)
        with pytest.raises(ValueError, match=rf"(Assigner|Cost): .*{field.rstrip('s')}"):
            case.assign(objects, pred)
    with pytest.raises(ValueError, match=r"Assigner: .*labels"):
        case.assign(objects, gt=InstanceData(bboxes=objects.boxes))


@every_case_with_boxes
def test_inverted_ground_truths_are_named(name):
    case, objects = CASES[name], scene()
    gt = case.gt(objects)
    gt.bboxes = gt.bboxes[:, [2, 1, 0, 3]]
    with pytest.raises(ValueError, match=r"gt_instances.bboxes\[0\] is .* not x1 <= x2"):
        case.assign(objects, gt=gt)


@every_case
def test_box_containers(name):
    case, objects = CASES[name], scene()
    pred, gt = case.pred(objects), case.gt(objects)
    expected = case.assign(objects, pred, gt)
    gt.bboxes = HorizontalBoxes(gt.bboxes)
    for field in case.boxes:
        setattr(pred, field, HorizontalBoxes(getattr(pred, field)))
    assert same(case.assign(objects, pred, gt), expected)


@every_case
def test_arguments_are_unchanged(name):
    case, objects = CASES[name], scene()
    pred, gt, ignore = case.pred(objects), case.gt(objects), objects.ignore
    before = [copy.deepcopy(dict(instances.items())) for instances in (pred, gt, ignore)]
    case.assign(objects, pred, gt, ignore)
    for instances, fields in zip((pred, gt, ignore), before):
        assert dict(instances.items()).keys() == fields.keys()
        assert all(torch.equal(getattr(instances, field), value) for field, value in fields.items())


@every_case
def test_no_gradient_is_kept(name):
    case, objects = CASES[name], scene()
    pred = case.pred(objects)
    for field in case.fields:
        setattr(pred, field, getattr(pred, field).clone().requires_grad_())
    result = case.assign(objects, pred)
    assert result.max_overlaps is None or not result.max_overlaps.requires_grad


@every_case
def test_misspelt_arguments_raise(name):
    assigner = CASES[name].build()
    with pytest.raises(TypeError, match="gt_instances_ignored"):
        assigner.assign(gt_instances_ignored=None)
    with pytest.raises(TypeError, match="iou_treshold"):
        type(assigner)(**{"iou_treshold": 0.5})


@every_case
def test_twice_the_same(name):
    case, objects = CASES[name], scene()
    assert same(case.assign(objects), case.assign(objects))


@every_case_of_one_per_prior
def test_permuting_objects_permutes_the_result(name):
    case, objects = CASES[name], scene()
    if case.without_order is not None:
        case = replace(case, build=case.without_order)
    order = torch.randperm(len(objects.boxes), generator=torch.Generator().manual_seed(0))
    gt, pred = case.gt(objects), case.pred(objects)
    result, permuted = case.assign(objects, pred, gt), case.assign(objects, pred, gt[order])
    back = torch.cat([torch.tensor([-1, 0]), order + 1])[permuted.gt_inds + 1]
    assert torch.equal(result.gt_inds, back)


@every_case_of_one_per_prior
def test_permuting_priors_within_a_level_permutes_the_result(name):
    case, objects = CASES[name], scene()
    pred = case.pred(objects)
    g = torch.Generator().manual_seed(0)
    for field in case.boxes:  # off the grid, so that no two are equally near
        setattr(pred, field, getattr(pred, field) + torch.rand(len(pred), 4, generator=g))
    first = case.assign(objects, pred)
    sizes = [len(pred)]
    if case.levels:
        sizes = anchors(objects)[1]
    start, order = 0, []
    for size in sizes:
        order.append(start + torch.randperm(size, generator=g))
        start += size
    order = torch.cat(order)
    assert torch.equal(case.assign(objects, pred[order]).gt_inds, first.gt_inds[order])


@every_case_with_ignore_regions
@pytest.mark.parametrize("num_gts", [0, 12])
def test_ignore_regions_hold_with_and_without_objects(name, num_gts):
    case, objects = CASES[name], scene()
    pred, gt = case.pred(objects), case.gt(objects)[:num_gts]
    region = torch.tensor([[100.0, 60.0, 300.0, 220.0]])
    result = case.assign(objects, pred, gt, InstanceData(bboxes=region))
    x1, y1, x2, y2 = pred.priors.unbind(1)
    inside = (x1 >= 100) & (y1 >= 60) & (x2 <= 300) & (y2 <= 220)
    outside = (x1 >= 300) | (y1 >= 220) | (x2 <= 100) | (y2 <= 60)
    assert inside.sum() > 50
    assert (result.gt_inds[inside] == -1).all()
    without = case.assign(objects, pred, gt)
    assert torch.equal(result.gt_inds[outside] == -1, without.gt_inds[outside] == -1)


# --------------------------------------------------------------------------------- memory, and what a device would do


@pytest.fixture
def device_path(monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")


class Counted:
    """An assigner whose ``assign`` is counted."""

    def __init__(self, assigner):
        self.assigner = assigner
        self.counter = OperatorCounter()

    def assign(self, *args, **kwargs):
        with self.counter:
            return self.assigner.assign(*args, **kwargs)


def count(case, objects) -> OperatorCounter:
    counted = Counted(case.build())
    case.call(counted, case.pred(objects), case.gt(objects), objects.ignore, objects)
    return counted.counter


# What the method itself makes the host wait for: the pairs that scipy solves.
WAITS = {name: 1 for name in CASES if "Hungarian" in name or name.endswith("-matching")}


AIM = 80
"""Operators of one block on a device, ignore regions included."""
# Where there are more, so many and no more, since
MORE = {
    "MaxIoUAssigner": 95,  # overlaps are worked out three times, in some twenty operators: with ignore regions, for
    "MaxIoUAssigner-first-of-equals": 102,  # the best of each prior, and for low-quality matches
    "MaxIoUAssigner-in-box": 112,  # and the positives' own boxes are looked at
    "ApproxMaxIoUAssigner": 101,
    "AscendMaxIoUAssigner": 95,
    "AscendMaxIoUAssigner-list": 114,  # and images are padded
    "ATSSAssigner": 119,  # each of five levels has its own choice, and overlaps are there twice
    "ATSSAssigner-ddod": 105,
    "TaskAlignedAssigner": 100,  # conflicts, and what the scores should become
    "SimOTAAssigner": 196,  # two passes over the objects: for their numbers of positives, and for costs
    "DynamicSoftLabelAssigner": 172,
    "HungarianAssigner": 85,  # three costs, a distance by subtraction, and inverted boxes are never matched
    "TopkHungarianAssigner": 104,  # and the alignment behind them
    "GridAssigner": 108,  # overlaps three times: of all priors, and twice of the responsible ones
    "UniformAssigner": 150,  # overlaps three times: of predictions, of anchors, and of those that are near; far origins
    "RegionAssigner": 211,  # five levels one after another
    "CenterRegionAssigner": 120,  # two shares in regions, ignore regions, and shadows of two kinds
    "RankingAssigner": 138,  # the best of each prior, of each object, and conflicts
    "RankingAssigner-nwd": 204,  # and the distance takes twice the operators of the IoU
    "HierarchicalAssigner": 327,  # two passes, each as ranking is, by the divergence
    "POTOAssigner": 132,  # the IoU of the matches is worked out again
    "POTOAssigner-matching": 138,  # likewise
    "MaxIoUAssigner-nwd": 201,  # the distance and the IoU, three times
    "TaskAlignedAssigner-kld": 147,  # the divergence takes twice the operators of the IoU
    "SimOTAAssigner-simd": 276,  # likewise, twice
    "ATSSAssigner-kld": 165,  # likewise, pair by pair
    "ScheduledAssigner": 96,  # that of ATSS
    "ScheduledAssigner-later": 99,  # that of TaskAligned
    "TaskAlignedAssigner-one": 474,  # eight rounds in which objects without a positive take one, and so below
    "SimOTAAssigner-today": 550,
    "DynamicSoftLabelAssigner-selected": 524,
    "MaxIoUAssigner-covered": 424,
    "ATSSAssigner-covered": 491,
    "ScaleRangeAssigner-covered": 432,
    "GridAssigner-covered": 453,
    "UniformAssigner-covered": 494,
    "RegionAssigner-covered": 563,
    "CenterRegionAssigner-covered": 474,
    "PointAssigner-covered": 414,
}


@every_case
def test_on_a_device_operators_do_not_grow_and_nothing_waits(name, device_path, monkeypatch):
    monkeypatch.setattr(dropped, "_dropped", {})  # every so many calls what was taken out is added up
    most = 50 if name == "TopkHungarianAssigner" else 300  # of 60 queries each object gets one
    few, many = count(CASES[name], scene(7, "small")), count(CASES[name], scene(most, "small"))
    assert few.total == many.total
    assert few.waits.total() == many.waits.total() == WAITS.get(name, 0)
    # What is not finite is taken out by some more, see tests/reliability/test_on_nonfinite.py.
    monkeypatch.setattr(inputs.Inputs, "good_only", lambda self, names, values, kinds, to: values)
    assert count(CASES[name], scene(7, "small")).total <= MORE.get(name, AIM)


def test_bounds_of_operators_are_of_assigners_that_need_them():
    assert MORE.keys() <= CASES.keys()
    assert min(MORE.values()) > AIM


def every_result(name, count=40, kind="mixed") -> list[torch.Tensor]:
    case, objects = CASES[name], scene(count, kind)
    result = case.assign(objects, ignore=objects.ignore)
    tensors = [result.gt_inds, result.labels, result.max_overlaps, getattr(result, "assign_metrics", None)]
    extras = [value for key, value in result.info.items() if key not in ("num_gts", "num_preds")]
    return [tensor for tensor in [*tensors, *extras] if isinstance(tensor, torch.Tensor)]


@every_case
@pytest.mark.parametrize("kind", ["mixed", "small"])
def test_both_ways_give_equal_results(name, kind, monkeypatch):
    on_host = every_result(name, kind=kind)
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    for mine, other in zip(on_host, every_result(name, kind=kind), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.thinned
@every_case
@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
@pytest.mark.parametrize("budget", [1, 30_000, 1_000_000])
def test_blocks_of_any_size_give_the_same_result(name, way, budget, monkeypatch):
    expected = every_result(name)
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    set_memory_budget(budget)
    try:
        results = every_result(name)
    finally:
        set_memory_budget(None)
    for mine, other in zip(results, expected, strict=True):
        assert torch.equal(mine, other)


@every_case
@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
def test_batches_equal_the_loop(name, way, monkeypatch):
    """Images without objects and with many, with and without ignore regions."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    case, scenes = CASES[name], [scene(12), scene(30, seed=5), EMPTY, scene(3, seed=9)]
    preds, gts = [case.pred(objects) for objects in scenes], [case.gt(objects) for objects in scenes]
    ignores = [objects.ignore if index % 2 else None for index, objects in enumerate(scenes)]
    ignores = ignores if case.call is not as_cascade_rpn else [None] * len(scenes)  # it refuses them
    metas = [meta(objects) for objects in scenes]
    together = case.build().assign_batch(preds, gts, ignores, metas, **case.shared(scenes[0]))
    assert len(together) == len(scenes)
    for mine, *call in zip(together, scenes, preds, gts, ignores):
        assert same(mine, case.assign(*call))


@every_case
def test_batches_of_different_lengths_are_refused(name):
    case, objects = CASES[name], scene()
    with pytest.raises(ValueError, match="assign_batch got lists of different lengths"):
        case.build().assign_batch([case.pred(objects)] * 2, [case.gt(objects)])


@every_case
@pytest.mark.parametrize(("failures", "told"), [(1, f"in blocks of {DEFAULT_BUDGET // 2} bytes"), (40, "on the CPU")])
def test_a_full_gpu_means_smaller_blocks_and_then_the_cpu(name, failures, told, monkeypatch):
    """A device without memory is played by a reader of fields that raises what torch raises."""
    case, objects, original = CASES[name], scene(), inputs.Inputs.tensor
    expected = case.assign(objects)
    attempts, on_cpu = iter(range(failures)), []

    def read(*args, **kwargs):
        if not on_cpu and next(attempts, None) is not None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(*args, **kwargs)

    monkeypatch.setattr(calling, "to_device", lambda value, device: on_cpu.append(device) or value)
    monkeypatch.setattr(inputs.Inputs, "tensor", read)
    assigner = case.build()
    working = getattr(assigner, "current", assigner)
    with pytest.warns(UserWarning, match=f"{type(working).__name__}: the GPU ran out of memory; .*{told}"):
        result = case.call(assigner, case.pred(objects), case.gt(objects), None, objects)
    assert same(result, expected)
    assert bool(on_cpu) == (told == "on the CPU")


@every_case
def test_other_errors_are_not_taken_for_a_lack_of_memory(name, monkeypatch):
    def read(self, *args, **kwargs):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(inputs.Inputs, "tensor", read)
    with pytest.raises(RuntimeError, match="device-side"):
        CASES[name].assign(scene())
