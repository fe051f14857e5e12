"""Positives as queries, and the losses of queries whose objects are known."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.models.losses import FocalLoss, GIoULoss, L1Loss, QualityFocalLoss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps

from visdet_assigners.codetr.adapter import MultiScaleAdapter
from visdet_assigners.codetr.positives import Positives
from visdet_assigners.codetr.queries import (
    SIDE_LIMITS,
    PositiveQueryEncoder,
    pad_positives,
    query_losses,
    reference_boxes,
    sample_centres,
)

SIZES = torch.tensor([[64.0, 32.0], [32.0, 32.0]])  # width, height


def positives(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 10
    boxes = torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * 10], dim=1)
    index = torch.arange(count) % 3
    return Positives(boxes, index, index, boxes + 1)


@pytest.mark.parametrize("counts", [(2, 5), (0, 3), (0, 0), (9, 9)])
@pytest.mark.parametrize("limit", [1, 4, 300])
def test_number_of_queries_and_coordinates(counts, limit):
    found = [positives(count, seed) for seed, count in enumerate(counts)]
    queries = pad_positives(found, SIZES, limit)
    assert queries.boxes.shape == (2, max(1, min(limit, max(counts))), 4)
    for image, (one, count) in enumerate(zip(found, counts)):
        taken = min(count, limit)
        assert queries.valid[image].tolist() == [True] * taken + [False] * (queries.valid.shape[1] - taken)
        scale = SIZES[image].repeat(2)
        got = bbox_cxcywh_to_xyxy(queries.boxes[image, :taken]) * scale
        truth = bbox_cxcywh_to_xyxy(queries.gt_boxes[image, :taken]) * scale
        assert torch.allclose(truth, got + 1, atol=1e-4)  # a query keeps its own object
        distance = (got[:, None] - one.boxes[None]).abs().amax(dim=2)  # (taken, count)
        if taken:
            nearest, which = distance.min(dim=1)
            assert (nearest < 1e-4).all()
            assert len(which.unique()) == taken  # nothing twice
            assert torch.equal(queries.labels[image, :taken], one.labels[which])
        if count <= limit:
            assert torch.allclose(got, one.boxes, atol=1e-4)  # and in order, where nothing is left out


def test_a_subset_is_random():
    torch.manual_seed(0)
    chosen = {tuple(pad_positives([positives(40)], SIZES[:1], 3).boxes[0, :, 0].tolist()) for _ in range(5)}
    assert len(chosen) > 1


def test_attention_of_padding():
    queries = pad_positives([positives(1), positives(3)], SIZES, 300)
    assert queries.blocked[0].tolist() == [[False, True, True], [False, False, True], [False, True, False]]
    assert not queries.blocked[1].any()
    assert not queries.blocked.all(dim=2).any()  # a row of nothing but blocked keys is NaN after the softmax


def test_references_leave_room_for_logits():
    big = torch.tensor([[-100.0, -100.0, 300.0, 300.0], [1.0, 1.0, 1.0, 1.0]])
    label = torch.zeros(2, dtype=torch.long)
    reference = reference_boxes(pad_positives([Positives(big, label, label, big)], SIZES[:1], 300))
    assert reference.min() >= SIDE_LIMITS[0]
    assert reference.max() <= SIDE_LIMITS[1]
    assert torch.isfinite(torch.logit(reference)).all()


def test_features_are_those_at_the_centre():
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(8.0), indexing="ij")
    fine = torch.stack([columns, rows])[None]  # a cell holds its own place
    coarse = fine[:, :, ::2, ::2] + 0.5
    at = torch.tensor([[[2.5 / 8, 1.5 / 4], [4.0 / 8, 2.0 / 4]]])
    assert torch.allclose(sample_centres([fine], at), torch.tensor([[[2.0, 1.0], [3.5, 1.5]]]))
    both = sample_centres([fine, coarse], at)
    assert torch.allclose(both[0, 1], torch.tensor([3.5, 1.5]))
    assert both.shape == (1, 2, 2)


def test_padding_of_the_image_moves_no_centre():
    """Half of the map is padding: the middle of the image is a quarter of the map."""
    encoder = PositiveQueryEncoder(8, with_pos=True)
    encoder.init_weights()
    seen = []
    encoder.feature.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    box, zero = torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.zeros(1, dtype=torch.long)
    queries = pad_positives([Positives(box, zero, zero, box)], torch.tensor([[16.0, 16.0]]), 9)
    level = torch.arange(4.0).expand(1, 8, 4, 4)
    encoder(queries, [level], torch.tensor([[0.5, 0.5]]))
    assert torch.allclose(seen[0], torch.full((1, 1, 8), 0.5))


@pytest.mark.parametrize("with_pos", [True, False])
@pytest.mark.parametrize("with_feat", [True, False])
def test_encoder_shapes_and_gradients(with_pos, with_feat):
    encoder = PositiveQueryEncoder(8, with_pos, with_feat)
    encoder.init_weights()
    queries = pad_positives([positives(2), positives(3)], SIZES, 300)
    level = torch.randn(2, 8, 4, 8, requires_grad=True)
    content, position = encoder(queries, [level], torch.ones(2, 2))
    assert content.shape == (2, 3, 8)
    assert (position is not None) == with_pos
    (content.sum() + content.square().sum() + (position.square().sum() if with_pos else 0)).backward()
    assert all(one.grad is not None for one in encoder.parameters())
    assert (level.grad is not None) == with_feat


@pytest.mark.parametrize("quality", [False, True])
def test_losses_by_plain_loops(quality):
    """Each term for each valid query, weighed, summed and divided by their number."""
    torch.manual_seed(0)
    head = SimpleNamespace(
        loss_cls=QualityFocalLoss(use_sigmoid=True, loss_weight=1.5) if quality else FocalLoss(loss_weight=2.0),
        loss_bbox=L1Loss(loss_weight=5.0),
        loss_iou=GIoULoss(loss_weight=2.0),
        num_classes=3,
    )
    queries = pad_positives([positives(2), positives(4)], SIZES, 300)
    scores, boxes = torch.randn(2, 2, 4, 3), torch.rand(2, 2, 4, 4) * 0.5 + 0.2
    losses = query_losses(head, scores, boxes, queries, SIZES)
    assert set(losses) == {f"{layer}loss_{term}" for layer in ("d0.", "") for term in ("cls", "bbox", "iou")}
    for layer, prefix in enumerate(("d0.", "")):
        expected = dict(loss_cls=0.0, loss_bbox=0.0, loss_iou=0.0)
        for image in range(2):
            for query in range(int(queries.valid[image].sum())):
                scale = SIZES[image].repeat(2)
                predicted, truth = boxes[layer, image, query], queries.gt_boxes[image, query]
                corners, gt_corners = (bbox_cxcywh_to_xyxy(one[None]) * scale for one in (predicted, truth))
                label = queries.labels[image, query][None]
                target = (label, bbox_overlaps(corners, gt_corners, is_aligned=True)) if quality else label
                score = scores[layer, image, query][None]
                expected["loss_cls"] += head.loss_cls(score, target, reduction_override="none").sum()
                expected["loss_bbox"] += head.loss_bbox(predicted, truth, reduction_override="none").sum()
                expected["loss_iou"] += head.loss_iou(corners, gt_corners, reduction_override="none").sum()
        for name, value in expected.items():
            assert torch.allclose(losses[prefix + name], value / 6, rtol=1e-5), name


def test_losses_without_positives_are_zero_and_connected():
    head = SimpleNamespace(loss_cls=FocalLoss(), loss_bbox=L1Loss(), loss_iou=GIoULoss(), num_classes=3)
    queries = pad_positives([positives(0), positives(0)], SIZES, 300)
    scores = torch.randn(1, 2, 1, 3, requires_grad=True)
    boxes = (torch.rand(1, 2, 1, 4) * 0.5 + 0.2).requires_grad_()
    losses = query_losses(head, scores, boxes, queries, SIZES)
    assert all(value == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert not scores.grad.any()
    assert not boxes.grad.any()


def test_a_decoder_that_changes_the_number_of_queries():
    queries = pad_positives([positives(2)], SIZES[:1], 300)
    with pytest.raises(RuntimeError, match="does it change their number"):
        query_losses(None, torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 4), queries, SIZES[:1])


@pytest.mark.parametrize(("finer", "coarser"), [(0, 1), (2, 2), (0, 0)])
def test_pyramid(finer, coarser):
    adapter = MultiScaleAdapter(32, coarser, finer)
    adapter.init_weights()
    shapes = [(8, 12)] if finer else [(8, 12), (4, 6)]
    memory = torch.randn(2, sum(h * w for h, w in shapes), 32)
    maps = adapter(memory, shapes)
    heights = [8 * 2**level for level in range(finer, 0, -1)] + [h for h, _ in shapes]
    heights += [shapes[-1][0] // 2**level for level in range(1, coarser + 1)]
    assert [level.shape[2] for level in maps] == heights
    start = 0
    for level, (height, width) in zip(maps[finer:], shapes):
        part = memory[:, start : start + height * width]
        start += height * width
        assert torch.equal(level.flatten(2).transpose(1, 2), part)  # the memory itself
