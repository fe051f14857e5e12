"""What is not finite raises or is left out: who decides, what it costs, and that nobody else notices."""

import warnings

import pytest
import torch

import visdet_assigners as va
from reliability.faults import FAULTS, REPLACED
from reliability.judges import pairs
from reliability.subjects import SUBJECTS, instances
from visdet_assigners import dropped, inputs
from visdet_assigners.testing.measure import OperatorCounter

NAN = float("nan")
DEVICE_PATH = "VISDET_ASSIGNERS_DEVICE_PATH"
ENVIRONMENT = "VISDET_ASSIGNERS_ON_NONFINITE"
every_assigner = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.code)
DENSE = [subject for subject in SUBJECTS if "Hungarian" not in subject.name]
every_dense_one = pytest.mark.parametrize("subject", DENSE, ids=lambda subject: subject.code)


def fault(number):
    return next(each for each in (*FAULTS, *REPLACED) if each.number == number)


def spoilt(subject, number="B01"):
    scene = subject.scene()
    fault(number).spoil(subject, scene)
    return scene


@pytest.fixture(autouse=True)
def package_as_it_comes(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    yield
    va.set_on_nonfinite(None)


def raises(subject, scene):
    try:
        subject.assign(scene)
    except va.AssignerInputError:
        return True
    return False


@every_assigner
def test_who_decides(subject, monkeypatch):
    """The assigner, then the package, then the environment, then the device."""
    scene = spoilt(subject)
    assert raises(subject, scene)
    monkeypatch.setenv(ENVIRONMENT, "replace")
    assert not raises(subject, scene)
    va.set_on_nonfinite("raise")
    assert raises(subject, scene)
    scene.options["on_nonfinite"] = "replace"
    assert not raises(subject, scene)
    va.set_on_nonfinite("replace")
    scene.options["on_nonfinite"] = "raise"
    assert raises(subject, scene)


@every_assigner
def test_the_default_on_a_device(subject, monkeypatch):
    monkeypatch.setenv(DEVICE_PATH, "1")
    assert raises(subject, spoilt(subject)) == (subject not in DENSE)
    monkeypatch.setenv(ENVIRONMENT, "raise")
    assert raises(subject, spoilt(subject))


@pytest.mark.parametrize("number", [each.number for each in REPLACED])
@every_assigner
def test_both_ways_replace_alike(subject, number, monkeypatch):
    if not fault(number).applies(subject) or subject.code in fault(number).errors.split():
        return
    va.set_on_nonfinite("replace")
    on_host = subject.assign(spoilt(subject, number))
    monkeypatch.setenv(DEVICE_PATH, "1")
    on_device = subject.assign(spoilt(subject, number))
    assert torch.equal(on_host.gt_inds, on_device.gt_inds)
    assert torch.equal(on_host.labels, on_device.labels)


def waits_of(subject, scene):
    assigner, fields = subject.build(), [instances(each) for each in (scene.pred, scene.gt, scene.ignore)]
    with OperatorCounter() as counter:
        subject.call(assigner, scene, *fields, {})
    return counter.waits.total()


@pytest.mark.parametrize("code", ["TA", "SO", "DS", "HU", "TH"])
def test_what_would_break_the_work_is_told_before_it(code, monkeypatch):
    """A label that is no column of the scores."""
    monkeypatch.setenv(DEVICE_PATH, "1")
    va.set_on_nonfinite("raise")
    subject = next(each for each in SUBJECTS if each.code == code)
    with pytest.raises(va.AssignerInputError, match=r"labels\[\d\] is \d+ but scores have"):
        subject.assign(spoilt(subject, "D01"))


@every_assigner
def test_raising_costs_one_wait_on_a_device(subject, monkeypatch):
    monkeypatch.setenv(DEVICE_PATH, "1")
    by_default = waits_of(subject, subject.scene())
    va.set_on_nonfinite("replace")
    assert waits_of(subject, subject.scene()) == by_default
    va.set_on_nonfinite("raise")
    assert waits_of(subject, subject.scene()) == by_default + 1


@every_dense_one
def test_replacing_costs_few_operators(subject, monkeypatch):
    """Some ten for each field, whatever the numbers of priors and ground truths."""
    monkeypatch.setenv(DEVICE_PATH, "1")
    assigner, scene = subject.build(), subject.scene()
    fields = [instances(each) for each in (scene.pred, scene.gt)]
    with OperatorCounter() as with_replacing:
        subject.call(assigner, scene, *fields, None, {})
    monkeypatch.setattr(inputs.Inputs, "good_only", lambda self, names, values, kinds, to: values)
    with OperatorCounter() as without:
        subject.call(assigner, scene, *fields, None, {})
    assert 0 < with_replacing.total - without.total <= 40


@every_assigner
def test_clean_input_is_untouched_by_replacing(subject):
    expected = subject.assign(subject.scene())
    va.set_on_nonfinite("replace")
    result = subject.assign(subject.scene())
    assert torch.equal(result.gt_inds, expected.gt_inds)
    assert torch.equal(result.labels, expected.labels)


@pytest.mark.parametrize("code", ["HU", "MH", "TH"])
@pytest.mark.parametrize("bad", [1, 30, 57])
def test_one_to_one_serves_every_finite_ground_truth_while_predictions_last(code, bad):
    """Of 60 predictions and 6 ground truths, one of them NaN."""
    subject = next(each for each in SUBJECTS if each.code == code)
    scene = spoilt(subject)
    scene.pred[subject.boxes][:bad] = NAN
    scene.options |= dict(on_nonfinite="replace", **({"topk": 1} if code == "TH" else {}))
    found = pairs(subject, subject.assign(scene))
    assert all(row >= bad for row, _ in found)
    matched = sorted(gt for _, gt in found)
    assert len(matched) == len(set(matched)) == min(5, 60 - bad)
    assert 2 not in matched


def test_replacing_is_told_once():
    inputs.warned.clear()
    assigner = va.MaxIoUAssigner(0.5, 0.4, on_nonfinite="replace")
    scene = spoilt(SUBJECTS[0])
    fields = [instances(each) for each in (scene.pred, scene.gt)]
    with pytest.warns(UserWarning, match=r"MaxIoUAssigner: gt_instances.bboxes: 1 of 6 rows .* never matched"):
        assigner.assign(*fields)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assigner.assign(*fields)
    assert sum(inputs.warned.values()) == 2


def test_the_error_has_its_parts():
    with pytest.raises(va.AssignerInputError) as caught:
        SUBJECTS[0].assign(spoilt(SUBJECTS[0], "C04"))
    error = caught.value
    assert (error.assigner, error.field, error.index) == ("MaxIoUAssigner", "gt_instances.bboxes", (2,))
    assert (error.value, error.image) == ([180.0, 40.0, 120.0, 130.0], "scene.png")


def test_the_image_may_be_named_by_the_instances():
    scene = spoilt(SUBJECTS[0])
    pred, gt = instances(scene.pred), instances(scene.gt)
    assigner = SUBJECTS[0].build()
    with pytest.raises(ValueError, match=r"1 of 24 entries$"):
        assigner.assign(pred, gt)
    gt.set_metainfo(dict(img_id=42))
    with pytest.raises(ValueError, match=r"\(image 42\)$"):
        assigner.assign(pred, gt)
    with pytest.raises(ValueError, match=r"\(image road.jpg\)$"):
        assigner.assign(pred, gt, img_meta=dict(img_path="road.jpg"))


def test_other_policies_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="on_nonfinite is 'ignore'; choose 'raise' or 'replace'"):
        va.set_on_nonfinite("ignore")
    with pytest.raises(ValueError, match="PointAssigner: on_nonfinite is 'ignore'"):
        va.PointAssigner(on_nonfinite="ignore")
    monkeypatch.setenv(ENVIRONMENT, "skip")
    with pytest.raises(ValueError, match="on_nonfinite is 'skip'"):
        SUBJECTS[0].assign(SUBJECTS[0].scene())


def test_padded_batches_of_ascend(monkeypatch):
    assigner = va.AscendMaxIoUAssigner(0.5, 0.4)
    priors, gts = torch.rand(2, 40, 4), torch.rand(2, 3, 4)
    priors[..., 2:] += priors[..., :2]
    gts[..., 2:] += gts[..., :2]
    expected = assigner.assign(priors, gts[:, [0, 2]])
    gts[:, 1, 3] = NAN
    with pytest.raises(ValueError, match=r"AscendMaxIoUAssigner: batch_gt_bboxes\[0, 1, 3\] is nan"):
        assigner.assign(priors, gts)
    for way in ("0", "1"):
        monkeypatch.setenv(DEVICE_PATH, way)
        va.set_on_nonfinite("replace")
        result = assigner.assign(priors, gts)
        assert torch.equal(result.batch_pos_mask, expected.batch_pos_mask)
        assert torch.equal(result.batch_neg_mask, expected.batch_neg_mask)


@every_assigner
def test_what_is_replaced_is_counted(subject, monkeypatch):
    """A bad object in two calls of three: one row each, or all its pairs, on the host and on a device."""
    va.set_on_nonfinite("replace")
    for on_device in ("0", "1"):
        monkeypatch.setenv(DEVICE_PATH, on_device)
        monkeypatch.setattr(dropped, "_dropped", {})
        subject.assign(subject.scene())
        assert va.replaced_counts() == {}
        subject.assign(spoilt(subject))
        subject.assign(spoilt(subject))
        (count,) = va.replaced_counts().items()
        assert count == counted(subject)


def test_counts_of_many_calls(monkeypatch):
    monkeypatch.setattr(dropped, "_dropped", {})
    for number in range(70):
        dropped.count_dropped("SomeAssigner", "boxes", torch.arange(5) != number)
        assert all(len(tally.waiting) < 40 for tally in dropped._dropped.values())
    assert va.replaced_counts() == va.replaced_counts() == {("SomeAssigner", "boxes"): 5}
    dropped.count_dropped("SomeAssigner", "boxes", torch.tensor([False, False]))
    dropped.count_dropped("SomeAssigner", "points", torch.tensor([True]))
    assert va.replaced_counts() == {("SomeAssigner", "boxes"): 7}
    assert all(len(tally.waiting) == 0 for tally in dropped._dropped.values())


def counted(subject):
    """What `spoilt` spoils, twice."""
    if "Hungarian" in subject.name:
        return (subject.name, "costs"), 2 * len(subject.scene().pred[subject.boxes])
    name = {"ScheduledAssigner": "ATSSAssigner"}.get(subject.name, subject.name)  # whose turn it is
    return (name, "gt_instances.bboxes"), 2
