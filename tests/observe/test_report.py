"""The report keeps what belongs to each assigner, layer and image."""

import torch

from visdet_assigners.assignment import NEGATIVE
from visdet_assigners.observe.records import AssignmentRecord, ImageInfo
from visdet_assigners.observe.report import Report

BOXES = torch.tensor([[0.0, 0.0, 20.0, 20.0], [30.0, 30.0, 90.0, 90.0]])


def query_record(queries, layer):
    gt_index = torch.full((5,), NEGATIVE)
    gt_index[queries] = torch.arange(2)
    predicted = BOXES.repeat(3, 1)[:5]
    where = ("bbox_head", "assigner", "HungarianAssigner", layer)
    return AssignmentRecord(
        *where, gt_index, BOXES, torch.tensor([0, 0]), pred_boxes=predicted, repeat=layer, image=ImageInfo(0, 7)
    )


def test_calls_after_the_decoder_are_the_encoders_and_left_out():
    records = [query_record([0, 1], 0), query_record([0, 3], 1), query_record([2, 1], 2)]
    for decoder_layers, changes in ((2, [0.5]), (None, [0.5, 1.0])):
        report = Report("a title", ["cat", "dog"], decoder_layers)
        report.add(0, "a.jpg", records, torch.tensor([1, 0]))
        section = report.as_json()["assigners"]["bbox_head.assigner"]
        assert section["layer_changes"] == changes
        assert section["layer_quality"][0] == 1
        assert section["objects"] == 2
        assert [row["class"] for row in section["by_class"]] == ["cat", "dog"]  # of the image, not of the assigner


def test_objects_without_a_positive_come_first_and_are_escaped():
    record = AssignmentRecord("head", "assigner", "AnAssigner", 0, torch.tensor([0]), BOXES, torch.tensor([0, 1]))
    full = AssignmentRecord("head", "assigner", "AnAssigner", 1, torch.tensor([0, 1]), BOXES, torch.tensor([0, 1]))
    report = Report("<b>", ["cat", "dog<script>"])
    report.add(3, "full.jpg", [full])
    report.add(5, "lost<i>.jpg", [record])
    assert report.to_show("head.assigner", 1) == [5]
    (lost,) = report.without_positives("head.assigner")
    assert (lost["image"], lost["object"], lost["class"], lost["size"]) == ("lost<i>.jpg", 1, "dog<script>", 60)
    page = report.html()
    assert "<script>" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;" in page
