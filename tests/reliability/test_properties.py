"""Properties that every assigner keeps on scenes drawn by hypothesis, ties and all.

`pytest --hypothesis-profile=slow` draws 10,000 of each instead of 50.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import visdet_assigners as va
from visdet_assigners.testing.oracle import fields_of, run_ours
from visdet_assigners.testing.parity import same
from visdet_assigners.testing.trials import TRIALS

EXAMPLES = settings().max_examples if settings().max_examples > 100 else settings().max_examples // 2
ONE_TO_ONE = {"HungarianAssigner", "MaskHungarianAssigner", "TopkHungarianAssigner"}
# Their results have a layout of their own, or are those of several images.
POINTS = ("SimOTAAssigner", "DynamicSoftLabelAssigner", "PointAssigner", "POTOAssigner")
LAID_OUT = {"MultiInstanceAssigner", "AscendMaxIoUAssigner"}
ONE_PER_PRIOR = [name for name in TRIALS if name not in LAID_OUT]


def check(strategy, law, *others):
    """Try a law on drawn trials."""

    @settings(max_examples=EXAMPLES)
    @given(st.tuples(strategy, *others))
    def try_one(drawn):
        law(*drawn)

    try_one()


def boxes_changed(trial, change, grow=lambda strides: strides):
    """The trial with all its boxes and points changed; strides of points may grow."""
    pred = dict(trial.pred)
    for name, value in pred.items():
        if name == "priors" and trial.name in POINTS:
            pred[name] = torch.cat([change(value[:, :2]), grow(value[:, 2:])], dim=1)
        elif name in ("priors", "bboxes", "decoder_priors", "approxs"):
            pred[name] = change(value)
    gt = {name: change(value) if name == "bboxes" else value for name, value in trial.gt.items()}
    ignore = None if trial.ignore is None else {**trial.ignore, "bboxes": change(trial.ignore["bboxes"])}
    return replace(trial, pred=pred, gt=gt, ignore=ignore)


def eighths(trial):
    """The trial with coordinates in eighths of a pixel, so that they can be moved and scaled without rounding."""
    return boxes_changed(trial, lambda boxes: (boxes.clamp(-4096, 4096) * 8).round() / 8)


def with_objects(trial, rows):
    """The trial with other rows of the ground truths: taken twice, left out, in another order."""
    return replace(trial, gt={name: value[rows] for name, value in trial.gt.items()})


def renumbered(result, rows):
    """What becomes of a result when object ``i`` is called ``rows[i]``."""
    number = torch.cat([torch.tensor([-1, 0]), torch.as_tensor(rows, dtype=torch.long) + 1])
    return {**result, "gt_inds": number[result["gt_inds"] + 1]}


# ------------------------------------------------------------------------------------------------- blocks, batches


@pytest.mark.parametrize("name", TRIALS)
def test_any_memory_budget_and_either_way(name):
    def law(trial, budget, on_device):
        expected = run_ours(trial, deterministic=True)
        va.set_memory_budget(budget)
        try:
            assert same(run_ours(trial, deterministic=True, on_device=on_device), expected)
        finally:
            va.set_memory_budget(None)

    check(TRIALS[name], law, st.sampled_from([1, 300, 5_000, 100_000]), st.booleans())


# ------------------------------------------------------------------------------------------------ moved and scaled

# What divides coordinates by sizes that are no powers of two rounds otherwise in another place.
SIZED = ("PointAssigner", "ScaleRangeAssigner")  # they compare boxes with pixels
ROUNDED = {"CenterRegionAssigner", "RegionAssigner", "HungarianAssigner", "TopkHungarianAssigner", "SimOTAAssigner"}
ROUNDED |= {"HierarchicalAssigner"}


@pytest.mark.parametrize("name", [name for name in ONE_PER_PRIOR if name not in ROUNDED])
def test_moving_everything_changes_nothing(name):
    def law(trial, x, y):
        trial = eighths(trial)
        move = torch.tensor([float(x), float(y)])
        moved = boxes_changed(trial, lambda boxes: boxes + (move if boxes.shape[-1] == 2 else move.repeat(2)))
        if "masks" in trial.gt:
            return
        assert same_but_boxes(run_ours(moved, True), run_ours(trial, True))

    check(TRIALS[name], law, st.sampled_from([64, -64, 1024]), st.sampled_from([0, 64, -2048]))


@pytest.mark.parametrize(
    "name",
    [name for name in ONE_PER_PRIOR if name not in (*SIZED, "HierarchicalAssigner")],  # which takes logarithms
)
def test_scaling_everything_changes_nothing(name):
    def law(trial, factor):
        assume("iou_calculator" not in trial.config)  # GLIP's counts pixels
        trial = eighths(trial)
        scaled = boxes_changed(trial, lambda boxes: boxes * factor, lambda strides: strides * factor)
        if "masks" in trial.gt and name == "DynamicSoftLabelAssigner":
            return
        scaled = replace(scaled, image=tuple(side * factor for side in trial.image))
        if name == "RegionAssigner":
            priors = trial.rest["priors"]
            strides = [stride * factor for stride in priors.strides]
            rest = {"priors": replace(priors, strides=strides), "border": trial.rest["border"] * factor}
            scaled = replace(scaled, rest=rest)
        assert same_but_boxes(run_ours(scaled, True), run_ours(trial, True))

    check(TRIALS[name], law, st.sampled_from([2, 4, 64]))


def same_but_boxes(mine, other):
    """Whether results are the same but for the boxes that Uniform hands on."""
    names = ("pos_predicted_boxes", "target_boxes")
    return same(*({key: value for key, value in each.items() if key not in names} for each in (mine, other)))


# ------------------------------------------------------------------------------------------------- order and copies


# What is taken twice goes to a third object that it is cheaper for; and two objects of a class shadow each other.
COPIES_COUNT = {"SimOTAAssigner", "DynamicSoftLabelAssigner", "CenterRegionAssigner"}
# The last pair decides whether an anchor is positive or ignored, and in Region the last object.
IN_ORDER = {"UniformAssigner", "RegionAssigner"}
# Every object gets its nearest, however near that is; Region cuts boxes to the feature map.
NEAREST = {
    "flat": {"UniformAssigner"},
    "far": {
        "HierarchicalAssigner",
        "UniformAssigner",
        "SimOTAAssigner",
        "DynamicSoftLabelAssigner",
        "PointAssigner",
        "RegionAssigner",
    },
}


@pytest.mark.parametrize("name", [name for name in ONE_PER_PRIOR if name not in ONE_TO_ONE | COPIES_COUNT])
def test_a_copy_behind_an_object_changes_nothing_else(name):
    def law(trial, which):
        count = len(trial.gt["labels"])
        assume(count)
        which %= count
        rows = [*range(which + 1), which, *range(which + 1, count)]
        mine = run_ours(with_objects(trial, rows), True)
        assert torch.equal(renumbered(mine, rows)["gt_inds"], run_ours(trial, True)["gt_inds"])

    check(TRIALS[name], law, st.integers(0, 8))


@pytest.mark.parametrize("name", [name for name in ONE_PER_PRIOR if name not in ONE_TO_ONE | IN_ORDER])
def test_the_order_of_objects_does_not_decide_what_is_positive(name):
    def law(trial, seed):
        count = len(trial.gt["labels"])
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        mine, other = run_ours(with_objects(trial, order), True), run_ours(trial, True)
        assert torch.equal(mine["gt_inds"].sign(), other["gt_inds"].sign())

    check(TRIALS[name], law, st.integers(0, 99))


# -------------------------------------------------------------------------------------------------------- inert boxes


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in NEAREST for name in ONE_PER_PRIOR if name not in ONE_TO_ONE | NEAREST[kind]],
)
def test_objects_of_no_area_or_far_away_disturb_nobody(kind, name):
    def law(trial, place, x, y):
        count = len(trial.gt["labels"])
        # Without objects everything is background, and from a threshold of 0 on the first object takes everything.
        assume(count and trial.config.get("pos_iou_thr") != 0)
        box = [x, y, x, y + 9.0] if kind == "flat" else [5e4 + x, 5e4 + y, 5e4 + 30.0 + x, 5e4 + 30.0 + y]
        place %= count + 1
        boxes, labels = trial.gt["bboxes"], trial.gt["labels"]
        gt = {
            "bboxes": torch.cat([boxes[:place], torch.tensor([box]), boxes[place:]]),
            "labels": torch.cat([labels[:place], labels.new_ones(1), labels[place:]]),
        }
        without = replace(trial, gt={name: trial.gt[name] for name in gt})
        rows = [row + (row >= place) for row in range(count)]
        expected = renumbered(run_ours(without, True), rows)
        assert torch.equal(run_ours(replace(trial, gt=gt), True)["gt_inds"], expected["gt_inds"])

    check(TRIALS[name], law, st.integers(0, 9), st.sampled_from([0.0, 4.0, 13.5]), st.sampled_from([0.0, 12.0, 7.25]))


# ------------------------------------------------------------------------------------------- order of priors, batches


def jittered(trial, seed):
    """The trial with every box a little larger and every score a little different, so that nothing is equal."""
    g = torch.Generator().manual_seed(seed)

    def grown(boxes):
        away = torch.tensor([-0.3, -0.3, 0.3, 0.3])[: boxes.shape[-1]]
        return boxes.clamp(-4096, 4096) + torch.rand(boxes.shape, generator=g) * away

    trial = boxes_changed(trial, grown)
    if "scores" in trial.pred:
        scores = trial.pred["scores"]
        noise = torch.rand(scores.shape, generator=g) * 0.01
        trial.pred["scores"] = scores * 0.9 + noise
    return trial


# SimOTA adds 1e5 to costs, which makes many of them equal; masks stay as they are; Region needs its grid of cells.
TIED = {"SimOTAAssigner", "DynamicSoftLabelAssigner", "RegionAssigner", "MaskHungarianAssigner", "HungarianAssigner"}


@pytest.mark.parametrize("name", [name for name in ONE_PER_PRIOR if name not in TIED])
def test_permuting_priors_within_a_level_permutes_the_result(name):
    def law(trial, seed):
        trial = jittered(trial, seed)
        g = torch.Generator().manual_seed(seed)
        count = len(next(iter(trial.pred.values())))
        order, start = [torch.zeros(0, dtype=torch.long)], 0
        for size in trial.rest.get("levels", [count]):
            order.append(start + torch.randperm(size, generator=g))
            start += size
        order = torch.cat(order)
        permuted = replace(trial, pred={field: value[order] for field, value in trial.pred.items()})
        assert torch.equal(run_ours(permuted)["gt_inds"], run_ours(trial)["gt_inds"][order])

    check(TRIALS[name], law, st.integers(0, 99))


@pytest.mark.parametrize("name", [name for name in TRIALS if name != "AscendMaxIoUAssigner"])
def test_batches_equal_the_loop(name, monkeypatch):
    def law(trial, other, on_device):
        fields = trial.gt.keys() & other.gt.keys()
        images = [trial, replace(trial, gt=other.gt)] if fields == trial.gt.keys() == other.gt.keys() else [trial]
        images.append(with_objects(trial, []))
        expected = [run_ours(image, on_device=on_device) for image in images]
        monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", str(int(on_device)))
        preds, gts, ignores = (list(part) for part in zip(*(image.instances for image in images)))
        metas = [{"img_shape": trial.image, "img_path": "scene.png"}] * len(images)
        torch.manual_seed(0)
        assigner = getattr(va, name)(**trial.config)
        results = assigner.assign_batch(preds, gts, ignores, metas, **shared(trial))
        for result, fields in zip(results, expected, strict=True):
            assert same(fields_of([result]), fields)

    check(TRIALS[name], law, TRIALS[name], st.booleans())


def shared(trial):
    """What ``assign_batch`` takes once for all images."""
    if trial.name == "RegionAssigner":
        priors = trial.rest["priors"]
        levels = dict(featmap_sizes=priors.featmap_sizes, num_level_anchors=priors.sizes, anchor_scale=priors.scale)
        return dict(levels, anchor_strides=priors.strides, allowed_border=trial.rest["border"])
    if trial.name == "TaskAlignedAssigner":
        return dict(zip(("alpha", "beta"), trial.rest["exponents"]))
    return {"num_level_priors": trial.rest["levels"]} if "levels" in trial.rest else {}


# ------------------------------------------------------------------------------------------------ the limits of floats


BOXES = ("bboxes", "priors", "decoder_priors")


@pytest.mark.parametrize("name", [name for name in ONE_PER_PRIOR if name != "MaskHungarianAssigner"])
def test_boxes_at_the_limits_of_floats_are_assigned_or_refused(name):
    def law(trial, value, field, seed):
        owner = trial.gt if field else trial.pred
        places = [key for key in BOXES if key in owner and len(owner[key]) and owner[key].shape[1] == 4]
        places = [key for key in places if key != "priors" or name not in POINTS[:2] + POINTS[3:]]
        assume(places)
        boxes = owner[places[0]].clone()
        row = seed % len(boxes)
        boxes[row, 2:] = value if value > 1 else boxes[row, 2:]
        boxes[row, :2] = -value if value > 1 else value
        boxes[row, 2:] = torch.maximum(boxes[row, 2:], boxes[row, :2])
        owner[places[0]] = boxes
        refused = ""
        try:
            result = run_ours(trial)
        except ValueError as error:
            refused = str(error)
        if refused:
            working = "ATSSAssigner" if name == "ScheduledAssigner" else name  # whose turn it is
            assert working in refused or "Cost" in refused
            return
        count = len(trial.gt["labels"])
        assert ((result["gt_inds"] >= -1) & (result["gt_inds"] <= count)).all()
        positive = result["gt_inds"] > 0
        labels = trial.gt["labels"].long()
        assert torch.equal(result["labels"][positive], labels[result["gt_inds"][positive] - 1])
        assert (result["labels"][~positive] == -1).all()
        assert not result.get("max_overlaps", torch.zeros(0)).isnan().any()

    limits = st.sampled_from([3.4e38, 1e30, 1e20, 1e10, 2.0**24, 1e-38, 1e-45])
    check(TRIALS[name], law, limits, st.booleans(), st.integers(0, 99))
