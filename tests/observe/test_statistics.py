"""Numbers over many assignments, on assignments made by hand."""

import json
import math

import numpy as np
import pytest
import torch

from visdet_assigners.assignment import IGNORED, NEGATIVE
from visdet_assigners.observe.records import AssignmentRecord
from visdet_assigners.observe.statistics import (
    ObjectTable,
    PriorCounts,
    count_contested,
    instability,
    layer_changes,
    level_names,
    levels_by_size,
    match_quality,
    positives_by_size,
    queries_of,
    size_edges,
    summarize,
)
from visdet_assigners.observe.verdict import findings


def make_record(gt_index, gt_boxes, labels=None, **fields):
    boxes = torch.tensor(gt_boxes, dtype=torch.float).reshape(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else torch.tensor(labels)
    where = ("head", "assigner", fields.pop("assigner", "AnAssigner"), 0)
    return AssignmentRecord(*where, torch.tensor(gt_index), boxes, labels, **fields)


def square(size, x=0.0, y=0.0):
    return [x, y, x + size, y + size]


def grid(stride, columns, rows=1):
    x = torch.arange(columns).repeat(rows) * float(stride) + stride / 2
    y = torch.arange(rows).repeat_interleave(columns) * float(stride) + stride / 2
    return torch.stack([x - 4 * stride, y - 4 * stride, x + 4 * stride, y + 4 * stride], dim=1)


# Two levels: 4 anchors of stride 8 and 2 of stride 16.
PRIORS = torch.cat([grid(8, 4), grid(16, 2)])


def test_a_row_for_each_object():
    record = make_record(
        [0, NEGATIVE, 0, 2, IGNORED, 0], [square(8), square(16, 100), square(32, 200)], [4, 5, 4],
        priors=PRIORS, quality=torch.tensor([0.5, 0.0, 0.7, 0.9, 0.0, 0.3]), level_sizes=(4, 2),
    )  # fmt: skip
    table = ObjectTable.of([record, record], [7, 8])
    assert table.image.tolist() == [7, 7, 7, 8, 8, 8]
    assert table.number.tolist() == [0, 1, 2, 0, 1, 2]
    assert table.label.tolist() == [4, 5, 4, 4, 5, 4]
    assert table.size.tolist() == pytest.approx([8, 16, 32] * 2)
    assert table.positives.tolist() == [3, 0, 1] * 2
    assert table.quality[[0, 2]].tolist() == pytest.approx([0.5, 0.9])
    assert np.isnan(table.quality[[1, 4]]).all()
    assert table.levels[:3, :2].tolist() == [[2, 1], [0, 0], [1, 0]]
    assert table.levels[:, 2:].sum() == 0
    assert PriorCounts.of([record, record]) == PriorCounts(12, 8, 2, 0)
    assert level_names(record) == ["stride 8", "stride 16"]


def test_levels_are_found_where_the_head_passes_no_sizes():
    priors = torch.cat([grid(8, 8, 8), grid(16, 4, 4)])
    gt_index = [NEGATIVE] * 80
    gt_index[3] = gt_index[70] = 0
    record = make_record(gt_index, [square(20)], priors=priors)
    assert level_names(record) == ["stride 8", "stride 16"]
    assert ObjectTable.of([record], [0]).levels[0, :3].tolist() == [1, 1, 0]


def test_quality_is_the_overlap_where_the_assigner_gives_none():
    boxes = torch.tensor([square(10.0), square(10.0, 5.0), square(4.0, 50.0)])
    record = make_record([0, NEGATIVE, 1], [[0, 0, 10, 5], square(4, 50)], pred_boxes=boxes)
    assert match_quality(record).tolist() == pytest.approx([0.5, 0.0, 1.0])
    assert ObjectTable.of([record], [0]).quality.tolist() == pytest.approx([0.5, 1.0])
    points = torch.tensor([[4.0, 4.0, 8.0]])
    assert match_quality(make_record([0], [square(8)], priors=points)) is None


def test_contested_positives_lie_in_two_objects():
    places = torch.tensor([square(2.0, 4.0, 4.0), square(2.0, 19.0, 4.0), square(2.0, 4.0, 4.0)])
    objects = [square(10), square(8, 2, 2), square(30, 15, 0)]
    assert count_contested(make_record([0, 2, NEGATIVE], objects, priors=places)) == 1


def test_queries_and_instability():
    record = make_record([NEGATIVE, 2, 0, NEGATIVE], [square(8)] * 3)
    assert queries_of(record).tolist() == [2, -1, 1]
    assert queries_of(make_record([NEGATIVE], [])).tolist() == []
    assert instability([[1, 2, 3, 4]], [[1, 2, 4, 3]]) == 0.5
    assert math.isnan(instability([], []))
    layers = [(0, 0, [1, 2]), (0, 1, [5]), (1, 0, [1, 3]), (1, 1, [5]), (2, 0, [1, 3]), (2, 1, [5])]
    assert layer_changes(layers) == [pytest.approx(1 / 3), 0]


def test_positives_by_size():
    record = make_record(
        [0] * 4 + [1] * 6 + [3], [square(8), square(8.5), square(64), square(70)], priors=torch.zeros(11, 4)
    )
    table = ObjectTable.of([record], [0])
    edges = size_edges(table)
    assert edges[0] <= 8
    assert edges[-1] > 70
    rows = positives_by_size(table, edges)
    assert [row["objects"] for row in rows] == [2, 2]
    assert [row["median"] for row in rows] == [5, 0.5]
    assert [row["without"] for row in rows] == [0, 0.5]
    assert (rows[0]["p10"], rows[0]["p90"]) == (pytest.approx(4.2), pytest.approx(5.8))


def test_levels_by_size_are_shares():
    record = make_record([0, 0, 1, NEGATIVE, 0, 1], [square(8), square(64)], priors=PRIORS, level_sizes=(4, 2))
    table = ObjectTable.of([record], [0])
    shares = levels_by_size(table, np.array([4.0, 16.0, 32.0, 128.0]))
    assert shares[:2].tolist() == [[pytest.approx(2 / 3), 0, 0.5], [pytest.approx(1 / 3), 0, 0.5]]


def test_summary_is_plain_data_also_without_objects():
    for table in (ObjectTable.of([], []), ObjectTable.of([make_record([NEGATIVE], [])], [0])):
        summary = summarize(table, PriorCounts())
        assert summary["objects"] == 0
        assert json.loads(json.dumps(summary)) == summary
        assert "no objects" in findings(summary, "ATSSAssigner")[0].text


def summary_of(objects, names=("cat", "dog"), assigner="MaxIoUAssigner", **fields):
    """Objects given as (size, positives, class), all in one image."""
    gt_index = [number for number, (_, count, _) in enumerate(objects) for _ in range(count)]
    boxes = [square(size, 1000.0 * number) for number, (size, _, _) in enumerate(objects)]
    record = make_record(
        gt_index or [NEGATIVE],
        boxes,
        [label for _, _, label in objects],
        quality=torch.full((max(len(gt_index), 1),), 0.6),
    )
    return {**summarize(ObjectTable.of([record], [0]), PriorCounts.of([record]), names), **fields}


def texts(summary, assigner="MaxIoUAssigner"):
    return [finding.text for finding in findings(summary, assigner)]


def test_verdict_names_the_objects_without_positives_and_a_remedy():
    summary = summary_of([(10, 0, 0)] * 5 + [(10, 6, 0)] * 15 + [(60, 6, 1)] * 80)
    (first, *_) = findings(summary, "MaxIoUAssigner")
    assert first.text.startswith("5.0 % of the objects (5 of 100) get no positive")
    assert "25.0 % of the small" in first.text
    assert "medium" not in first.text
    assert "ATSSAssigner" in first.advice
    assert first.wrong
    assert "center_radius" in findings(summary, "SimOTAAssigner")[0].advice
    assert "cat (25.0 %, 10 px)" in texts(summary)[1]


def test_verdict_advises_nothing_that_the_head_cannot_feed():
    crowd = {"total": 100, "positive": 10, "ignored": 0, "contested": 8}
    uneven = [(10, 0, 0)] * 20 + [(10, 2, 0)] * 20 + [(200, 40, 1)] * 20
    for alternatives in (None, {"ATSSAssigner", "SimOTAAssigner"}, {"ATSSAssigner"}, set()):
        summary = summary_of(uneven, priors=crowd, alternatives=alternatives)
        advice = " ".join(finding.advice for finding in findings(summary, "MaxIoUAssigner"))
        assert "lower pos_iou_thr" in advice
        for name in ("ATSSAssigner", "SimOTAAssigner", "TaskAlignedAssigner"):
            assert (name in advice) == (alternatives is None or name in alternatives)
        assert ("CrowdDet" in advice) == (alternatives in ({"ATSSAssigner"}, set()))


def test_verdict_on_uneven_and_few_positives():
    uneven = summary_of([(10, 2, 0)] * 20 + [(200, 40, 1)] * 20)
    assert texts(uneven) == ["large objects get 40 positives in the median, small ones 2"]
    few = summary_of([(10, 1, 0)] * 20 + [(50, 1, 1)] * 20)
    assert texts(few) == ["objects get few positives in the median: small ones 1, medium ones 1"]
    assert texts(few, "HungarianAssigner") == ["nothing stands out: objects of all sizes get positives"]


def test_verdict_on_layers_and_levels():
    fine = [(50, 9, 0)] * 100
    assert texts(summary_of(fine)) == ["nothing stands out: objects of all sizes get positives"]
    assert "up to 40.0 % of the objects change" in texts(summary_of(fine, layer_changes=[0.1, 0.4]))[0]
    assert texts(summary_of(fine, by_level={"stride 8": 9, "stride 16": 0})) == [
        "no object has a positive at stride 16"
    ]
    poor = summary_of(fine)
    poor["quality"]["median"] = 0.2
    assert "fit their objects badly" in texts(poor)[0]
    ignored = summary_of(fine, priors={"total": 100, "positive": 10, "ignored": 20, "contested": 8})
    assert [text.split(" the ")[0] for text in texts(ignored)] == ["20.0 % of", "80.0 % of"]
    random = summary_of(fine, random_weights=True, reads_predictions=True)
    assert texts(random) == ["the weights are random, so these numbers mean nothing"]


def test_advice_is_given_once():
    few = summary_of([(10, 0, 0)] * 10 + [(10, 1, 0)] * 20)
    first, second = findings(few, "MaxIoUAssigner")
    assert "get no positive" in first.text
    assert "few positives" in second.text
    assert first.advice
    assert second.advice == ""
