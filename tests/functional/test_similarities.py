"""NWD, KLD and SimD: their formulas pair by pair, what they do with odd boxes, and how far they reach."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scenes import drawn_objects
from visdet_assigners.functional.blocks import Reach, touching
from visdet_assigners.functional.boxes import box_iou
from visdet_assigners.functional.similarities import (
    kld,
    kld_reach,
    mean_gaps,
    nwd,
    nwd_reach,
    sim_d,
    sim_d_reach,
)
from visdet_assigners.iou_calculators import KLDOverlaps, NWDOverlaps, SimDOverlaps


def shape(box):
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def plain_nwd(one, other, constant):
    (x, y, w, h), (u, v, a, b) = shape(one), shape(other)
    return math.exp(-math.sqrt((x - u) ** 2 + (y - v) ** 2 + ((w - a) ** 2 + (h - b) ** 2) / 4) / constant)


def plain_kld(one, other):
    (x, y, w, h), (u, v, a, b) = shape(one), shape(other)
    kl = ((a / w) ** 2 + (b / h) ** 2 + 4 * (x - u) ** 2 / w**2 + 4 * (y - v) ** 2 / h**2) / 2
    return 1 / (1 + kl + (math.log(w**2 / a**2) + math.log(h**2 / b**2) - 2) / 2)


def plain_sim_d(one, other, m, n):
    (x, y, w, h), (u, v, a, b) = shape(one), shape(other)
    place = math.hypot(m * (x - u) / (w + a), n * (y - v) / (h + b))
    return math.exp(-(place + math.hypot(m * (w - a) / (w + a), n * (h - b) / (h + b))))


SIMILARITIES = {
    "nwd": (lambda a, b, **rest: nwd(a, b, 9.0, **rest), lambda a, b: plain_nwd(a, b, 9.0)),
    "kld": (kld, plain_kld),
    "sim_d": (lambda a, b, **rest: sim_d(a, b, 3.0, 2.5, **rest), lambda a, b: plain_sim_d(a, b, 3.0, 2.5)),
}
every_similarity = pytest.mark.parametrize("name", SIMILARITIES)
CALCULATORS = [NWDOverlaps(9.0), KLDOverlaps(0.05), SimDOverlaps(3.0, 2.5), NWDOverlaps(9.0, union=True)]
every_calculator = pytest.mark.parametrize("calculator", CALCULATORS, ids=repr)


def boxes(count, seed, size=30.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corner, corner + 0.5 + torch.rand(count, 2, generator=generator) * size], dim=1)


@every_similarity
def test_each_pair_is_as_the_paper_says(name):
    ours, plain = SIMILARITIES[name]
    first, second = boxes(7, 0), boxes(70, 1)
    expected = torch.tensor([[plain(a, b) for b in second.double().tolist()] for a in first.double().tolist()])
    torch.testing.assert_close(ours(first, second), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(first, second[:7], aligned=True), expected[:, :7].diagonal(), rtol=1e-5, atol=1e-6)
    batch = ours(first.expand(3, 7, 4), second.expand(3, 70, 4))
    assert torch.equal(batch, ours(first, second).expand(3, 7, 70))


@every_similarity
def test_equal_boxes_have_1_and_boxes_of_no_area_0(name):
    ours, _ = SIMILARITIES[name]
    own = boxes(9, 2)
    assert torch.equal(ours(own, own).diagonal(), torch.ones(9))
    flat = torch.tensor([[5.0, 5.0, 5.0, 9.0], [5.0, 5.0, 5.0, 5.0], [1e30, 1e30, 1e30, 1e30]])
    for pair in ((flat, own), (own, flat), (flat, -flat), (flat, flat)):
        assert (ours(*pair) == 0).all()
    assert ours(own[:0], own).shape == (0, 9)
    assert ours(own, own[:0]).shape == (9, 0)
    with pytest.raises(ValueError, match="as many boxes on both sides, got 9 and 8"):
        ours(own, own[:8], aligned=True)


@every_similarity
def test_an_entry_does_not_depend_on_the_others_of_the_call(name):
    ours, _ = SIMILARITIES[name]
    first, second = boxes(5, 3), boxes(131, 4)
    whole = ours(first, second)
    for start, end in ((0, 1), (7, 70), (128, 131)):
        assert torch.equal(ours(first, second[start:end]), whole[:, start:end])
    assert torch.equal(ours(first[2:3], second), whole[2:3])
    assert torch.equal(ours(first, second[:5], aligned=True), whole[:, :5].diagonal())


@pytest.mark.parametrize("name", ["nwd", "sim_d"])
def test_symmetric(name):
    ours, _ = SIMILARITIES[name]
    first, second = boxes(20, 5), boxes(30, 6)
    assert torch.equal(ours(first, second), ours(second, first).T)


def test_kld_measures_in_sizes_of_the_first():
    small, large = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[0.0, 0.0, 40.0, 40.0]])
    apart = torch.tensor([[40.0, 0.0, 0.0, 0.0]])[:, [0, 1, 0, 1]]
    assert kld(small, small + apart) < kld(large, large + apart)
    assert kld(small, large) != kld(large, small)


REACHES = {
    "nwd": lambda floor: nwd_reach(9.0, floor),
    "kld": kld_reach,
    "sim_d": lambda floor: sim_d_reach(3.0, 2.5, floor),
}


@every_similarity
@given(
    st.tuples(*[st.floats(0.25, 90)] * 4), st.tuples(st.floats(-400, 400), st.floats(-400, 400)),
    st.sampled_from([0.01, 0.05, 0.3, 0.9]),
)  # fmt: skip
def test_nothing_above_the_floor_is_out_of_reach(name, sides, move, floor):
    ours, _ = SIMILARITIES[name]
    width, height, a, b = sides
    gt = torch.tensor([[0.0, 0.0, width, height]])
    prior = torch.tensor([[move[0], move[1], move[0] + a, move[1] + b]])
    reach = REACHES[name](floor)
    similar = ours(gt, prior, floor=floor)
    assert similar.item() in (0.0, ours(gt, prior).item())
    assert (similar > 0).item() == (ours(gt, prior) > floor).item()
    if reach is not None and similar > 0:
        slack = Reach(reach.pixels + 1e-3, reach.widths * 1.0001, reach.heights * 1.0001)
        assert touching(prior, gt, slack).item()


def test_no_floor_no_reach():
    assert nwd_reach(9.0, 0.0) is kld_reach(0.0) is sim_d_reach(3.0, 3.0, 0.0) is None
    assert sim_d_reach(1.0, 3.0, 0.01) is None
    assert sim_d_reach(6.13, 4.59, 0.3) == Reach(0.0, 0.0, 0.0)


def test_nwd_reaches_what_the_design_says():
    """At C = 12.8 a similarity of .3 means centres within 15.4 pixels."""
    assert nwd_reach(12.8, 0.3).pixels == pytest.approx(15.41, abs=0.01)


def test_mean_gaps_are_the_weights_of_sim_d():
    priors, gts = boxes(11, 7), boxes(4, 8)
    pairs = [(shape(a), shape(b)) for a in gts.tolist() for b in priors.tolist()]
    across, down = mean_gaps(priors, gts)
    expected = sum(abs(p[0] - q[0]) / (p[2] + q[2]) for p, q in pairs)
    assert across.item() == pytest.approx(expected, rel=1e-5)
    assert down.item() == pytest.approx(sum(abs(p[1] - q[1]) / (p[3] + q[3]) for p, q in pairs), rel=1e-5)


# ------------------------------------------------------------------------------------------------------- calculators


@every_calculator
def test_modes(calculator):
    first, second = boxes(6, 9), boxes(6, 10)
    assert torch.equal(calculator(first, second, mode="iof"), type(CALCULATORS[0])()(first, second, mode="iof"))
    inside = torch.tensor([[2.0, 2.0, 4.0, 4.0]])
    assert calculator(inside, torch.tensor([[0.0, 0.0, 9.0, 9.0]]), mode="iof") == 1
    with pytest.raises(ValueError, match=r"Overlaps: mode 'giou' isn't defined"):
        calculator(first, second, mode="giou")
    assert torch.equal(calculator(first, second, is_aligned=True), calculator(first, second).diagonal())
    with_score = torch.cat([first, torch.rand(6, 1)], dim=1)
    assert torch.equal(calculator(with_score, second), calculator(first, second))
    assert calculator(first.half(), second.half()).dtype == torch.float32


def test_union_loses_nowhere():
    own = NWDOverlaps(9.0, floor=0.0)
    for objects in drawn_objects()[:4]:
        others = boxes(50, 11)
        if len(objects.boxes):
            both = NWDOverlaps(9.0, floor=0.0, union=True)(objects.boxes, others)
            assert torch.equal(both, torch.maximum(own(objects.boxes, others), box_iou(objects.boxes, others)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NWDOverlaps(0), "NWDOverlaps: constant is 0"),
        (lambda: NWDOverlaps(12.8, floor=2), "NWDOverlaps: floor is 2"),
        (lambda: KLDOverlaps(-0.1), "KLDOverlaps: floor is -0.1"),
        (lambda: SimDOverlaps(m=-1), "SimDOverlaps: m is -1"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
