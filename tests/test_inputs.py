"""Reading an image: shapes at once, values together, each fault named by field, place and image."""

import math
import warnings
from types import SimpleNamespace as Instances

import numpy as np
import pytest
import torch

import visdet_assigners as va
from visdet_assigners import dropped, inputs
from visdet_assigners.errors import AssignerInputError, image_of
from visdet_assigners.functional.validity import Fault, is_dropped
from visdet_assigners.inputs import Inputs, image_size

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [40.0, 40.0, 50.0, 50.0]])
LABELS = torch.tensor([1, 2, 0])


@pytest.fixture
def image():
    inputs.warned.clear()
    return Inputs("Anything")


@pytest.fixture
def said():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: [str(warning.message) for warning in caught]


def test_shapes_of_fields(image):
    def read(value, kind):
        return image.field(value, "pred.field", kind)

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
    assert read(torch.tensor([[1.0, 2, 8]]), "strided").tolist() == [[1, 2, 8, 8]]  # one stride stands for both
    for columns in (5, 8, 1):
        assert read(torch.zeros(3, columns), "numbers").shape == (3, columns)
        assert read(torch.zeros(3, 2, columns), "number_groups").shape == (3, 2, columns)
    for value, kind, shape in (
        (torch.zeros(3, 3), "boxes", r"\(n, 4\), got \(3, 3\); the columns are x1, y1, x2, y2"),
        (torch.zeros(4), "boxes", r"\(n, 4\), got \(4,\)"),
        (torch.zeros(3, 2), "points", r"\(n, 3\), got \(3, 2\); the columns are x, y, stride"),
        (torch.zeros(3, 2), "strided", r"\(n, 4\), got \(3, 2\); the columns are x, y, stride in x, stride in y"),
        (torch.zeros(3, 4), "groups", r"\(n, A, 4\), got \(3, 4\)"),
        (torch.zeros(2, 3, 4), "boxes", r"\(n, 4\), got \(2, 3, 4\); give one image at a time"),
    ):
        with pytest.raises(AssignerInputError, match=f"^Anything: pred.field must have shape {shape}"):
            read(value, kind)
    with pytest.raises(AssignerInputError, match=r"must be a tensor, got ndarray; torch.from_numpy makes one"):
        read(np.zeros((3, 4)), "boxes")
    with pytest.raises(AssignerInputError, match="must be a tensor, got nothing"):
        read(None, "boxes")


def test_values_are_looked_at_together(image):
    """A quick test that doubts is followed by a close look, which may acquit; the first fault that is found raises."""
    fault = Fault("boxes[2] is wrong", "boxes", (2,), 5.0)
    yes, no, value = (lambda _: torch.tensor(True)), (lambda _: torch.tensor(False)), torch.ones(1)
    image.sources = [dict(img_path="a.jpg")]
    image.tensor(value, "value")
    image.expect(value, no, lambda _: None)
    image.expect(value, yes, lambda _: None)  # acquitted
    image.expect(value[:0], yes, lambda _: fault)  # nothing to look at
    image.settle()
    image.expect(value, yes, lambda _: fault)
    other = Inputs("Anything", sources=[dict(img_path="b.jpg")])
    other.expect(value, no, lambda _: None)
    with pytest.raises(AssignerInputError, match=r"^Anything: boxes\[2\] is wrong \(image a.jpg\)$") as error:
        other.settle(image)
    assert (error.value.field, error.value.index, error.value.value) == ("boxes", (2,), 5.0)
    assert error.value.image == "a.jpg"


def test_everything_is_looked_at_where_something_is_known_to_be_wrong(image):
    image.tensor(BOXES, "boxes")
    image.check(BOXES, "boxes", "boxes")
    image.remember(torch.tensor([0.0, math.nan]), "masks", "masks")
    image.settle()  # what was remembered shows elsewhere
    with pytest.raises(AssignerInputError, match=r"masks\[1\] is nan"):
        image.explain()


def test_infinite_scores_are_named_last(image):
    """A head may mask classes by them; what else is wrong is the reason then."""
    scores = torch.tensor([[0.0, -math.inf], [1.0, -math.inf]])
    image.remember(scores, "pred_instances.scores", "scores")
    with pytest.raises(AssignerInputError, match=r"scores\[0, 1\] is -inf"):
        image.explain()
    image.remember(torch.tensor([[0.0, math.nan, 1, 1]]), "pred_instances.bboxes", "predicted")
    with pytest.raises(AssignerInputError, match=r"bboxes\[0, 1\] is nan"):
        image.explain()


def test_errors_can_be_built_from_their_text():
    """As some registries do to name the place of a config."""
    assert str(AssignerInputError("class `A` in b.py: A: topk is 0")) == "class `A` in b.py: A: topk is 0"


def test_numbers_of_objects_agree(image):
    with pytest.raises(AssignerInputError, match=r"^Anything: gt_instances has 3 bboxes and 2 labels"):
        image.read_truths(BOXES, torch.tensor([1, 2]))
    masks = torch.ones(3, 2, 2)
    image.read_masks(masks, "gt_instances.masks", 3)
    image.read_masks(torch.ones(0, 2, 2), "gt_instances.masks", 3)  # none at all
    with pytest.raises(AssignerInputError, match=r"^Anything: gt_instances has 3 masks and 2 labels"):
        image.read_masks(masks, "gt_instances.masks", 2)


@pytest.mark.parametrize("side", [2, 3])
def test_an_object_of_no_area_is_told(image, said, side):
    boxes = BOXES.clone()
    image.read_truths(boxes, LABELS)
    assert not said()
    boxes[1, side] = boxes[1, side - 2]
    for _ in range(2):
        image.read_truths(boxes, LABELS)
    (text,) = said()
    assert text.startswith("Anything: gt_instances.bboxes[1] is [5.0, 0.0, ")
    assert text.endswith("has no area; check the annotations")


def test_an_object_that_is_dropped_is_not_told_to_have_no_area(said):
    inputs.warned.clear()
    boxes = torch.cat([BOXES, torch.full((1, 4), math.nan)])
    Inputs("Anything", "replace").read_truths(boxes, torch.zeros(4).long())
    (text,) = said()
    assert "1 of 4 rows are not finite" in text


@pytest.mark.parametrize("way", ["0", "1"])
def test_inverted_predictions_can_be_compared(way, monkeypatch):
    """Objects that are no boxes are dropped; what is predicted may be inverted."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    monkeypatch.setattr(dropped, "_dropped", {})
    inverted, image = BOXES.flip(1), Inputs("Anything", "replace")
    (read,) = image.rows({"bboxes": (inverted, "predicted")})
    assert torch.equal(read, inverted)
    assert va.replaced_counts() == {}
    image.read_truths(inverted, LABELS)
    assert is_dropped(image.gts).all()
    assert va.replaced_counts() == {("Anything", "gt_instances.bboxes"): 3}


def test_nothing_new_where_nothing_is_wrong():
    """On a CPU, where that is known."""
    (read,) = Inputs("Anything", "replace").rows({"bboxes": (BOXES, "predicted")})
    assert read.data_ptr() == BOXES.data_ptr()


def test_level_sizes(image):
    def read(sizes, level_ids=None):
        pred = Instances() if level_ids is None else Instances(level_ids=torch.tensor(level_ids))
        image.read_levels(sizes, 4, pred)
        return image.level_sizes

    assert read([1, 0, 3]) == [1, 0, 3]
    assert read(None, [0, 2, 2, 2]) == [1, 0, 3]
    with pytest.raises(AssignerInputError, match="level_ids must ascend"):
        read(None, [0, 1, 0, 1])
    for wrong, kind in ((torch.tensor([1, 3]), "Tensor"), (4, "int"), ("13", "str")):
        with pytest.raises(AssignerInputError, match=rf"^Anything: num_level_priors must be a list .*, got {kind}"):
            read(wrong)
    with pytest.raises(AssignerInputError, match=r"sum\(num_level_priors\) is 5 but there are 4 priors"):
        read([1, 4])
    with pytest.raises(AssignerInputError, match=r"num_level_priors is \[5, -1\]; whole numbers from 0"):
        read([5, -1])


def test_an_image_has_two_positive_sides():
    assert image_size("SomeAssigner", dict(img_shape=(4, 3))) == (4, 3)
    assert image_size("SomeAssigner", dict(img_shape=(1, 1, 3))) == (1, 1)
    for wrong in ((0, 5), (5, 0), (-1, 5), (5,), (), None):
        with pytest.raises(
            AssignerInputError, match=r"^SomeAssigner: img_meta\['img_shape'\] must be \(height, width\)"
        ):
            image_size("SomeAssigner", dict(img_shape=wrong))
    with pytest.raises(AssignerInputError, match="got nothing"):
        image_size("SomeAssigner", None)


def test_who_names_the_image():
    named = torch.nn.Module()  # anything with an attribute
    named.metainfo = dict(img_id=7)
    assert image_of([None, dict(img_shape=(1, 1)), named, dict(img_path="a.jpg")]) == 7
    assert image_of([dict(img_path="a.jpg", img_id=7), named]) == "a.jpg"
    assert image_of([dict(img_path=None, img_id=0)]) == 0
    assert image_of([]) is None
