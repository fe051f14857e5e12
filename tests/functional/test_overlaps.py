"""Overlap tables in blocks against the whole matrix at once."""

import pytest
import torch

from scenes import draw_boxes
from visdet_assigners.functional import overlaps as module
from visdet_assigners.functional.boxes import box_overlaps
from visdet_assigners.functional.overlaps import (
    IOU,
    Measure,
    best_ground_truths,
    best_priors,
    near_blocks,
    overlap_table,
    overlapping_pairs,
    overlaps_of_pairs,
    table_of,
)
from visdet_assigners.settings import using

IMAGE = (240, 320)


def gather(seed, num_gts=7, num_priors=90, per_prior=1):
    """Candidates (N, A, 4) in rows of the image, ground truths (M, 4), and the whole matrix (M, N)."""
    candidates = draw_boxes(num_priors * per_prior, IMAGE, "mixed", seed)
    candidates = candidates[candidates[:, 1].argsort()].unflatten(0, (num_priors, per_prior))
    gts = draw_boxes(num_gts, IMAGE, "mixed", seed + 1)
    whole = box_overlaps(gts, candidates.flatten(0, 1)).unflatten(1, (num_priors, per_prior)).amax(-1)
    return candidates, gts, whole


@pytest.fixture(params=["host", "device"])
def way(request, monkeypatch):
    """Both ways, in blocks of a few priors each."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", str(int(request.param == "device")))
    monkeypatch.setattr(module, "LEAST", 8)
    with using(memory_budget=500):
        yield request.param


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("per_prior", [1, 3])
@pytest.mark.parametrize("reach", [0.0, None])
def test_best_of_priors_and_of_ground_truths(way, seed, per_prior, reach):
    candidates, gts, whole = gather(seed, per_prior=per_prior)
    table = overlap_table(candidates, gts, Measure(box_overlaps, reach, True))
    assert len(table.blocks) > 3
    quality, first, best = best_ground_truths(table)
    assert torch.equal(quality, whole.amax(0))
    wanted = torch.ones_like(quality, dtype=torch.bool) if way == "device" else quality == float("inf")
    assert torch.equal(first[wanted], whole.argmax(0)[wanted])
    quality, first, _ = best_ground_truths(table, least=0.3)
    assert torch.equal(first[quality >= 0.3], whole.argmax(0)[quality >= 0.3])
    assert torch.equal(best.amax(-2), whole.amax(1))
    assert best.shape == (len(table.blocks), len(gts))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [True, False])
def test_ground_truths_take_their_best_priors(way, seed, share):
    candidates, gts, whole = gather(seed)
    candidates = torch.cat([candidates, candidates[::3]])  # equal overlaps, in other blocks
    gts = torch.cat([gts, gts[2:4]])
    whole = box_overlaps(gts, candidates[:, 0])
    allowed = torch.arange(len(gts)) != 1
    table = overlap_table(candidates, gts)
    takers = best_priors(table, best_ground_truths(table)[2], allowed, share)
    expected = torch.full((len(candidates),), -1)
    for gt in range(len(gts)):
        rows = (whole[gt] == whole[gt].max()).nonzero()[:, 0]
        if allowed[gt]:
            expected[rows if share else rows[:1]] = gt
    assert torch.equal(takers, expected)


def test_ignored_priors_overlap_nothing(way):
    candidates, gts, whole = gather(3)
    far = torch.tensor([[[900.0, 900, 910, 910]]]).expand(20, 1, 4)  # blocks that nothing is near
    candidates = torch.cat([candidates, far])
    ignored = torch.arange(len(candidates)) % 4 == 0
    table = overlap_table(candidates, gts, IOU, ignored)
    quality, first, best = best_ground_truths(table, least=0.0)
    expected = torch.cat([whole.amax(0), torch.zeros(20)]).masked_fill(ignored, -1)
    assert torch.equal(quality, expected)
    assert (first[-20:] == 0).all()
    seen = whole.masked_fill(ignored[: whole.shape[1]], -1).amax(1)
    assert torch.equal(best.amax(-2).clamp(min=0), seen.clamp(min=0))


def test_without_blocks_the_table_is_the_matrix():
    _, _, whole = gather(4)
    quality, first, best = best_ground_truths(table_of(whole), least=0.0)
    assert torch.equal(quality, whole.amax(0))
    assert torch.equal(first, whole.argmax(0))
    assert torch.equal(best[0], whole.amax(1))


def test_pairs_that_overlap(monkeypatch):
    monkeypatch.setattr(module, "LEAST", 8)
    candidates, gts, whole = gather(5)
    with using(memory_budget=500):
        rows, columns, values = overlapping_pairs(overlap_table(candidates, gts))
    expected = (whole > 0).nonzero()
    order = (rows * len(candidates) + columns).argsort()
    assert torch.equal(torch.stack([rows, columns], 1)[order], expected)
    assert torch.equal(values[order], whole[whole > 0])


def test_far_ground_truths_are_left_out_of_blocks(monkeypatch):
    monkeypatch.setattr(module, "LEAST", 8)
    candidates, gts, whole = gather(6)
    with using(memory_budget=500):
        blocks = near_blocks(candidates, gts, 4, 0.0)
        everything = near_blocks(candidates, gts, 4, None)
    assert len(blocks) > 3
    assert all(block.columns is None for block in everything)
    assert sum(len(block.columns) for block in blocks) < len(blocks) * len(gts)
    for block in blocks:
        left_out = torch.ones(len(gts), dtype=torch.bool).index_fill_(0, block.columns, False)
        assert (whole[left_out][:, block.rows] == 0).all()


def test_some_pairs():
    candidates, gts, whole = gather(7)
    rows = torch.tensor([[0, 5, 9]]).expand(len(gts), 3)
    assert torch.equal(overlaps_of_pairs(candidates[:, 0], gts, rows), whole[:, [0, 5, 9]])


@pytest.mark.parametrize("reach", [0.0, 3.0, 40.0])
def test_boxes_within_reach_are_kept(reach, monkeypatch):
    """As for a calculator that sees boxes apart."""
    monkeypatch.setattr(module, "LEAST", 8)
    candidates, gts, _ = gather(8)
    with using(memory_budget=500):
        blocks = near_blocks(candidates, gts, 4, reach)
    assert any(len(block.columns) < len(gts) for block in blocks)
    for block in blocks:
        own = candidates[block.rows, 0]
        gap = torch.maximum(own[:, None, :2] - gts[:, 2:], gts[:, :2] - own[:, None, 2:]).amax(-1)  # below 0: they meet
        assert set((gap <= reach).any(0).nonzero()[:, 0].tolist()) <= set(block.columns.tolist())


def test_a_batch_of_images_whose_priors_have_several_boxes(monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    scenes = [gather(seed, per_prior=3) for seed in (9, 10)]
    candidates, gts = (torch.stack([scene[part] for scene in scenes]) for part in (0, 1))
    with using(memory_budget=5000):
        quality, first, best = best_ground_truths(overlap_table(candidates, gts, Measure(box_overlaps, None, True)))
    for image, (_, _, whole) in enumerate(scenes):
        assert torch.equal(quality[image], whole.amax(0))
        assert torch.equal(first[image], whole.argmax(0))
        assert torch.equal(best[image].amax(-2), whole.amax(1))
