"""mmdet 2's call on tensors gives what the call on instances gives, and is told from it by type alone."""

import re
from types import SimpleNamespace

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment

import visdet_assigners as va
from assigners.cases import CASES, DINO, all_equal, anchors, scene, with_levels
from assigners.mmdet2 import FORMS, HEADS, IN_ITS_STYLE, MMDET2, hungarian, in_pixels
from visdet_assigners import dropped
from visdet_assigners.assigners import forms
from visdet_assigners.observe.tap import record_assignments
from visdet_assigners.registry import REGISTERED
from visdet_assigners.testing.measure import OperatorCounter

every_form = pytest.mark.parametrize("name", FORMS)
ALONE = {"AscendMaxIoUAssigner", "TopkHungarianAssigner", "DynamicSoftLabelAssigner"}
LABELS_NEEDED = ("TaskAligned", "SimOTA", "Hungarian", "ATSSAssigner-ddod")


def tensors_of(result) -> list[torch.Tensor]:
    found = [getattr(result, name, None) for name in ("assign_metrics", "norm_metrics")]
    found += [value for key, value in result.info.items() if key not in ("num_gts", "num_preds")]
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]


def given(name, objects, with_regions=True):
    """The predictions, the ground truths, the ignore regions, and the arguments of mmdet 2's call that say the same."""
    case = CASES[name]
    pred, gt = case.pred(objects), case.gt(objects)
    ignore = objects.ignore if with_regions and case.ignores else None
    return pred, gt, ignore, FORMS[name](pred, gt, None if ignore is None else ignore.bboxes, objects)


def by_position(call: dict) -> list:
    """The arguments in their order, without the last that are None."""
    values = list(call.values())
    while values[-1] is None:
        values.pop()
    return values


def test_every_class_of_mmdet2_has_its_call():
    with_call = {name for name, cls in REGISTERED.items() if issubclass(cls, va.BaseAssigner) and cls.mmdet2}
    assert with_call == {*MMDET2, *IN_ITS_STYLE, "AscendMaxIoUAssigner"}
    assert {name.split("-")[0] for name in CASES} == with_call | ALONE
    for name in FORMS:
        names = tuple(forms.places_of(type(CASES[name].build()).mmdet2))
        assert names == tuple(given(name, scene())[-1]), name


@every_form
@pytest.mark.parametrize("num_gts", [0, 12])
@pytest.mark.parametrize("with_regions", [True, False])
def test_equal_to_the_call_on_instances(name, num_gts, with_regions):
    objects = scene(num_gts)
    pred, gt, ignore, call = given(name, objects, with_regions)
    head = HEADS.get(name.split("-")[0], lambda own, _: own)
    expected = CASES[name].assign(objects, head(pred, objects), gt, ignore)
    before = [value.clone() for value in call.values() if isinstance(value, torch.Tensor)]
    assigner = CASES[name].build()
    for found in (assigner.assign(*by_position(call)), assigner.assign(**call)):
        assert found.num_gts == expected.num_gts == num_gts
        assert all_equal(tensors_of(found), tensors_of(expected))
    assert all_equal([value for value in call.values() if isinstance(value, torch.Tensor)], before)
    assert num_gts == 0 or (expected.gt_inds > 0).any()


@pytest.mark.parametrize("name", [name for name in FORMS if not name.startswith("MaskHungarian")])
def test_boxes_in_containers_are_tensors_too(name):
    objects = scene()
    _, _, _, call = given(name, objects)
    expected = CASES[name].build().assign(**call).gt_inds
    call["gt_bboxes"] = HorizontalBoxes(call["gt_bboxes"])
    first = next(iter(call))
    if "boxes" in first or "anchor" in first:
        levels = isinstance(call[first], list)
        call[first] = [HorizontalBoxes(one) for one in call[first]] if levels else HorizontalBoxes(call[first])
    assert torch.equal(CASES[name].build().assign(*by_position(call)).gt_inds, expected)


@every_form
def test_without_labels(name):
    """As in mmdet 2: which prior belongs to which object, no classes; where classes are needed they are asked for."""
    objects = scene()
    _, _, _, call = given(name, objects)
    expected = CASES[name].build().assign(**call)
    call["gt_labels"] = None
    if any(part in name for part in LABELS_NEEDED):
        with pytest.raises(va.AssignerInputError, match=r"Assigner: gt_labels must be a tensor, got nothing"):
            CASES[name].build().assign(**call)
        return
    found = CASES[name].build().assign(**call)
    assert found.labels is None
    assert found.get_extra_property("shadowed_labels") is None
    if name != "CenterRegionAssigner":  # whose positives may give way to others of their class
        assert torch.equal(found.gt_inds, expected.gt_inds)


def test_center_region_without_labels():
    """No object shadows another of its class where there are no classes: a plain loop."""
    objects = scene()
    priors = anchors(objects)[0]
    found = va.CenterRegionAssigner(0.3, 0.6).assign(priors, objects.boxes)
    center, middle = (priors[:, :2] + priors[:, 2:]) / 2, (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    half = (objects.boxes[:, 2:] - objects.boxes[:, :2]) / 2
    area = (4 * half[:, 0] * half[:, 1]).tolist()
    for prior in range(0, len(priors), 7):
        best = (float("inf"), 0)
        for gt in range(len(objects.boxes)):
            inside = ((center[prior] - middle[gt]).abs() < half[gt]).all()
            low = torch.maximum(priors[prior, :2], middle[gt] - 0.3 * half[gt])
            high = torch.minimum(priors[prior, 2:], middle[gt] + 0.3 * half[gt])
            share = (high - low).clamp(min=0).prod() / (priors[prior, 2:] - priors[prior, :2]).prod()
            if inside and share > 0.01:
                best = min(best, (area[gt], gt + 1))
        assert found.gt_inds[prior] == best[1]
    assert (found.gt_inds > 0).sum() > (CASES["CenterRegionAssigner"].assign(objects).gt_inds > 0).sum()


@pytest.mark.parametrize("with_objects", [True, False])
def test_hungarian_by_mmdet2s_formula(with_objects):
    """The box cost is the distance of the shares as they are predicted, the overlap that of boxes in pixels."""
    objects = scene(12 if with_objects else 0)
    pred, gt = CASES["HungarianAssigner"].pred(objects), CASES["HungarianAssigner"].gt(objects)
    call = hungarian(pred, gt, None, objects)
    found = va.HungarianAssigner(
        cls_cost=dict(type="FocalLossCost", weight=2.0),
        reg_cost=dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
        iou_cost=dict(type="IoUCost", iou_mode="giou", weight=2.0),
    ).assign(*by_position(call))
    height, width = objects.image
    p = call["cls_pred"].sigmoid()
    focal = -(p + 1e-12).log() * 0.25 * (1 - p) ** 2 + (1 - p + 1e-12).log() * 0.75 * p**2
    cost = torch.zeros(len(p), len(gt))
    for row, (cx, cy, w, h) in enumerate(call["bbox_pred"].double().tolist()):
        a = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        for column, b in enumerate(gt.bboxes.double().tolist()):
            wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            inter = max(wide, 0) * max(high, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
            hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
            true = (
                (b[0] + b[2]) / 2 / width,
                (b[1] + b[3]) / 2 / height,
                (b[2] - b[0]) / width,
                (b[3] - b[1]) / height,
            )
            distance = sum(abs(one - other) for one, other in zip((cx, cy, w, h), true))
            overlap = inter / union - (hull - union) / hull
            cost[row, column] = 2 * focal[row, gt.labels[column]] + 5 * distance - 2 * overlap
    expected = torch.zeros(len(p), dtype=torch.long)
    rows, columns = map(torch.from_numpy, linear_sum_assignment(cost))
    expected[rows] = columns + 1
    assert torch.equal(found.gt_inds, expected)


def count(call) -> OperatorCounter:
    with OperatorCounter() as counter:
        call()
    return counter


@every_form
def test_on_a_device_nothing_waits(name, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    monkeypatch.setattr(dropped, "_dropped", {})
    waits = []
    for most in (7, 50):
        pred, gt, ignore, call = given(name, scene(most, "small"))
        assigner = CASES[name].build()
        as_instances = count(lambda: CASES[name].call(assigner, pred, gt, ignore, scene(most, "small")))  # noqa: B023
        as_tensors = count(lambda: assigner.assign(*by_position(call)))  # noqa: B023
        assert as_tensors.total <= as_instances.total + 12  # boxes from shares, levels laid together
        waits.append((as_tensors.waits.total(), as_instances.waits.total()))
    assert waits == [waits[0]] * 2
    assert waits[0][0] == waits[0][1]


# ----------------------------------------------------------------------------------------------------------- errors


@every_form
def test_errors_name_the_arguments(name):
    for argument, value in given(name, scene())[-1].items():
        tensor = value[0] if isinstance(value, list) and isinstance(value[0], torch.Tensor) else value
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or argument == "gt_mask":
            continue
        call = given(name, scene())[-1]
        wrong = tensor.clone()
        wrong.view(-1)[2] = float("nan")
        call[argument] = [wrong, *value[1:]] if isinstance(value, list) else wrong
        with pytest.raises(va.AssignerInputError, match=rf"Assigner: .*\b{argument}.*nan") as error:
            CASES[name].build().assign(*by_position(call))
        assert "instances" not in str(error.value)
        assert "instances" not in error.value.field
        del call[argument]
        if argument in ("gt_bboxes_ignore", "cls_scores", "bbox_preds", "cls_pred"):
            continue
        with pytest.raises(va.AssignerInputError, match=rf"{argument} missing; mmdet 2's call is assign\("):
            CASES[name].build().assign(**call)


def test_what_is_wrong_with_a_call():
    priors, boxes, labels = anchors(scene())[0], scene().boxes, scene().labels
    assigner = va.MaxIoUAssigner(0.5, 0.4)
    for args, kwargs, told in (
        ((priors, boxes, None, labels, 3), {}, r"got 5 arguments; mmdet 2's call is assign\(bboxes, gt_bboxes, "),
        ((priors, boxes), {"bboxes": priors}, "got bboxes by place and by name"),
        ((priors, boxes), {"gt_lables": labels}, "did you mean gt_labels"),
        ((priors, InstanceData(bboxes=boxes, labels=labels)), {}, "gt_bboxes must be a tensor, got InstanceData"),
        ((priors, boxes, None, labels[1:]), {}, r"the call has 12 gt_bboxes and 11 gt_labels"),
        ((priors, torch.tensor(1.0)), {}, r"gt_bboxes must have shape \(n, 4\), got \(\)"),
        ((priors, boxes[:, :3]), {}, r"gt_bboxes must have shape \(n, 4\), got \(12, 3\)"),
        (
            (priors, boxes, None, labels),
            {"img_meta": {"img_path": "a.jpg"}, "gt_labels": labels},
            "by place and by name",
        ),
    ):
        with pytest.raises(va.AssignerInputError, match=f"^MaxIoUAssigner: .*{told}"):
            assigner.assign(*args, **kwargs)
    wrong = boxes.clone()
    wrong[1, 2] = float("nan")
    with pytest.raises(va.AssignerInputError, match=r"gt_bboxes\[1, 2\] is nan.*\(image a.jpg\)"):
        assigner.assign(priors, wrong, None, labels, img_meta={"img_path": "a.jpg"})
    with pytest.raises(va.AssignerInputError, match=r"12 gt_bboxes and 11 gt_labels \(image labels/a.jpg\)"):
        assigner.assign(priors, boxes, None, labels[1:], img_meta={"img_path": "labels/a.jpg"})
    with pytest.raises(
        va.AssignerInputError, match=r"^DynamicSoftLabelAssigner: got tensors; mmdet 2 had no such class"
    ):
        va.DynamicSoftLabelAssigner().assign(priors, boxes, None, labels)
    with pytest.raises(va.AssignerInputError, match=r"mlvl_anchors and mlvl_valid_flags must be lists"):
        va.RegionAssigner().assign(priors, priors[:, 0] > 0, boxes, {"img_shape": (9, 9)}, [], 8, [8])
    with pytest.raises(va.AssignerInputError, match=re.escape("approxs must have shape (squares * 7, 4)")):
        va.ApproxMaxIoUAssigner(0.5, 0.4).assign(priors[:8], priors[:2], 7, boxes)
    with pytest.raises(va.AssignerInputError, match=r"gt_bboxes_ignore must be None.*\(image b.jpg\)"):
        va.HungarianAssigner().assign(priors, priors, boxes, labels, {"img_path": "b.jpg"}, boxes)


# --------------------------------------------------------------------------------------------------- heads and the tap


@pytest.mark.parametrize("name", ["MaxIoUAssigner", "CenterRegionAssigner", "MultiInstanceAssigner"])
def test_level_sizes_second_in_a_call_on_tensors(name):
    """As visdet's ATSSHead and GFLHead call whatever assigner they hold."""
    _, _, _, call = given(name, scene())
    first, *rest = by_position(call)
    expected = CASES[name].build().assign(first, *rest)
    found = CASES[name].build().assign(first, [len(first)], *rest)
    assert all_equal(tensors_of(found), tensors_of(expected))


class Head(torch.nn.Module):
    def __init__(self, assigner):
        super().__init__()
        self.assigner = assigner


@every_form
def test_the_tap_sees_the_same_record(name):
    objects = scene()
    pred, gt, ignore, call = given(name, objects)
    head = Head(CASES[name].build())
    adapted = HEADS.get(name.split("-")[0], lambda own, _: own)(pred, objects)
    with record_assignments(head) as expected:
        CASES[name].call(head.assigner, adapted, gt, ignore, objects)
    with record_assignments(head) as found:
        head.assigner.assign(*by_position(call))
    (one,), (other,) = found, expected
    compared = ("gt_index", "gt_boxes", "gt_labels", "ignored_boxes", "priors", "pred_boxes", "quality")
    there = [field for field in compared if getattr(one, field) is not None]
    assert {"gt_index", "gt_labels"} <= set(there)
    assert ("priors" in there) == (other.priors is not None)
    assert all_equal([getattr(one, field) for field in there], [getattr(other, field) for field in there])
    assert one.level_sizes == other.level_sizes


def test_instances_may_be_anything_with_attributes():
    """What has tensors as attributes is no tensor."""
    objects = scene()
    plain = SimpleNamespace(priors=anchors(objects)[0])
    gt = SimpleNamespace(bboxes=objects.boxes, labels=objects.labels)
    expected = CASES["ATSSAssigner"].assign(objects).gt_inds
    assert torch.equal(va.ATSSAssigner(9).assign(plain, anchors(objects)[1], gt).gt_inds, expected)
    assert CASES["ATSSAssigner"].call is with_levels
    made = in_pixels(CASES["HungarianAssigner"].pred(objects), objects)
    assert torch.equal(
        va.HungarianAssigner(DINO).assign(made, gt, {"img_shape": objects.image}).gt_inds,
        CASES["HungarianAssigner"].assign(objects, made).gt_inds,
    )
