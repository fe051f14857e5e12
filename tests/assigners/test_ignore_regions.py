"""One law for ignore regions, over all dense assigners: covered background is ignored, and nothing else changes.

Methods that define regions themselves follow their own rule, mmdet's: MaxIoU and ATSS in test_against_mmdet.py and
test_contract.py, MultiInstance in test_multi_instance.py.  CenterRegion has its own and the law's.
"""

import functools

import pytest
import torch
from mmengine.structures import InstanceData

from assigners.cases import CASES, as_cascade_rpn, scene
from scenes import STRIDES, anchors, feature_sizes
from visdet_assigners import AscendMaxIoUAssigner, dropped
from visdet_assigners.assigners import compiling
from visdet_assigners.assigners.dense import DenseAssigner
from visdet_assigners.testing.feeds import meta
from visdet_assigners.testing.measure import OperatorCounter

THRESHOLD = 0.5
# On no grid, so that no share is the threshold but for rounding; the last has no area.
REGIONS = torch.tensor([[100.3, 60.7, 260.9, 190.1], [20.4, 150.2, 90.7, 215.3], [30.0, 20.0, 30.0, 90.0]])
DENSE = [name for name in CASES if isinstance(CASES[name].build(), DenseAssigner)]
# What `min_positives` adds depends on the regions: a prior in one isn't given to an object, see test_covering.py.
BY_LAW = [
    name for name in DENSE if not (type(CASES[name].build()).handles_regions or CASES[name].build().min_positives)
]
OWN_RULE = {"MaxIoUAssigner", "ApproxMaxIoUAssigner", "AscendMaxIoUAssigner", "ATSSAssigner", "MultiInstanceAssigner"}
WAITS = {"POTOAssigner-matching": 1}  # its matching is the host's
every_way = pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
by_law = pytest.mark.parametrize("name", BY_LAW)


def run(name, count=12, regions=REGIONS, threshold=THRESHOLD, **settings):
    """The result and the predictions of a scene with that many objects."""
    case, objects = CASES[name], scene()
    assigner = case.build()
    assigner.ignore_iof_thr = threshold
    for setting, value in settings.items():
        setattr(assigner, setting, value)
    pred, ignore = case.pred(objects), None if regions is None else InstanceData(bboxes=regions)
    gt = case.gt(objects)[:count]
    if case.call is as_cascade_rpn:
        sizes = feature_sizes(objects.image, STRIDES), anchors(objects)[1], 8, STRIDES
        return assigner.assign(pred, gt, meta(objects), *sizes, gt_instances_ignore=ignore), pred
    return case.call(assigner, pred, gt, ignore, objects), pred


def extras_of(result):
    """What a result holds beside the objects of priors and their classes."""
    found = {"max_overlaps": result.max_overlaps}
    found |= {key: value for key, value in vars(result).items() if key.endswith("metrics")}
    found |= {key: value for key, value in result.info.items() if key not in ("gt_inds", "labels")}
    return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}


def covered_by_loop(name, pred):
    """Of which priors a single region covers more than the threshold: the rule in plain numbers."""
    found, regions, threshold = [], REGIONS, THRESHOLD
    are_points = CASES[name].build().fields_of(pred)["priors"] in ("points", "strided")
    for prior in pred.priors.double().tolist():
        if are_points:
            x, y, width, height = prior[0], prior[1], prior[2], prior[-1]
            prior = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        x1, y1, x2, y2 = prior
        shares = [0.0]
        for left, top, right, bottom in regions.double().tolist():
            common = max(min(x2, right) - max(x1, left), 0) * max(min(y2, bottom) - max(y1, top), 0)
            shares.append(common / max((x2 - x1) * (y2 - y1), 1e-6))
        found.append(max(shares) > threshold)
    return torch.tensor(found)


def expected_of(name, before):
    """What the law says, from the result without the option, and the predictions."""
    without, pred = before
    ignored = (without.gt_inds == 0) & covered_by_loop(name, pred)
    return without.gt_inds.masked_fill(ignored, -1)


def without_option(name, count):
    """The result with the option off; Region refuses regions then, so it is asked without."""
    regions = None if CASES[name].call is as_cascade_rpn else REGIONS
    return run(name, count, regions, threshold=-1)


def test_the_law_is_tried_on_every_dense_assigner_without_a_rule_of_its_own():
    kinds = {name.split("-")[0] for name in BY_LAW}
    assert {name.split("-")[0] for name in DENSE} == kinds | OWN_RULE
    assert kinds >= {
        "TaskAlignedAssigner", "SimOTAAssigner", "DynamicSoftLabelAssigner", "GridAssigner", "UniformAssigner",
        "PointAssigner", "RegionAssigner", "ScaleRangeAssigner", "CenterRegionAssigner",
    }  # fmt: skip


@by_law
@every_way
@pytest.mark.parametrize("count", [0, 1, 12])
def test_covered_background_is_ignored_and_nothing_else_changes(name, way, count, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    without, _ = before = without_option(name, count)
    result, _ = run(name, count)
    expected = expected_of(name, before)
    assert (expected != without.gt_inds).sum() > 3
    assert torch.equal(result.gt_inds, expected)
    assert torch.equal(result.labels, without.labels)
    mine, others = extras_of(result), extras_of(without)
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[key], others[key]) for key in mine)


@by_law
@pytest.mark.parametrize("regions", [None, REGIONS[:0], REGIONS + 5000], ids=["none", "empty", "elsewhere"])
def test_without_regions_the_option_changes_nothing(name, regions):
    assert torch.equal(run(name, regions=regions)[0].gt_inds, run(name, regions=None, threshold=-1)[0].gt_inds)


@by_law
def test_off_regions_change_nothing(name):
    if CASES[name].call is as_cascade_rpn:
        with pytest.raises(ValueError, match="set ignore_iof_thr to leave what lies in them out"):
            run(name, threshold=-1)
    elif name != "CenterRegionAssigner":  # whose own rule is always on
        with_regions, _ = run(name, threshold=-1)
        assert torch.equal(with_regions.gt_inds, run(name, regions=None, threshold=-1)[0].gt_inds)


@by_law
@every_way
def test_batches_with_regions_equal_the_loop(name, way, monkeypatch):
    """In images with and without objects, all, some and none of them with regions."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    case, objects = CASES[name], scene()
    assigner = case.build()
    assigner.ignore_iof_thr = THRESHOLD
    counts, boxes = (12, 0, 5, 12), (REGIONS, REGIONS[:1], None, REGIONS[1:])
    gts = [case.gt(objects)[:count] for count in counts]
    ignores = [None if own is None else InstanceData(bboxes=own) for own in boxes]
    preds = [case.pred(objects)] * len(gts)
    together = assigner.assign_batch(preds, gts, ignores, [meta(objects)] * len(gts), **case.shared(objects))
    assert any((result.gt_inds == -1).any() for result in together)
    for mine, count, own in zip(together, counts, boxes, strict=True):
        assert torch.equal(mine.gt_inds, run(name, count, own)[0].gt_inds)


@by_law
@every_way
def test_the_law_holds_with_ties_by_index(name, way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    regions = None if CASES[name].call is as_cascade_rpn else REGIONS
    before = run(name, regions=regions, threshold=-1, deterministic=True)
    assert torch.equal(run(name, deterministic=True)[0].gt_inds, expected_of(name, before))


COMPILED = [name for name in BY_LAW if name != "CenterRegionAssigner"]  # which isn't


@pytest.mark.parametrize(
    "name", [COMPILED[0], *(pytest.param(n, marks=pytest.mark.slow) for n in COMPILED[1:] if n not in WAITS)]
)
def test_the_law_holds_compiled(name, monkeypatch):
    """Dynamo traces with the backend "eager", so that nothing has to be compiled."""
    traced = []
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=lambda g, _: traced.append(g) or g))
    compiling.compiled.cache_clear()
    torch._dynamo.reset()
    try:
        assert torch.equal(run(name, compile=True)[0].gt_inds, run(name)[0].gt_inds)
    finally:
        compiling.compiled.cache_clear()
    assert traced


@by_law
def test_regions_take_no_wait_on_a_device(name, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    monkeypatch.setattr(dropped, "_dropped", {})
    counters = [OperatorCounter(), OperatorCounter()]
    for counter, threshold in zip(counters, (-1, THRESHOLD)):
        with counter:
            run(name, regions=None if threshold < 0 else REGIONS, threshold=threshold)
    without, with_regions = (counter.waits.total() for counter in counters)
    assert with_regions == without == WAITS.get(name, 0)


@by_law
def test_gradients_pass_as_before(name):
    """Of what YOLOF's loss reads; the option touches the objects of priors alone."""
    result, _ = run(name)
    without, _ = without_option(name, 12)
    for key, value in extras_of(result).items():
        assert value.requires_grad == extras_of(without)[key].requires_grad


@pytest.mark.parametrize("name", sorted(OWN_RULE - {"MultiInstanceAssigner", "MaxIoUAssigner-in-box"}))
def test_methods_with_a_rule_of_their_own_ignore_covered_background_too(name):
    """Background that is covered is ignored; what is not covered stays background or positive.

    Under ``ignore_outside_gt`` it need not: where an object's best prior is covered, the next one may lie outside.
    """
    result, pred = run(name)
    covered = covered_by_loop(name, pred)
    assert covered.any()
    assert not (result.gt_inds[covered] == 0).any()
    without, _ = run(name, threshold=-1)
    ignored_anyway = without.gt_inds == -1
    assert not ((result.gt_inds == -1) & ~covered & ~ignored_anyway).any()


@every_way
def test_a_padded_batch_with_regions_is_each_image_alone(way, monkeypatch):
    """AscendMaxIoU's own call: images with and without objects, some with fewer regions than others."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    case, objects = CASES["AscendMaxIoUAssigner"], scene()
    assigner: AscendMaxIoUAssigner = case.build()
    pred, gt = case.pred(objects), case.gt(objects)
    counts, boxes = (12, 0, 5), (REGIONS, REGIONS[:1], REGIONS[:0])
    gts, labels, regions = torch.zeros(3, 12, 4), torch.zeros(3, 12, dtype=torch.long), torch.zeros(3, 3, 4)
    for image, (count, own) in enumerate(zip(counts, boxes)):
        gts[image, :count], labels[image, :count] = gt.bboxes[:count], gt.labels[:count]
        regions[image, : len(own)] = own
    result = assigner.assign(pred.priors.expand(3, -1, -1), gts, regions, labels)
    for image, (count, own) in enumerate(zip(counts, boxes)):
        alone, _ = run("AscendMaxIoUAssigner", count, own)
        assert torch.equal(result.batch_pos_mask[image].bool(), alone.gt_inds > 0)
        assert torch.equal(result.batch_neg_mask[image].bool(), alone.gt_inds == 0)
    assert (result.batch_neg_mask + result.batch_pos_mask == 0).any()
