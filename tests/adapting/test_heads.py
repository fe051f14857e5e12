"""Every assigner in every head by ``type=`` alone: the page says what is found, and so do the errors."""

import importlib
import itertools
import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from adapting.adapted import LEVELS, SETTINGS, STOCK, build_head, head_config, losses_of, samples, settings_for
from adapting.heads_page import FED, INSIDE, NO, OWN, PAGE, cell, leaves_out, page
from visdet_assigners import BaseAssigner
from visdet_assigners.adapting import fed_by
from visdet_assigners.adapting.shadowing import listen
from visdet_assigners.functional.boxes import box_overlaps
from visdet_assigners.observe import watch
from visdet_assigners.registry import REGISTERED
from visdet_assigners.registry import build as build_assigner

ROWS = dict(re.findall(r"^\| (\w+) \|(.+)\|$", PAGE.read_text(), re.MULTILINE)) if PAGE.exists() else {}
PRIORS_ALONE = (
    "MaxIoUAssigner", "ATSSAssigner", "UniformAssigner", "CenterRegionAssigner", "PointAssigner", "RegionAssigner",
    "ScaleRangeAssigner",
)  # fmt: skip


ONE_HEAD = ("ApproxMaxIoUAssigner", "GridAssigner")


def on_page(assigner, head):
    return ROWS[assigner.removesuffix("Assigner")].split("|")[list(STOCK).index(head)].strip()


def test_every_assigner_is_tried():
    assigners = {name for name, cls in REGISTERED.items() if issubclass(cls, BaseAssigner)}
    assert assigners == set(SETTINGS)


@pytest.mark.parametrize("head", ["RPN", "RetinaNet", "SSD", "ATSS", "GFL", "FSAF", "FCOS"])
@pytest.mark.parametrize("name", PRIORS_ALONE)
def test_assigners_of_priors_work_in_heads_of_anchors(name, head):
    found, _ = cell(name, head)
    assert found in (OWN, FED, INSIDE)
    assert found == on_page(name, head)


@pytest.mark.parametrize("head", STOCK)
def test_a_head_trains_with_an_assigner_that_it_was_not_written_for(head):
    name = "ATSSAssigner" if STOCK[head][1] != "ATSSAssigner" else "CenterRegionAssigner"
    model = build_head(head, settings_for(name, head))
    sum(value for key, value in losses_of(model, head).items() if "loss" in key).backward()
    grads = [one.grad for one in model.parameters() if one.grad is not None]
    assert grads
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_the_page_is_the_text_and_the_cells_that_it_has():
    cells = {(assigner, head): on_page(assigner, head) for assigner in SETTINGS for head in STOCK}
    regions = {head: answer == "yes" for answer, names in _regions() for head in names.split(", ")}
    assert PAGE.read_text() == page(cells, regions)


@pytest.mark.slow
def test_the_page_says_what_is_found():
    cells, errors = {}, {}
    for head in STOCK:
        for assigner in SETTINGS:
            cells[assigner, head], errors[assigner, head] = cell(assigner, head)
    regions = {head: leaves_out(head) for head in STOCK}
    assert PAGE.read_text() == page(cells, regions), "PYTHONPATH=tests python -m adapting.heads_page writes it"
    for (assigner, head), found in cells.items():
        named = head in re.split(r"[,; ]+", REGISTERED[assigner].heads)
        fed = assigner in fed_by(build_head(head, settings_for(STOCK[head][1], head)))
        assert fed == (found in (OWN, FED, INSIDE)) or (assigner in ONE_HEAD and found == OWN), (assigner, head)
        assert named == (found != NO) or assigner in ONE_HEAD, (assigner, head)


@pytest.mark.parametrize("head", ["RPN", "RTMDet", "YOLOv3", "TOOD", "YOLOX", "VFNet"])
def test_covered_background_has_no_gradient_where_the_page_says_so(head):
    answers = [answer for answer, names in _regions() if head in names.split(", ")]
    assert answers == ["yes" if leaves_out(head) else "no"]


def _regions():
    rows = re.findall(r"^\| ([\w, ]+) \| (yes|no) \|$", PAGE.read_text(), re.MULTILINE)
    return [(answer, names) for names, answer in rows]


@pytest.mark.parametrize("head", ["RPN", "RetinaNet", "SSD", "SABL", "RepPoints", "YOLOF", "RTMDet", "YOLOX"])
def test_level_sizes_are_those_of_the_priors_that_the_head_passed(head):
    """Of each image, less those that it leaves out: priors of a level share their size, where that tells levels."""
    model = build_head(head, settings_for("ATSSAssigner", head))
    calls = []
    with watch(model, calls.append):
        losses_of(model, head)
    calls = [call for call in calls if call.attribute != "refine_assigner"]
    assert len(calls) >= 2
    for call in calls:
        sizes, priors = call.arguments["num_level_priors"], call.arguments["pred_instances"].priors
        assert sum(sizes) == len(priors)
        assert len(sizes) == LEVELS.get(head, 5)
        areas = [(own[:, 2:] - own[:, :2]).prod(dim=1) for own in priors.split(sizes) if len(own)]
        for finer, coarser in itertools.pairwise(areas):
            assert finer.amax() < coarser.amax()
            assert finer.amax() < 1.01 * coarser.amin() or head == "SSD"  # whose levels overlap
    if head not in ("YOLOX",):  # which assigns in the padding, too
        assert sum(calls[1].arguments["num_level_priors"]) < sum(calls[0].arguments["num_level_priors"])


def test_anchors_inside_the_image_alone():
    """``allowed_border=0`` leaves out anchors of each level by a count that differs from image to image."""
    config = head_config("RPN", settings_for("ATSSAssigner", "RPN"))
    config.train_cfg.allowed_border = 0
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config)
    calls = []
    with watch(model, calls.append):
        losses_of(model, "RPN")
    sizes = [call.arguments["num_level_priors"] for call in calls]
    assert sizes[0] != sizes[1]
    for call, own in zip(calls, sizes):
        priors = call.arguments["pred_instances"].priors
        for stride, level in zip((4, 8, 16, 32, 64), priors.split(own)):
            area = (level[:, 2:] - level[:, :2]).prod(dim=1)
            assert torch.allclose(area, torch.full_like(area, (8.0 * stride) ** 2), rtol=1e-3)


def test_priors_of_unknown_levels_are_refused():
    """A head whose own rule leaves others out than the anchors say: no size of a level is guessed."""
    model = build_head("RetinaNet", settings_for("ATSSAssigner", "RetinaNet"))
    original = model._get_targets_single

    def other(anchors, valid, *args, **kwargs):
        valid = valid.clone()
        valid[7] = False
        return original(anchors, valid, *args, **kwargs)

    model._get_targets_single = other
    with pytest.raises(TypeError, match=r"RetinaHead: ATSSAssigner .* can't be told; heads that can feed it: RPN"):
        losses_of(model, "RetinaNet")


def test_a_batch_that_is_not_the_heads_is_refused():
    model = build_head("RPN", settings_for("HungarianAssigner", "RPN"))
    batch = samples("RPN")
    original = model._get_targets_single

    def copied(anchors, valid, gt_instances, *args, **kwargs):
        return original(anchors, valid, gt_instances.clone(), *args, **kwargs)

    model._get_targets_single = copied
    with pytest.raises(TypeError, match="none of the batch's"):
        losses_of(model, "RPN", batch)


@pytest.mark.parametrize("head", ["RTMDet", "YOLOX", "TOOD"])
def test_scores_are_trained_to_the_overlap_of_predicted_boxes(head):
    model = build_head(head, settings_for("PointAssigner", head))
    calls = []
    with listen(model.sampler, "sample", lambda _, *args: calls.append(args)):
        losses_of(model, head)
    result, predicted, truths = calls[0]
    positive = result.gt_inds > 0
    own = truths.bboxes[result.gt_inds[positive] - 1]
    expected = box_overlaps(predicted.bboxes[positive].detach(), own, aligned=True)
    assert positive.any()
    assert torch.equal(result.max_overlaps[positive], expected)
    assert (result.max_overlaps[~positive] == 0).all()
    if head == "TOOD":
        score = predicted.scores[positive, truths.labels[result.gt_inds[positive] - 1]].detach()
        assert torch.allclose(result.assign_metrics[positive], score**model.alpha * expected**model.beta)


@pytest.mark.parametrize("head", [head for head in STOCK if head != "FCOS"])  # whose head is our own
def test_the_heads_own_assigner_is_called_as_the_head_calls_it(head):
    """Nothing is added to a call that is complete, so stock detectors decide as before."""
    name = STOCK[head][1]
    model = build_head(head, settings_for(name, head))
    if head == "RepPoints":
        model = build_head(head, settings_for("MaxIoUAssigner", head), stage="refine")
    calls = []
    with watch(model, calls.append):
        losses_of(model, head)
    fields = {"YOLOX": "bboxes priors scores", "RTMDet": "bboxes priors scores", "TOOD": "bboxes priors scores",
              "DDOD": "bboxes priors scores", "YOLOF": "decoder_priors priors", "YOLOv3": "priors responsible_flags",
              "SABL": "approxs priors"}  # fmt: skip
    for call in calls:
        assert sorted(call.arguments["pred_instances"].keys()) == fields.get(head, "priors").split()


def test_what_a_head_feeds_is_what_the_page_says():
    for head in ("RetinaNet", "SABL", "RPN", "YOLOX"):
        fed = fed_by(build_head(head, settings_for(STOCK[head][1], head)))
        assert {name for name in SETTINGS if on_page(name, head) in (FED, INSIDE)} <= fed
        assert not {name for name in SETTINGS if on_page(name, head) == NO} & fed


@pytest.mark.parametrize("name", ["RegionAssigner", "TopkHungarianAssigner", "SimOTAAssigner", "ATSSAssigner"])
def test_callers_that_are_no_dense_heads_are_told_which_are(name):
    """As RoI heads call: proposals and objects, nothing else."""
    assigner = build_assigner(settings_for(name, "RPN"))
    proposals = InstanceData(priors=torch.tensor([[0.0, 0.0, 8.0, 8.0]]))
    truths = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 8.0, 9.0]]), labels=torch.tensor([0]))
    with pytest.raises((TypeError, ValueError), match=rf"{name}: .*heads that can feed it: .*RPN, RetinaNet, SSD"):
        assigner.assign(proposals, truths, None)


@pytest.fixture
def drop_in():
    dropin = importlib.import_module("visdet_assigners.dropin")
    dropin.enable()
    yield
    dropin.restore()


def test_reppoints_passes_points_or_boxes_by_the_name_in_its_config(drop_in):
    """mmdet's name makes it pass points, of four columns as boxes have; the prefix, boxes around them."""
    settings = settings_for("PointAssigner", "RepPoints")
    plain, prefixed = (
        build_head("RepPoints", {**settings, "type": kind}) for kind in ("PointAssigner", settings["type"])
    )
    calls = []
    with watch(plain, calls.append):
        losses = losses_of(plain, "RepPoints")
    assert torch.equal(calls[0].arguments["pred_instances"].priors[:2], torch.tensor([[0.0, 0, 8, 8], [8, 0, 8, 8]]))
    others = losses_of(prefixed, "RepPoints")
    assert all(torch.equal(losses[name], others[name]) for name in losses)


def test_points_of_a_head_that_is_not_known_to_have_them_are_not_taken_for_boxes():
    model = build_head("RepPoints", settings_for("PointAssigner", "RepPoints"))
    model.centers_to_bboxes = lambda points: points
    with pytest.raises(TypeError, match="is given points by a head that is not known"):
        losses_of(model, "RepPoints", samples("RepPoints", padded=False))
