"""AscendMaxIoU: the batched form against plain loops and against MaxIoU image by image."""

import pytest
import torch
from mmengine.structures import InstanceData

import visdet_assigners as va
from scenes import anchors, drawn_objects, proposals
from visdet_assigners import AscendMaxIoUAssigner, MaxIoUAssigner

SETTINGS = {
    "retinanet": dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
    "ssd": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, gt_max_assign_all=False),
    "rpn-band": dict(pos_iou_thr=0.7, neg_iou_thr=(0.1, 0.3), min_pos_iou=0.3),
    "rcnn": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
}
every_setting = pytest.mark.parametrize("setting", SETTINGS)
SCENES = [objects for objects in drawn_objects() if objects.image == (240, 320)]


def plain(iou, valid, pos_iou_thr, neg_iou_thr, min_pos_iou, gt_max_assign_all=True, match_low_quality=True):
    """mmdet 2's rule for one image as loops: masks, best overlaps, and matched object where positive."""
    low, high = neg_iou_thr if isinstance(neg_iou_thr, tuple) else (0, neg_iou_thr)
    rows = [[value if ok else -1.0 for value in row] for row, ok in zip(iou.tolist(), valid.tolist())]
    best = [max(row) for row in rows]
    matched = [row.index(max(row)) if max(row) >= pos_iou_thr else None for row in rows]
    for gt in range(iou.shape[1]) if match_low_quality else ():
        top = max(row[gt] for row in rows)
        takers = [prior for prior, row in enumerate(rows) if row[gt] == top and top > 0 and top >= min_pos_iou]
        for prior in takers if gt_max_assign_all else takers[:1]:
            matched[prior] = gt
    negative = [matched[i] is None and low <= value < high for i, value in enumerate(best)]
    return matched, negative, best


def padded_batch(count=6, num_gts=64):
    """Images of a batch padded with mmdet 2's box far outside."""
    chosen = SCENES[:count]
    priors = torch.stack([proposals(objects, 150, seed=3) for objects in chosen])
    gts = torch.tensor([-1354.0, -1344.0, -1354.0, -1344.0]).repeat(count, num_gts, 1)
    labels = torch.zeros(count, num_gts, dtype=torch.long)
    for image, objects in enumerate(chosen):
        gts[image, : len(objects.boxes)] = objects.boxes
        labels[image, : len(objects.boxes)] = objects.labels
    valid = torch.rand(count, 150, generator=torch.Generator().manual_seed(0)) < 0.9
    return chosen, priors, gts, labels, valid


@every_setting
def test_the_rule_as_plain_loops(setting):
    chosen, priors, gts, labels, valid = padded_batch()
    assigner = AscendMaxIoUAssigner(**SETTINGS[setting])
    result = assigner.assign(
        batch_bboxes=priors, batch_gt_bboxes=gts, batch_gt_labels=labels, batch_bboxes_ignore_mask=valid.int(),
        batch_num_gts=[len(objects.boxes) for objects in chosen],
    )  # fmt: skip
    assert result.batch_pos_mask.dtype == result.batch_neg_mask.dtype == torch.int32
    assert result.batch_pos_mask.shape == result.batch_anchor_gt_indes.shape == (6, 150)
    assert result.batch_anchor_gt_indes.min() >= 0
    for image in range(6):
        iou = assigner.iou_calculator(priors[image], gts[image])
        matched, negative, best = plain(iou, valid[image], **SETTINGS[setting])
        positive = torch.tensor([gt is not None for gt in matched])
        index = torch.tensor([gt for gt in matched if gt is not None], dtype=torch.long)
        assert result.batch_pos_mask[image].bool().tolist() == positive.tolist()
        assert result.batch_neg_mask[image].bool().tolist() == negative
        assert torch.equal(result.batch_max_overlaps[image], torch.tensor(best))
        assert torch.equal(result.batch_anchor_gt_indes[image][positive], index)
        assert torch.equal(result.batch_anchor_gt_labels[image][positive], labels[image][index])
    assert result.batch_pos_mask.sum() > 50


@every_setting
@pytest.mark.parametrize("with_regions", [False, True])
def test_lists_of_images_equal_max_iou_one_by_one(setting, with_regions):
    config = dict(**SETTINGS[setting], ignore_iof_thr=0.5)
    scenes = [*SCENES, next(objects for objects in drawn_objects() if objects.name == "empty")]
    preds = [
        InstanceData(priors=proposals(objects, 20 + 10 * number, seed=number)) for number, objects in enumerate(scenes)
    ]
    ignores = [objects.ignore if with_regions else None for objects in scenes]
    together = AscendMaxIoUAssigner(**config).assign(preds, [objects.instances for objects in scenes], ignores)
    assert len(together) == len(scenes)
    for result, objects, pred, ignore in zip(together, scenes, preds, ignores):
        alone = MaxIoUAssigner(**config).assign(pred, objects.instances, ignore)
        assert torch.equal(result.gt_inds, alone.gt_inds)
        assert torch.equal(result.labels, alone.labels)
        assert torch.equal(result.max_overlaps, alone.max_overlaps)


@every_setting
def test_one_image_equals_max_iou(setting):
    objects = SCENES[2]
    pred = InstanceData(priors=anchors(objects)[0])
    mine = AscendMaxIoUAssigner(**SETTINGS[setting]).assign(pred, objects.instances)
    assert torch.equal(mine.gt_inds, MaxIoUAssigner(**SETTINGS[setting]).assign(pred, objects.instances).gt_inds)


def test_shapes_are_named():
    with pytest.raises(ValueError, match=r"batch_gt_bboxes must have shape \(images, boxes, 4\)"):
        AscendMaxIoUAssigner(0.5, 0.4).assign(torch.zeros(2, 5, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"lists of different lengths: \[2, 1\]"):
        AscendMaxIoUAssigner(0.5, 0.4).assign([InstanceData(priors=torch.zeros(1, 4))] * 2, [SCENES[0].instances])
    assert AscendMaxIoUAssigner(0.5, 0.4).assign([], []) == []


def test_repeated_boxes_are_spread_in_single_images_alone():
    assigner = AscendMaxIoUAssigner(0.5, 0.4, perm_repeat_gt_cfg=dict(iou_thr=0.7))
    with pytest.raises(ValueError, match=r"^AscendMaxIoUAssigner: perm_repeat_gt_cfg is for single images"):
        assigner.assign(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))


@pytest.mark.parametrize(
    ("gts", "said"),
    [
        (torch.zeros(2, 4), r"batch_gt_bboxes must have shape \(images, boxes, 4\), got \(2, 4\)"),
        (torch.zeros(1, 2, 5), r"batch_gt_bboxes must have shape \(images, boxes, 4\), got \(1, 2, 5\)"),
        ([[1.0]], "batch_gt_bboxes must be a tensor, got list"),
        (torch.zeros(3, 2, 4), "different numbers of images: .*'batch_bboxes': 1, 'batch_gt_bboxes': 3"),
    ],
)
def test_what_was_given_in_place_of_a_padded_batch(gts, said):
    with pytest.raises(va.AssignerInputError, match=said):
        AscendMaxIoUAssigner(0.5, 0.4).assign_padded(torch.zeros(1, 2, 4), gts)


PRIORS = torch.tensor([[[0.0, 0, 9, 9], [50, 50, 60, 60]]]).repeat(2, 1, 1)
GTS = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 0, 0]], [[50.0, 50, 60, 61], [0, 0, 9, 9]]])


@pytest.mark.parametrize("way", ["0", "1"])
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([[3, 7], [-1, 2]]), r"batch_gt_labels\[1, 0\] is -1; classes are counted from 0"),
        (torch.tensor([[3, 7], [1, 1.5]]), r"batch_gt_labels\[1, 1\] is 1.5; a whole number is expected"),
        (torch.tensor([[[3], [7]], [[1], [2]]]), r"batch_gt_labels must have shape \(2, 2\), .*, got \(2, 2, 1\)"),
        (torch.tensor([[3], [1]]), r"batch_gt_labels must have shape \(2, 2\), one for each box, got \(2, 1\)"),
        ([[3, 7], [1, 2]], "batch_gt_labels must be a tensor, got list"),
    ],
)
def test_labels_of_a_padded_batch(labels, said, way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    assigner = AscendMaxIoUAssigner(0.5, 0.4, on_nonfinite="raise")
    with pytest.raises(va.AssignerInputError, match=rf"^AscendMaxIoUAssigner: {said}"):
        assigner.assign(PRIORS, GTS, None, labels)


@pytest.mark.parametrize("padding", [-1, 99])
def test_labels_of_padding_are_not_looked_at(padding):
    result = AscendMaxIoUAssigner(0.5, 0.4).assign(PRIORS, GTS, None, torch.tensor([[3, padding], [1, 2]]))
    assert result.batch_pos_mask.tolist() == [[1, 0], [1, 1]]
    assert result.batch_anchor_gt_labels.tolist() == [[3, 3], [2, 1]]


def test_a_padded_batch_without_objects_or_priors():
    regions, labels = torch.tensor([[[40.0, 40, 70, 70]]]).repeat(2, 1, 1), torch.zeros(2, 0)
    assigner = AscendMaxIoUAssigner(0.5, 0.4, ignore_iof_thr=0.5)
    result = assigner.assign(PRIORS, GTS[:, :0], regions, labels, batch_num_gts=[0, 0])
    assert result.batch_pos_mask.sum() == 0
    assert result.batch_neg_mask.tolist() == [[1, 0]] * 2
    assert result.batch_max_overlaps.tolist() == [[0, -1]] * 2
    assert result.batch_anchor_gt_labels.shape == result.batch_anchor_gt_indes.shape == (2, 2)
    assert assigner.assign(PRIORS[:, :0], GTS).batch_neg_mask.shape == (2, 0)


def test_priors_that_are_not_valid_may_hold_anything():
    priors = PRIORS.clone()
    priors[0, 1] = torch.tensor([9.0, 9, 0, float("nan")])
    with pytest.raises(va.AssignerInputError, match=r"batch_bboxes\[0, 1, 3\] is nan"):
        AscendMaxIoUAssigner(0.5, 0.4).assign(priors, GTS)
    valid = torch.tensor([[1, 0], [1, 1]])
    result = AscendMaxIoUAssigner(0.5, 0.4).assign(priors, GTS, batch_bboxes_ignore_mask=valid)
    assert result.batch_pos_mask.tolist() == [[1, 0], [1, 1]]
    with pytest.raises(va.AssignerInputError, match=r"batch_bboxes_ignore_mask must have shape \(2, 2\)"):
        AscendMaxIoUAssigner(0.5, 0.4).assign(priors, GTS, batch_bboxes_ignore_mask=valid[:1])


@pytest.mark.parametrize("with_valid", [True, False])
def test_regions_and_priors_that_do_not_count(with_valid):
    """The first prior lies on the object, the second too but doesn't count, the third lies in a region."""
    priors = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]])
    gts, regions = torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[[15.0, 15, 35, 35]]])
    valid = torch.tensor([[1.0, 0, 1, 1]]) if with_valid else None
    result = AscendMaxIoUAssigner(0.5, 0.4, ignore_iof_thr=0.5).assign(priors, gts, regions, None, valid)
    assert result.batch_pos_mask.tolist() == [[1, 0 if with_valid else 1, 0, 0]]
    assert result.batch_neg_mask.tolist() == [[0, 0, 0, 1]]
