"""The tap records what any detector's assigners decide, and leaves no trace.

A test for each kind of head, hence the length.
"""

from dataclasses import dataclass

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmengine.structures import InstanceData
from torch import nn

from detectors import HEIGHT, WIDTH, batch, build_detector
from visdet_assigners import AscendMaxIoUAssigner, MultiInstanceAssigner
from visdet_assigners.assignment import IGNORED, NEGATIVE
from visdet_assigners.observe.records import AssignmentRecord, ImageInfo
from visdet_assigners.observe.tap import find_assigners, record_assignments, tap, watch

LARGE = (384, 384)  # 3 x 3 points in the coarsest level, the least for a deformable convolution


@dataclass(frozen=True)
class Stock:
    """A stock detector: config, its assigners in order of their calls, and how often each looks at an image."""

    config: str
    names: tuple[str, ...]
    repeats: int = 1
    epoch: int = 0
    num_classes: int = 80
    shape: tuple[int, int] = (HEIGHT, WIDTH)
    masks: bool = True


BBOX_HEAD = ("bbox_head.assigner",)
RPN = "rpn_head.assigner"
DETECTORS = {
    "atss": Stock("atss/atss_r50_fpn_1x_coco.py", BBOX_HEAD),
    "retinanet": Stock("retinanet/retinanet_r50_fpn_1x_coco.py", BBOX_HEAD),
    "faster_rcnn": Stock("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", (RPN, "roi_head.bbox_assigner")),
    "cascade_rcnn": Stock(
        "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
        (RPN, *(f"roi_head.bbox_assigner[{stage}]" for stage in range(3))),
    ),
    "crowddet": Stock(
        "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py", (RPN, "roi_head.bbox_assigner"), num_classes=1
    ),
    "yolox": Stock("yolox/yolox_tiny_8xb8-300e_coco.py", BBOX_HEAD),
    "rtmdet": Stock("rtmdet/rtmdet_tiny_8xb32-300e_coco.py", BBOX_HEAD, masks=False),
    "tood": Stock("tood/tood_r50_fpn_1x_coco.py", ("bbox_head.alignment_assigner",), epoch=4),
    "yolof": Stock("yolof/yolof_r50-c5_8xb8-1x_coco.py", BBOX_HEAD),
    "fsaf": Stock("fsaf/fsaf_r50_fpn_1x_coco.py", BBOX_HEAD),
    "yolo": Stock("yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py", BBOX_HEAD),
    "reppoints": Stock(
        "reppoints/reppoints-moment_r50_fpn_1x_coco.py",
        ("bbox_head.init_assigner", "bbox_head.refine_assigner"),
        shape=LARGE,
    ),
    "detr": Stock("detr/detr_r50_8xb2-150e_coco.py", BBOX_HEAD, 6),
    "deformable_detr": Stock("deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", BBOX_HEAD, 6),
    "dino": Stock("dino/dino-4scale_r50_8xb2-12e_coco.py", BBOX_HEAD, 7),
    "mask2former": Stock("mask2former/mask2former_r50_8xb2-lsj-50e_coco.py", ("panoptic_head.assigner",), 10),
}
BOXES = [[[8.0, 8.0, 60.0, 50.0], [70.0, 30.0, 120.0, 90.0], [30.0, 60.0, 42.0, 72.0]], [[20.0, 10.0, 110.0, 80.0]]]


def is_untouched(model):
    return not any(
        name in vars(holder)
        for holder in [*model.modules(), *(assigner for _, _, assigner in find_assigners(model))]
        for name in ("assign", "assign_batch", "loss")
    )


SLOW = {"cascade_rcnn", "crowddet", "reppoints"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in DETECTORS]
)
def test_stock_detectors(name):
    stock = DETECTORS[name]
    model = build_detector(stock.config, stock.epoch)
    images, samples = batch(BOXES, stock.shape, stock.num_classes)
    for number, sample in enumerate(samples):
        sample.set_metainfo({"img_id": 40 + number, "img_path": f"{number}.jpg"})
        if not stock.masks:
            del sample.gt_instances.masks
    before = [sorted(sample.metainfo_keys()) for sample in samples]
    with torch.no_grad(), record_assignments(model) as records:
        model.loss(images, samples)
    assert is_untouched(model)
    assert [sorted(sample.metainfo_keys()) for sample in samples] == before
    assert not any(sample.gt_instances.metainfo_keys() for sample in samples)

    assert sorted({record.where for record in records}) == sorted(stock.names)
    expected = [ImageInfo(number, 40 + number, f"{number}.jpg", stock.shape) for number in range(len(BOXES))]
    for where in stock.names:
        mine = [record for record in records if record.where == where]
        assert [record.call for record in mine] == list(range(stock.repeats * len(BOXES)))
        asked = sorted((record.image.index, record.repeat) for record in mine)
        assert asked == [(image, repeat) for image in range(len(BOXES)) for repeat in range(stock.repeats)]
    for record in records:
        boxes = BOXES[record.image.index]
        assert record.image == expected[record.image.index]
        assert record.num_objects == len(boxes)
        assert record.gt_boxes is None or record.gt_boxes.tolist() == boxes
        per_prior = [record.gt_index, record.priors, record.pred_boxes, record.quality]
        assert len({len(values) for values in per_prior if values is not None}) == 1
        assert int(record.gt_index.max()) < len(boxes)
        assert int(record.gt_index.min()) >= IGNORED
        assert not any(values.requires_grad for values in per_prior if values is not None)
        assert int(record.positives_per_object().sum()) == int((record.gt_index >= 0).sum())
        if "HungarianAssigner" in record.assigner:
            assert (record.positives_per_object() == 1).all()
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


def test_taps_may_end_in_any_order():
    head = Head()
    first, second = record_assignments(head), record_assignments(head)
    early, late = first.__enter__(), second.__enter__()
    head.loss([0.6])
    first.__exit__(None, None, None)
    head.loss([0.6])
    assert (len(early), len(late)) == (3, 6)
    second.__exit__(None, None, None)
    assert is_untouched(head)


def test_a_method_of_the_object_itself_comes_back():
    head = Head()
    own = head.assigner.assign
    head.assigner.assign = own
    with record_assignments(head) as records:
        head.loss([0.6])
    assert len(records) == 3
    assert vars(head.assigner)["assign"] is own


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


# CrowdHuman's regions have no class; COCO's have one, and are then taken for objects, which are none of the record's.
@pytest.mark.parametrize(("label", "in_the_crowd"), [(-1, [IGNORED, NEGATIVE]), (3, [NEGATIVE, NEGATIVE])])
def test_a_prior_that_stands_for_several_objects(label, in_the_crowd):
    head = nn.Module()
    head.assigner = MultiInstanceAssigner(2, pos_iou_thr=0.5, neg_iou_thr=0.5)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0]])
    priors = torch.tensor([[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 18.0], [50.0, 50.0, 60.0, 60.0]])
    crowd = torch.tensor([[48.0, 48.0, 90.0, 90.0]])
    with record_assignments(head) as records:
        head.assigner.assign(
            InstanceData(priors=priors),
            InstanceData(bboxes=boxes, labels=torch.tensor([0, 0])),
            InstanceData(bboxes=crowd, labels=torch.tensor([label])),
        )
    (record,) = records
    # IoU .9 and .89; .56 and .44; in the crowd.  The three boxes themselves follow.
    assert record.gt_index[:3].tolist() == [[0, 1], [0, NEGATIVE], in_the_crowd]
    assert record.gt_index[5].tolist() == [IGNORED, NEGATIVE]  # the region itself
    assert record.gt_index.shape == record.quality.shape == (6, 2)
    assert record.priors.tolist() == torch.cat([priors, boxes, crowd]).tolist()
    assert record.positives_per_object().tolist() == [
        int((record.gt_index == 0).sum()), int((record.gt_index == 1).sum())
    ]  # fmt: skip
    assert record.positives_per_object().tolist() == [4, 3]


class BatchThreshold(Threshold):
    """Assigns lists of images, in a loop over its own ``assign``."""

    def assign_batch(self, pred_list, gt_list, ignore_list=None, img_metas=None, num_level_priors=None):
        return [self.assign(pred, gt, num_level_priors=num_level_priors) for pred, gt in zip(pred_list, gt_list)]


def test_a_batch_is_recorded_image_by_image_and_once():
    head = nn.Module()
    head.assigner = BatchThreshold()
    priors = [torch.tensor([[0.9] * 4, [0.1] * 4]), torch.tensor([[0.2] * 4, [0.8] * 4])]
    truths = [InstanceData(bboxes=torch.full((1, 4), float(image)), labels=torch.tensor([image])) for image in (3, 4)]
    with record_assignments(head) as records:
        head.assigner.assign_batch(
            [InstanceData(priors=values) for values in priors],
            truths,
            img_metas=[{"img_path": "a.jpg"}, {"img_path": "b.jpg"}],
            num_level_priors=[1, 1],
        )
        head.assigner.assign(InstanceData(priors=priors[0]), truths[0])
    assert [record.call for record in records] == [0, 1, 2]
    assert [record.gt_index.tolist() for record in records] == [[0, NEGATIVE], [NEGATIVE, 0], [0, NEGATIVE]]
    assert [record.gt_labels.tolist() for record in records] == [[3], [4], [3]]
    assert [record.level_sizes for record in records] == [(1, 1), (1, 1), None]
    assert [record.priors.tolist() for record in records[:2]] == [values.tolist() for values in priors]


@pytest.mark.parametrize("padded", [True, False])
def test_a_batch_in_static_shapes(padded):
    head = nn.Module()
    head.assigner = AscendMaxIoUAssigner(0.5, 0.4)
    priors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 8.0, 16.0, 16.0], [0.0, 0.0, 8.0, 18.0]])
    boxes = [torch.tensor([[8.0, 8.0, 16.0, 15.0]]), torch.tensor([[40.0, 40.0, 50.0, 50.0], [0.0, 0.0, 8.0, 8.0]])]
    labels = [torch.tensor([5]), torch.tensor([6, 7])]
    with record_assignments(head) as records:
        if padded:
            pad = torch.nn.utils.rnn.pad_sequence
            head.assigner.assign(priors.repeat(2, 1, 1), pad(boxes, True), None, pad(labels, True))
        else:
            head.assigner.assign(
                [InstanceData(priors=priors)] * 2,
                [InstanceData(bboxes=box, labels=label) for box, label in zip(boxes, labels)],
            )
    assert [record.gt_index.tolist() for record in records] == [
        [NEGATIVE, 0, NEGATIVE],
        [1, NEGATIVE, IGNORED],  # IoU .44 lies between the thresholds
    ]
    assert [record.gt_labels.tolist() for record in records] == [[5], [6, 7]]
    assert [record.gt_boxes.tolist() for record in records] == [box.tolist() for box in boxes]
    assert not any(record.reads_predictions for record in records)


def test_assigners_in_a_dictionary():
    head = nn.Module()
    head.assigners = {"near": Threshold(0.1), "far": Threshold(0.9)}
    assert [attribute for _, attribute, _ in find_assigners(head)] == ["assigners['near']", "assigners['far']"]


def test_assigners_of_a_teacher_that_is_no_registered_part():
    """mmdet's distilled detectors hide their teacher from ``parameters``; LAD learns from what its teacher assigns."""
    student = Head()
    teacher = nn.Module()
    teacher.head = Head()
    teacher.same = student
    vars(student)["teacher_model"] = teacher
    places = [f"{module}.{attribute}" for module, attribute, _ in find_assigners(student)]
    own = ["assigner", "others[0]", "others[2]"]
    assert places == [f"{module}.{attribute}" for module in ("", "teacher_model.head") for attribute in own]
    with record_assignments(student) as records:
        teacher.head.loss([0.6])
    assert [record.where for record in records] == [f"teacher_model.head.{attribute}" for attribute in own]


def test_classes_of_the_image_for_an_assigner_that_sees_one():
    fields = dict(module="", attribute="assigner", assigner="A", call=0, gt_index=torch.tensor([0, 1]))
    labels = torch.tensor([5, 7])
    sees_one = AssignmentRecord(**fields, gt_labels=torch.tensor([0, 0]))
    assert sees_one.with_labels(labels).gt_labels.tolist() == [5, 7]
    assert AssignmentRecord(**fields).with_labels(labels).gt_labels.tolist() == [5, 7]
    assert sees_one.with_labels(torch.tensor([5])) is sees_one  # of other objects
    own = AssignmentRecord(**fields, gt_labels=torch.tensor([7, 5]))
    assert own.with_labels(labels) is own


def test_calls_come_as_they_are():
    head = Head()
    calls = []
    with watch(head, calls.append):
        head.loss([0.6])
    assert [call.assigner for call in calls] == [head.assigner, head.others[0], head.others[2]]
    assert calls[0].result.gt_inds.tolist() == [7]  # the object itself, which the head wrote into afterwards


def test_images_start_afresh_in_each_step():
    model = build_detector("retinanet/retinanet_r50_fpn_1x_coco.py")
    images, samples = batch(BOXES)
    with torch.no_grad(), record_assignments(model) as outer, record_assignments(model) as inner:
        model.loss(images, samples)
        model.loss(images[1:], samples[1:])
    for records in (outer, inner):
        assert [(record.image.index, record.repeat) for record in records] == [(0, 0), (1, 0), (0, 0)]
        assert records[2].gt_boxes.tolist() == BOXES[1]
    assert is_untouched(model)


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
