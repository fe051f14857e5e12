"""Half precision, and autocast, give the assignment of the same numbers in float32, on every device that is there."""

import pytest
import torch

from reliability.judges import compare
from reliability.subjects import COSTS, SUBJECTS
from visdet_assigners.assigners.calling import to_device

EVERYONE = pytest.mark.parametrize("subject", SUBJECTS + COSTS, ids=lambda subject: subject.code)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
on_every_device = pytest.mark.parametrize("device", DEVICES)
HALVES = [torch.float16, torch.bfloat16]


def scene_of(subject, device, *dtypes, autocast=None):
    """The clean scene on a device, its numbers through these types."""
    scene = subject.scene()
    for side in ("pred", "gt"):
        fields = getattr(scene, side)
        for name, value in fields.items():
            for dtype in dtypes if value.is_floating_point() else ():
                value = value.to(dtype)
            fields[name] = value.to(device)
    if autocast is not None:
        scene.context = lambda: torch.autocast(device, autocast)
    return scene


@EVERYONE
@on_every_device
@pytest.mark.parametrize("dtype", HALVES)
def test_half_inputs_equal_the_same_numbers_in_float32(subject, device, dtype):
    widened = scene_of(subject, device, dtype, torch.float32)
    for way in (subject.assign, subject.assign_batch):
        half = way(scene_of(subject, device, dtype))
        assert compare(subject, to_device(half, "cpu"), to_device(way(widened), "cpu")) == ""
        assert half.max_overlaps is None or half.max_overlaps.dtype == torch.float32


@EVERYONE
@on_every_device
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_changes_nothing(subject, device, dtype):
    clean, under = (subject.assign(scene_of(subject, device, autocast=each)) for each in (None, dtype))
    assert compare(subject, to_device(under, "cpu"), to_device(clean, "cpu")) == ""


@on_every_device
@pytest.mark.parametrize("subject", COSTS, ids=lambda subject: subject.code)
@pytest.mark.parametrize("dtype", HALVES)
def test_costs_by_themselves_are_those_of_float32(subject, device, dtype):
    (cost,) = subject.build().match_costs

    def under(scene):
        with scene.context():
            return cost(*(to_device(InstancesOf(fields), device) for fields in (scene.pred, scene.gt)), scene.meta)

    expected = under(scene_of(subject, device, dtype, torch.float32))
    assert expected.dtype == torch.float32
    assert torch.equal(under(scene_of(subject, device, dtype)), expected)
    assert torch.equal(under(scene_of(subject, device, dtype, autocast=dtype)), expected)


class InstancesOf:
    def __init__(self, fields):
        vars(self).update(fields)


@on_every_device
@pytest.mark.parametrize("code", ["HU", "TH", "FL", "CC", "FM", "CE", "DC", "BF", "MH", "DS"])
@pytest.mark.parametrize("logit", [8.0, 9.0, 12.0, 20.0, 90.0, 60_000.0])
def test_certain_logits_have_a_finite_cost_in_float16(code, logit, device):
    """From 9 on the sigmoid is 1 in float16, and log(1 - 1 + 1e-12) infinite."""
    subject = next(each for each in SUBJECTS + COSTS if each.code == code)
    name = subject.scores or subject.boxes
    half = scene_of(subject, device, torch.float16)
    half.pred[name].view(-1)[::7] = logit
    wide = half.copy()
    wide.pred = {key: value.float() if value.is_floating_point() else value for key, value in half.pred.items()}
    results = [to_device(subject.assign(scene), "cpu") for scene in (half, wide)]
    assert compare(subject, *results) == ""
    assert (results[0].gt_inds > 0).any()
