"""What every assigner inherits: how arguments, fields, levels and options are read, and what is said of them."""

import math
import warnings
from types import SimpleNamespace as Instances

import pytest
import torch

import visdet_assigners as va
from visdet_assigners import inputs
from visdet_assigners.assigners.base import BaseAssigner, OverlapMixin, levels_by_name

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [40.0, 40.0, 50.0, 50.0]])


class Anything(OverlapMixin, BaseAssigner):
    """Assigns nothing; its methods are what is tested."""

    def assign(self, *args, **kwargs):
        raise NotImplementedError


@pytest.fixture
def anything():
    inputs.warned.clear()
    return Anything()


@pytest.fixture
def said():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: [str(warning.message) for warning in caught]


def test_level_sizes_in_the_second_place():
    assert levels_by_name(("pred", [3, 4], "gt"), {"img_meta": 1}) == (
        ("pred", "gt"), {"img_meta": 1, "num_level_priors": [3, 4]}
    )  # fmt: skip
    assert levels_by_name(("pred", (3,)), {}) == (("pred",), {"num_level_priors": (3,)})
    for args in (("pred", "gt"), ("pred",), (["pred"], ["gt"]), ("pred", [3, "gt"]), ("pred", "gt", [3, 4])):
        assert levels_by_name(args, {}) == (args, {})


def test_options_as_they_come():
    assigner = Anything()
    assert assigner.compile is False
    assert (assigner.memory_budget, assigner.deterministic, assigner.on_nonfinite) == (None, None, None)
    assert Anything(memory_budget=1).memory_budget == 1
    for wrong in (0, -5):
        with pytest.raises(ValueError, match=rf"^Anything: memory_budget is {wrong}; give a positive number"):
            Anything(memory_budget=wrong)


def test_weights_are_finite(anything):
    anything.check_weights(one=1.0, none=0)
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"^Anything: two is {wrong}; a finite number is needed"):
            anything.check_weights(one=1.0, two=wrong)


def test_shapes_of_fields(anything):
    def read(value, kind):
        return anything.read_as(Instances(field=value), "pred", "field", kind)

    assert read(torch.zeros(3, 6), "boxes").shape == (3, 4)
    assert read(torch.zeros(3, 6), "scores").shape == (3, 6)
    assert read(torch.zeros(3, 2, 4), "groups").shape == (3, 2, 4)
    for kind in ("scores", "probabilities"):
        assert read(torch.zeros(3, 1), kind).shape == (3, 1)  # a single class
    assert read(torch.zeros(0), "boxes").shape == (0, 4)
    assert read(torch.zeros(0), "groups").shape == (0, 1, 4)
    assert read(torch.zeros(0, 7), "scores").shape == (0, 7)
    assert read(torch.ones(3, 4, dtype=torch.int16), "predicted").dtype == torch.float32
    assert read(torch.ones(3, dtype=torch.uint8), "flags").dtype == torch.bool
    assert read(torch.ones(3, 5, 5, dtype=torch.bool), "masks").dtype == torch.float32
    for value, kind, shape in (
        (torch.zeros(3, 3), "boxes", r"\(n, 4\), got \(3, 3\)"),
        (torch.zeros(4), "boxes", r"\(n, 4\), got \(4,\)"),
        (torch.zeros(3, 2), "points", r"\(n, 3\), got \(3, 2\)"),
        (torch.zeros(3, 4), "groups", r"\(n, A, 4\), got \(3, 4\)"),
        (torch.zeros(3, 1, 4), "boxes", r"\(n, 4\), got \(3, 1, 4\)"),
    ):
        with pytest.raises(ValueError, match=f"^Anything: pred.field must have shape {shape}"):
            read(value, kind)


def test_numbers_of_objects_agree(anything):
    gt = Instances(bboxes=BOXES, labels=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"^Anything: gt_instances has 3 bboxes and 2 labels"):
        anything.read_ground_truths(gt)
    masks = Instances(masks=torch.ones(3, 2, 2))
    anything.read_masks(masks, "masks", 3)
    anything.read_masks(Instances(masks=torch.ones(0, 2, 2)), "masks", 3)  # none at all
    with pytest.raises(ValueError, match=r"^Anything: gt_instances has 3 masks and 2 labels"):
        anything.read_masks(masks, "masks", 2)
    masks.masks[1, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"^Anything: gt_instances.masks\[1, 0, 0\] is nan"):
        anything.read_masks(masks, "masks", 3)


@pytest.mark.parametrize("side", [2, 3])
def test_an_object_of_no_area_is_told(anything, said, side):
    boxes, labels = BOXES.clone(), torch.tensor([1, 2, 0])
    anything.read_ground_truths(Instances(bboxes=boxes, labels=labels))
    assert not said()
    boxes[1, side] = boxes[1, side - 2]
    for _ in range(2):
        anything.read_ground_truths(Instances(bboxes=boxes, labels=labels))
    (text,) = said()
    assert text.startswith("Anything: gt_instances.bboxes[1] is [5.0, 0.0, ")
    assert text.endswith("has no area; check the annotations")


def test_an_object_that_is_taken_out_is_not_told_to_have_no_area(said):
    inputs.warned.clear()
    boxes = torch.cat([BOXES, torch.full((1, 4), math.nan)])
    Anything(on_nonfinite="replace").read_ground_truths(Instances(bboxes=boxes, labels=torch.zeros(4).long()))
    (text,) = said()
    assert "1 of 4 rows are not finite" in text


@pytest.mark.parametrize("way", ["0", "1"])
def test_inverted_predictions_can_be_compared(way, monkeypatch):
    """Objects that are no boxes are taken out; what is predicted may be inverted."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    monkeypatch.setattr(inputs, "_dropped", {})
    inverted = BOXES.flip(1)
    assigner = Anything(on_nonfinite="replace")
    with inputs.called("Anything", []):
        (read,) = assigner.read_predictions(Instances(bboxes=inverted), bboxes="predicted")
        assert torch.equal(read, inverted)
        assert va.replaced_counts() == {}
        gts, _ = assigner.read_ground_truths(Instances(bboxes=inverted, labels=torch.tensor([0, 1, 2])))
    assert validity.is_dropped(gts).all()
    assert va.replaced_counts() == {("Anything", "gt_instances.bboxes"): 3}


def test_nothing_new_where_nothing_is_wrong():
    """On a CPU, where that is known."""
    (read,) = Anything(on_nonfinite="replace").read_predictions(Instances(bboxes=BOXES), bboxes="predicted")
    assert read.data_ptr() == BOXES.data_ptr()


def test_regions_that_are_not_used_are_told(anything, said):
    for regions in (None, Instances(bboxes=BOXES[:0])):
        anything.without_regions(regions)
    assert not said()
    for _ in range(2):
        anything.without_regions(Instances(bboxes=BOXES))
    (text,) = said()
    assert text.startswith("Anything: gt_instances_ignore has 3 regions, which are not used")


def test_number_of_instances(anything):
    assert anything.count(Instances(bboxes=BOXES)) == 3
    assert anything.count(Instances(name="none")) == 0
    assert anything.count([1, 2]) == 2


def test_level_sizes(anything):
    def read(sizes, level_ids=None):
        pred = Instances() if level_ids is None else Instances(level_ids=torch.tensor(level_ids))
        return anything.read_level_sizes(pred, sizes, 4)

    assert read([1, 0, 3]) == [1, 0, 3]
    assert read(None, [0, 2, 2, 2]) == [1, 0, 3]
    with pytest.raises(ValueError, match="level_ids must ascend"):
        read(None, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"^Anything: num_level_priors must be a list of level sizes, got Tensor"):
        read(torch.tensor([1, 3]))
    with pytest.raises(ValueError, match=r"^Anything: num_level_priors must be a list of level sizes, got int"):
        read(4)
    with pytest.raises(ValueError, match=r"sum\(num_level_priors\) is 5 but there are 4 priors"):
        read([1, 4])


def test_regions_are_off_unless_a_threshold_is_set(anything):
    anything.build_calculator(None)
    assert anything.ignore_iof_thr == -1
    assert anything.ignored_priors(BOXES, BOXES) is None
    anything.ignore_iof_thr = 0.0
    assert anything.ignored_priors(BOXES, BOXES) is None
    anything.ignore_iof_thr = 0.5
    regions = torch.tensor([[0.0, 0.0, 10.0, 100.0]])
    assert anything.ignored_priors(BOXES, regions).tolist() == [True, False, False]  # half of the second, not more
    assert anything.ignored_priors(BOXES, regions, wrt_candidates=False) is not None
    assert not anything.ignored_priors(BOXES, regions, wrt_candidates=False).any()  # a tenth of the region
    for nothing in (None, regions[:0]):
        assert anything.ignored_priors(BOXES, nothing) is None
    assert anything.ignored_priors(BOXES[:0], regions) is None


def test_overlaps_of_some_pairs(anything):
    """A calculator that takes no pairs works out the whole matrix."""
    anything.build_calculator(None)
    near = torch.tensor([[0, 1], [2, 2]])
    expected = torch.tensor([[1, 1 / 3], [0, 0]])
    assert torch.allclose(anything.overlaps_at(BOXES, BOXES[:2], near), expected)

    class Whole:
        def __call__(self, first, second, mode="iou"):
            return va.iou_calculators.BboxOverlaps2D()(first, second, mode=mode).double()

    anything.build_calculator(Whole())
    found = anything.overlaps_at(BOXES, BOXES[:2], near)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected)
    assert anything.reach is None
