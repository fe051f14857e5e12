"""The tap records what any detector's assigners decide, and leaves no trace."""

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmengine.structures import InstanceData
from torch import nn

from detectors import batch, build_detector
from visdet_assigners.assignment import IGNORED, NEGATIVE
from visdet_assigners.observe.tap import find_assigners, record_assignments, tap

# Config, names of its assigners, calls of each for one image, epoch.
DETECTORS = {
    "atss/atss_r50_fpn_1x_coco.py": (["bbox_head.assigner"], 1, 0),
    "retinanet/retinanet_r50_fpn_1x_coco.py": (["bbox_head.assigner"], 1, 0),
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": (["rpn_head.assigner", "roi_head.bbox_assigner"], 1, 0),
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py": (
        ["rpn_head.assigner", *(f"roi_head.bbox_assigner[{stage}]" for stage in range(3))],
        1,
        0,
    ),
    "yolox/yolox_tiny_8xb8-300e_coco.py": (["bbox_head.assigner"], 1, 0),
    "tood/tood_r50_fpn_1x_coco.py": (["bbox_head.alignment_assigner"], 1, 4),
    "yolof/yolof_r50-c5_8xb8-1x_coco.py": (["bbox_head.assigner"], 1, 0),
    "detr/detr_r50_8xb2-150e_coco.py": (["bbox_head.assigner"], 6, 0),
    "dino/dino-4scale_r50_8xb2-12e_coco.py": (["bbox_head.assigner"], 7, 0),
}
BOXES = [[[8.0, 8.0, 60.0, 50.0], [70.0, 30.0, 120.0, 90.0], [30.0, 60.0, 42.0, 72.0]], [[20.0, 10.0, 110.0, 80.0]]]


def is_untouched(model):
    return all("assign" not in vars(assigner) for _, _, assigner in find_assigners(model))


@pytest.mark.parametrize("config", DETECTORS)
def test_stock_detectors(config):
    names, calls, epoch = DETECTORS[config]
    model = build_detector(config, epoch)
    images, samples = batch(BOXES)
    with torch.no_grad(), record_assignments(model) as records:
        model.loss(images, samples)
    assert is_untouched(model)

    assert sorted({record.where for record in records}) == sorted(names)
    for name in names:
        mine = [record for record in records if record.where == name]
        assert [record.call for record in mine] == list(range(calls * len(BOXES)))
        assert sorted(record.num_objects for record in mine) == sorted(calls * [len(boxes) for boxes in BOXES])
    for record in records:
        boxes = BOXES[0] if record.num_objects == len(BOXES[0]) else BOXES[1]
        assert record.gt_boxes.tolist() == boxes
        per_prior = [record.gt_index, record.priors, record.pred_boxes, record.quality]
        assert len({len(values) for values in per_prior if values is not None}) == 1
        assert int(record.gt_index.max()) < len(boxes)
        assert int(record.gt_index.min()) >= IGNORED
        assert not any(values.requires_grad for values in per_prior if values is not None)
        assert int(record.positives_per_object().sum()) == int((record.gt_index >= 0).sum())
    last = [record for record in records if record.where == names[-1]]
    if "HungarianAssigner" in last[0].assigner:
        assert all((record.positives_per_object() == 1).all() for record in last)
    if record.level_sizes is not None:
        assert sum(record.level_sizes) == len(record.gt_index)


def test_a_record_holds_what_the_assigner_decides():
    model = build_detector("atss/atss_r50_fpn_1x_coco.py")
    images, samples = batch(BOXES)
    with torch.no_grad(), record_assignments(model) as records:
        model.loss(images, samples)
    assert not records[0].reads_predictions
    for record, boxes in zip(records, BOXES):
        truths = InstanceData(bboxes=torch.tensor(boxes), labels=torch.arange(len(boxes)))
        result = model.bbox_head.assigner.assign(InstanceData(priors=record.priors), list(record.level_sizes), truths)
        assert (record.gt_index == torch.where(result.gt_inds > 0, result.gt_inds - 1, NEGATIVE)).all()
        assert (record.quality == result.max_overlaps).all()
        assert (record.positives_per_object() > 0).any()


def test_each_assigner_of_a_list_is_recorded_as_itself():
    model = build_detector("cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py")
    images, samples = batch(BOXES)
    with torch.no_grad(), record_assignments(model) as records:
        model.loss(images, samples)
    assigners = {assigner.pos_iou_thr: f"bbox_assigner[{i}]" for i, assigner in enumerate(model.roi_head.bbox_assigner)}
    assert len(assigners) == 3
    for threshold, attribute in assigners.items():
        for record in records:
            if record.attribute == attribute:
                assert (record.quality[record.gt_index >= 0] >= threshold).all()
                assert (record.quality[record.gt_index == NEGATIVE] < threshold).all()


class Threshold:
    """An assigner that gives every prior above a threshold to the first object; mutates nothing."""

    def __init__(self, threshold=0.5):
        self.threshold = threshold

    def assign(self, pred_instances, gt_instances, gt_instances_ignore=None, **kwargs):
        score = pred_instances.priors[:, 0]
        gt_inds = torch.where(score > self.threshold, 1, torch.where(score < 0, -1, 0))
        return AssignResult(len(gt_instances), gt_inds, score.clone(), labels=None)


class Head(nn.Module):
    """Calls its assigners by position and by name, and writes into everything afterwards, as heads and samplers do."""

    def __init__(self):
        super().__init__()
        self.assigner = Threshold()
        self.others = (Threshold(0.1), None, Threshold(0.9))
        self.config = {"assign": 1}
        self.by_name = True

    def loss(self, scores, fail=False):
        predicted = InstanceData(priors=torch.tensor(scores).reshape(-1, 1).repeat(1, 4))
        truths = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0]]), labels=torch.tensor([2]))
        ignored = InstanceData(bboxes=torch.tensor([[4.0, 4.0, 9.0, 9.0]]))
        results = []
        for assigner in (self.assigner, self.others[0], self.others[2]):
            if self.by_name:
                result = assigner.assign(
                    gt_instances_ignore=ignored, gt_instances=truths, pred_instances=predicted, num_level_priors=[1, 2]
                )
            else:
                result = assigner.assign(predicted, truths, ignored)
            results.append(result.gt_inds.clone())
            if fail:
                raise RuntimeError("loss")
            result.gt_inds.fill_(7)
            result.max_overlaps.fill_(7)
        predicted.priors.fill_(7)
        truths.bboxes.fill_(7)
        return results


@pytest.mark.parametrize("by_name", [True, False])
def test_records_are_copies_however_the_head_passes_its_arguments(by_name):
    head = Head()
    head.by_name = by_name
    with record_assignments(head) as records:
        results = head.loss([0.3, 0.6, -1.0])
    assert [result.tolist() for result in results] == [[0, 1, -1], [1, 1, -1], [0, 0, -1]]
    assert [record.gt_index.tolist() for record in records] == [
        [NEGATIVE, 0, IGNORED],
        [0, 0, IGNORED],
        [NEGATIVE, NEGATIVE, IGNORED],
    ]
    assert [record.where for record in records] == ["assigner", "others[0]", "others[2]"]
    for record in records:
        assert record.gt_boxes.tolist() == [[0, 0, 8, 8]]
        assert record.gt_labels.tolist() == [2]
        assert record.ignored_boxes.tolist() == [[4, 4, 9, 9]]
        assert record.priors[:, 0].tolist() == pytest.approx([0.3, 0.6, -1.0])
        assert record.quality.tolist() == pytest.approx([0.3, 0.6, -1.0])
        assert record.level_sizes == ((1, 2) if by_name else None)
        assert record.pred_boxes is None


def test_the_tap_goes_away_also_through_an_exception():
    head = Head()
    records = []
    with pytest.raises(RuntimeError, match="loss"), tap(head, records.append):
        head.loss([0.6], fail=True)
    assert len(records) == 1
    assert is_untouched(head)
    head.loss([0.6])
    assert len(records) == 1


def test_taps_nest():
    head = Head()
    with record_assignments(head) as outer:
        head.loss([0.6])
        with record_assignments(head) as inner:
            head.loss([0.6])
        head.loss([0.6])
    assert (len(outer), len(inner)) == (9, 3)
    assert [record.call for record in outer if record.where == "assigner"] == [0, 1, 2]
    assert is_untouched(head)


def test_what_is_no_assigner_is_left_alone():
    class AssigningModule(nn.Module):
        def assign(self):
            return None

    head = Head()
    head.part = AssigningModule()
    head.loose = [AssigningModule(), Threshold, "assign"]
    head.same = head.assigner
    found = [attribute for _, attribute, _ in find_assigners(head)]
    assert found == ["assigner", "others[0]", "others[2]"]


def test_a_wrong_call_gives_the_assigners_own_error():
    head = Head()
    with record_assignments(head) as records, pytest.raises(TypeError, match="gt_instances"):
        head.assigner.assign(InstanceData(priors=torch.zeros(1, 4)))
    assert records == []


def test_raw_tensors():
    # as DDQ DETR's auxiliary loss calls its assigner
    from mmdet.models.task_modules.assigners import TopkHungarianAssigner

    head = nn.Module()
    head.assigner = TopkHungarianAssigner(
        cls_cost={"type": "mmdet.FocalLossCost"},
        reg_cost={"type": "mmdet.BBoxL1Cost"},
        iou_cost={"type": "mmdet.IoUCost"},
        iou_calculator={"type": "mmdet.BboxOverlaps2D"},
        topk=2,
    )
    boxes = torch.tensor([[0.0, 0, 8, 8], [1.0, 1, 9, 9], [40.0, 40, 60, 60]])
    with record_assignments(head) as records:
        head.assigner.assign(torch.full((3, 4), 0.5), boxes, boxes[:1], torch.tensor([3]), {"img_shape": (64, 64)})
    (record,) = records
    assert record.gt_index.tolist() == [0, 0, NEGATIVE]
    assert record.gt_boxes.tolist() == boxes[:1].tolist()
    assert record.gt_labels.tolist() == [3]
    assert record.pred_boxes.tolist() == boxes.tolist()
    assert record.priors is None
    assert record.quality is None  # this assigner gives overlaps of the matched alone
    assert record.reads_predictions
