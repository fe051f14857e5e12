"""Pictures show what was assigned: dots of the right colour at the right pixels, and a table that adds up."""

import numpy as np
import pytest
import torch
from PIL import Image

from pixels import Rendered, is_color
from scenes import anchors, drawn_objects, points
from visdet_assigners.assignment import IGNORED, NEGATIVE
from visdet_assigners.observe.draw import draw_assignments, object_colors, object_table, render, save
from visdet_assigners.observe.panels import panels_of, positive_dots
from visdet_assigners.observe.records import AssignmentRecord, MaskRecord

SCENE = next(scene for scene in drawn_objects() if scene.name == "mixed-3-320")
HEIGHT, WIDTH = SCENE.image
IMAGE = np.full((HEIGHT, WIDTH, 3), 200, dtype=np.uint8)


def make_record(gt_index, **fields):
    return AssignmentRecord(
        "head", "assigner", "AnAssigner", fields.pop("call", 0), torch.as_tensor(gt_index), **fields
    )


def anchor_record(level_sizes=True, positives=(), ignored=()):
    """Assign anchors by hand: ``positives`` are (level, row, column, object), ``ignored`` are (level, row, column)."""
    priors, sizes = anchors(SCENE)
    offsets = np.cumsum([0, *sizes])
    columns = [-(-WIDTH // stride) for stride in (8, 16, 32, 64, 128)]
    gt_index = torch.full((len(priors),), NEGATIVE)
    for level, row, column, number in [*positives, *((*place, IGNORED) for place in ignored)]:
        gt_index[offsets[level] + row * columns[level] + column] = number
    return make_record(
        gt_index,
        priors=priors,
        gt_boxes=torch.tensor([[80.0, 60.0, 160.0, 140.0], [200.0, 20.0, 300.0, 90.0]]),
        gt_labels=torch.tensor([4, 2]),
        level_sizes=tuple(sizes) if level_sizes else None,
    )


@pytest.mark.parametrize("level_sizes", [True, False], ids=["levels-given", "levels-inferred"])
@pytest.mark.parametrize("panel_width", [None, 480, 800])
def test_dots_are_where_the_priors_are(level_sizes, panel_width):
    # anchors of a level stand at multiples of its stride
    record = anchor_record(level_sizes, positives=[(0, 12, 15, 0), (0, 5, 30, 1), (2, 3, 4, 0)], ignored=[(1, 4, 4)])
    figure = draw_assignments(IMAGE, [record], panel_width=panel_width, all_levels=True)
    pixel = Rendered(figure)
    red, blue = object_colors(2)
    assert len(figure.axes) == 5 + 1
    assert is_color(pixel(0, 15 * 8, 12 * 8), red)
    assert is_color(pixel(0, 30 * 8, 5 * 8), blue)
    assert is_color(pixel(2, 4 * 32, 3 * 32), red)
    assert pixel(1, 4 * 16, 4 * 16).max() < 0.5  # the cross of an ignored prior
    background = pixel(0, 4, 4)
    assert background.min() > 0.75
    for panel, x, y in [(1, 15 * 8, 12 * 8), (2, 30 * 8, 5 * 8), (4, 4 * 32, 3 * 32), (0, 4 * 16 + 4, 4 * 16 + 4)]:
        assert is_color(pixel(panel, x, y), background)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:5]]
    assert titles == [
        "stride 8: 2 positives",
        "stride 16: 0 positives, 1 ignored",
        "stride 32: 1 positives",
        "stride 64: 0 positives",
        "stride 128: 0 positives",
    ]
    assert figure.texts[0].get_text() == "AnAssigner (head.assigner): 3 positives, 2 objects"


def test_levels_without_a_positive_are_only_named():
    record = anchor_record(positives=[(0, 12, 15, 0), (2, 3, 4, 0)], ignored=[(3, 1, 1)])
    figure = draw_assignments(IMAGE, [record])
    titles = [axes.get_title(loc="left") for axes in figure.axes[:-1]]
    assert titles == ["stride 8: 1 positives", "stride 32: 1 positives", "stride 64: 0 positives, 1 ignored"]
    assert "nothing positive or ignored: stride 16, stride 128" in [text.get_text() for text in figure.axes[-1].texts]
    assert is_color(Rendered(figure)(1, 4 * 32, 3 * 32), object_colors(1)[0])
    narrow = draw_assignments(IMAGE, [record], panel_width=300)
    right = narrow.axes[-1].get_window_extent().x1
    assert len(narrow.axes[-1].texts) > len(figure.axes[-1].texts)  # the key goes on in another line
    assert all(text.get_window_extent().x1 <= right for text in narrow.axes[-1].texts)
    empty = draw_assignments(IMAGE, [anchor_record()])
    assert len(empty.axes) == 5 + 1


def test_several_queries_of_an_object_are_counted():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [3.0, 3.0, 300.0, 200.0]])
    calls = [[1, 0, 1, NEGATIVE, 1], [1, 0, 1, 1, NEGATIVE]]
    records = [
        make_record(gt_index, call=call, gt_boxes=boxes, pred_boxes=boxes[[0, 0, 1, 1, 1]])
        for call, gt_index in enumerate(calls)
    ]
    rows = object_table(records[0], [panel for record in records for panel in panels_of(record)])
    assert rows[1:] == [["0", "object", "9x9", "1", "1", "0"], ["1", "object", "297x197", "0+2", "0+2", "1"]]
    texts = [text.get_text() for text in draw_assignments(IMAGE, records).axes[-1].texts]
    assert "12+3: query 12 and three more" in texts


@pytest.mark.parametrize(("calls", "width"), [(7, 480), (8, 600), (13, 480)])
def test_a_table_of_many_columns_stays_within_its_place(calls, width):
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [3.0, 3.0, 300.0, 200.0]])
    fields = {"gt_boxes": boxes, "gt_labels": torch.tensor([0, 1]), "pred_boxes": boxes}
    records = [make_record([1, 0], call=call, **fields) for call in range(calls)]
    figure = draw_assignments(IMAGE, records, panel_width=width)
    render(figure)
    table = figure.axes[-1]
    assert max(text.get_window_extent().x1 for text in table.texts) <= table.get_window_extent().x1


def test_every_positive_of_a_real_assignment_has_its_dot():
    from mmdet.models.task_modules.assigners import ATSSAssigner
    from mmengine.structures import InstanceData

    priors, sizes = anchors(SCENE)
    assigner = ATSSAssigner(topk=9, iou_calculator={"type": "mmdet.BboxOverlaps2D"})
    result = assigner.assign(InstanceData(priors=priors), sizes, SCENE.instances)
    gt_index = torch.where(result.gt_inds > 0, result.gt_inds - 1, NEGATIVE)
    record = make_record(gt_index, priors=priors, gt_boxes=SCENE.boxes, level_sizes=tuple(sizes))
    assert (gt_index >= 0).sum() > 10
    pixel = Rendered(draw_assignments(IMAGE, [record], all_levels=True))
    colors = object_colors(len(SCENE.boxes))
    centers = (priors[:, :2] + priors[:, 2:]) / 2
    level = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    for prior in (gt_index >= 0).nonzero().flatten().tolist():
        x, y = centers[prior].tolist()
        assert is_color(pixel(level[prior], x, y), colors[gt_index[prior]])


def test_points():
    priors = points(SCENE)  # strides 8, 16, 32; centres at half strides
    gt_index = torch.full((len(priors),), NEGATIVE)
    gt_index[((priors[:, 0] == 120) & (priors[:, 1] == 104) & (priors[:, 2] == 16)).nonzero()] = 0
    record = make_record(gt_index, priors=priors, gt_boxes=torch.tensor([[80.0, 60.0, 160.0, 140.0]]))
    figure = draw_assignments(IMAGE, [record], all_levels=True)
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == [
        "stride 8: 0 positives",
        "stride 16: 1 positives",
        "stride 32: 0 positives",
    ]
    assert is_color(Rendered(figure)(1, 120, 104), object_colors(1)[0])


def test_two_objects_at_one_location_are_both_seen():
    centers = np.array([[40.0, 40.0]] * 4 + [[80.0, 40.0]])
    boxes = torch.tensor(np.concatenate([centers - 16, centers + 16], axis=1))
    record = make_record([0, 0, 0, 1, 1], priors=boxes, gt_boxes=torch.tensor([[8.0, 8.0, 90.0, 90.0]] * 2))
    (panel,) = panels_of(record)
    places, objects, counts = positive_dots(panel)
    assert places.tolist() == [[40, 40], [40, 40], [80, 40]]
    assert (objects.tolist(), counts.tolist()) == ([0, 1, 1], [3, 1, 1])
    pixel = Rendered(draw_assignments(IMAGE, [record]))
    red, blue = object_colors(2)
    assert is_color(pixel(0, 40, 40), blue)  # the smaller claim lies on the larger one
    radius = np.sqrt(8.0**2 * np.sqrt(3)) / 2 / 2  # figure pixels to image pixels
    assert is_color(pixel(0, 40 + 0.8 * radius, 40), red, 0.2)


def test_lines_from_queries_to_objects():
    truths = torch.tensor([[20.0, 20.0, 60.0, 60.0], [200.0, 100.0, 280.0, 200.0]])
    queries = torch.tensor([[190.0, 30.0, 210.0, 50.0], [0.0, 200.0, 20.0, 220.0], [30.0, 130.0, 50.0, 150.0]])
    records = [
        make_record(index, pred_boxes=queries, gt_boxes=truths, call=call)
        for call, index in enumerate([[1, NEGATIVE, 0], [0, NEGATIVE, 1], [0, NEGATIVE, 1]])
    ]
    figure = draw_assignments(IMAGE, records, names=["cat", "dog"])
    pixel = Rendered(figure)
    red, blue = object_colors(2)
    assert len(figure.axes) == 3 + 1
    assert figure.axes[0].get_title(loc="left") == "call 1: 2 of 3 queries matched"
    assert is_color(pixel(0, (40 + 40) / 2, (40 + 140) / 2), red, 0.3)  # half way from the third query
    assert is_color(pixel(0, (200 + 240) / 2, (40 + 150) / 2), blue, 0.3)
    assert is_color(pixel(1, (200 + 40) / 2, (40 + 40) / 2), red, 0.3)
    assert is_color(pixel(1, 200, 40), red)
    assert is_color(pixel(1, 10, 210), (0.35, 0.35, 0.35))  # not matched
    panels = [panel for record in records for panel in panels_of(record)]
    assert object_table(records[0], panels, ["cat", "dog"]) == [
        ["#", "class", "size", "call 1", "call 2", "call 3", "changes"],
        ["0", "cat", "40x40", "2", "0", "0", "1"],
        ["1", "dog", "80x100", "0", "2", "2", "1"],
    ]


def test_table_of_priors():
    record = anchor_record(positives=[(0, 12, 15, 0), (0, 13, 15, 0), (2, 3, 4, 0)])
    headings = ["#", "class", "size", "stride 8", "stride 16", "stride 32", "stride 64", "stride 128", "all"]
    assert object_table(record, panels_of(record)) == [
        headings,
        ["0", "class 4", "80x80", "2", ".", "1", ".", ".", "3"],
        ["1", "class 2", "100x70", ".", ".", ".", ".", ".", "0"],
    ]
    figure = draw_assignments(IMAGE, [record], names=["cat", "dog"])
    assert figure.texts[0].get_text().endswith("3 positives, 2 objects, 1 without any positive")
    table = [text.get_text() for text in figure.axes[-1].texts]
    assert "cat" in table[1]
    assert "dog" in table[2]


def test_a_long_table_keeps_the_objects_with_fewest_positives():
    count = 200
    priors, sizes = anchors(SCENE)
    gt_index = torch.full((len(priors),), NEGATIVE)
    gt_index[: count - 2] = torch.arange(count - 2)  # none for the last two
    boxes = torch.tensor([[10.0, 10.0, 50.0, 50.0]]).repeat(count, 1)
    record = make_record(gt_index, priors=priors, gt_boxes=boxes, level_sizes=tuple(sizes))
    figure = draw_assignments(IMAGE, [record])
    lines = [text.get_text().split() for text in figure.axes[-1].texts]
    shown = [int(line[0]) for line in lines if line[0].isdigit() and line[-1] in "01"]
    assert {count - 1, count - 2} <= set(shown)
    assert 5 < len(shown) < count
    assert f"200 objects; these {len(shown)} have the fewest positives".split() in lines
    bottom = figure.axes[-1].get_ylim()[0]
    assert all(text.get_position()[1] < bottom for text in figure.axes[-1].texts)


def test_proposals_without_a_grid_make_one_panel():
    proposals = torch.tensor([[10.0, 10.0, 40.0, 44.0], [100.0, 60.0, 180.0, 171.0]])
    record = make_record([NEGATIVE, 0], priors=proposals, gt_boxes=torch.tensor([[100.0, 60.0, 180.0, 160.0]]))
    (panel,) = panels_of(record)
    assert panel.title == "2 proposals: 1 positives"
    assert is_color(Rendered(draw_assignments(IMAGE, [record]))(0, 140, 115.5), object_colors(1)[0])


def test_positive_proposals_are_drawn_themselves():
    proposals = torch.tensor([[10.0, 10.0, 40.0, 44.0], [100.0, 60.0, 180.0, 160.0]])
    pixel = Rendered(draw_assignments(IMAGE, [make_record([NEGATIVE, 0], priors=proposals)], panel_width=3 * WIDTH))
    red, background = object_colors(1)[0], pixel(0, 4, 4)
    for x, y in [(100, 80), (180, 80), (140, 60), (140, 160)]:
        assert not is_color(pixel(0, x, y), background)
        assert pixel(0, x, y)[1] < pixel(0, x, y)[0] - 0.1  # reddish
    assert is_color(pixel(0, 10, 30), background)
    assert is_color(pixel(0, 140, 110), red)


def test_a_proposal_for_two_objects_has_a_dot_of_either():
    truths = torch.tensor([[80.0, 60.0, 160.0, 140.0], [100.0, 60.0, 180.0, 140.0]])
    proposals = torch.tensor([[90.0, 60.0, 170.0, 140.0], [220.0, 20.0, 260.0, 60.0], [20.0, 20.0, 40.0, 40.0]])
    gt_index = [[0, 1], [NEGATIVE, 1], [NEGATIVE, IGNORED]]
    record = make_record(gt_index, priors=proposals, gt_boxes=truths)
    (panel,) = panels_of(record)
    assert panel.title == "3 proposals: 3 positives, 1 ignored, 1 proposals for 2 objects"
    assert record.positives_per_object().tolist() == [1, 2]
    places, objects, _ = positive_dots(panel)
    assert list(zip(map(tuple, places.tolist()), objects.tolist())) == [
        ((130, 100), 0),
        ((130, 100), 1),
        ((240, 40), 1),
    ]
    pixel = Rendered(draw_assignments(IMAGE, [record], panel_width=4 * WIDTH))
    red, blue = object_colors(2)
    assert is_color(pixel(0, 130, 100), blue)  # the smaller dot lies on the larger one
    assert is_color(pixel(0, 130 + 0.8, 100), red, 0.5)
    assert is_color(pixel(0, 240, 40), blue)
    assert [row[-1] for row in object_table(record, [panel])] == ["all", "1", "2"]


def test_masks_are_outlined():
    gt_masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    gt_masks[0, 40:120, 80:160] = True
    gt_masks[1, 100:200, 200:] = True  # up to the edge of the image
    pred_masks = torch.zeros(3, HEIGHT // 4, WIDTH // 4, dtype=torch.bool)  # in a quarter of the resolution
    pred_masks[2, 30:50, 10:30] = True  # 40 to 120 by 120 to 200; query 0 predicts nothing
    record = MaskRecord(
        "head", "assigner", "AnAssigner", 0, torch.tensor([1, NEGATIVE, 0]),
        gt_boxes=torch.tensor([[80.0, 40.0, 160.0, 120.0], [200.0, 100.0, WIDTH, 200.0]]),
        pred_boxes=torch.tensor([[0.0, 0, 0, 0], [0.0, 0, 0, 0], [40.0, 120.0, 120.0, 200.0]]),
        gt_masks=gt_masks, pred_masks=pred_masks,
    )  # fmt: skip
    figure = draw_assignments(IMAGE, [record], panel_width=3 * WIDTH)
    pixel = Rendered(figure)
    red, blue = object_colors(2)
    assert figure.axes[0].get_title(loc="left") == "call 1: 2 of 3 queries matched"
    for x, y in [(80, 100), (160, 100), (100, 40), (150, 120)]:
        assert is_color(pixel(0, x, y), red, 0.3), (x, y)
    for x, y in [(200, 150), (250, 100), (250, 200)]:
        assert is_color(pixel(0, x, y), blue, 0.3), (x, y)
    # the predicted mask, dotted: its edges stand out, its inside doesn't
    edge = [pixel(0, x, 120) for x in np.arange(44, 76, 0.4)]
    assert any(is_color(value, red, 0.45) for value in edge)
    background = pixel(0, 4, 230)
    assert is_color(pixel(0, 50, 190), background)
    assert is_color(pixel(0, 130, 75), background)  # no line to the second object from a query without a mask
    assert is_color(pixel(0, 80, 160), red)  # its centre
    assert is_color(pixel(0, (80 + 120) / 2, (160 + 80) / 2), red, 0.3)  # the line to the object's centre


def test_an_image_without_objects():
    priors, sizes = anchors(SCENE)
    record = make_record(
        torch.full((len(priors),), NEGATIVE), priors=priors, gt_boxes=torch.zeros(0, 4), level_sizes=tuple(sizes)
    )
    figure = draw_assignments(IMAGE, [record])
    assert figure.texts[0].get_text() == "AnAssigner (head.assigner): 0 positives, 0 objects"
    assert render(figure).ndim == 3


def test_nothing_to_place():
    with pytest.raises(ValueError, match="no record has priors or predicted boxes"):
        draw_assignments(IMAGE, [make_record([NEGATIVE, 0])])


def test_a_file_has_few_colours_and_none_far_off(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    figure = draw_assignments(noise, [anchor_record(positives=[(0, 12, 15, 0), (2, 3, 4, 1)])])
    save(figure, tmp_path / "few.png")
    figure.savefig(tmp_path / "all.png")
    with Image.open(tmp_path / "few.png") as image:
        assert image.mode == "P"
        written = np.asarray(image.convert("RGB"))
    assert np.abs(written.astype(int) - render(figure)).max() < 24
    assert (tmp_path / "few.png").stat().st_size < (tmp_path / "all.png").stat().st_size / 2  # of noise, the worst case


def test_ignore_regions_are_hatched():
    record = make_record(
        [NEGATIVE], priors=torch.tensor([[0.0, 0.0, 8.0, 8.0]]), gt_boxes=torch.zeros(0, 4),
        ignored_boxes=torch.tensor([[100.0, 100.0, 200.0, 200.0]]),
    )  # fmt: skip
    pixels = render(draw_assignments(IMAGE, [record], panel_width=2 * WIDTH))
    plain = render(draw_assignments(IMAGE, [make_record([NEGATIVE], priors=record.priors, gt_boxes=record.gt_boxes)],
                                    panel_width=2 * WIDTH))  # fmt: skip
    rows, columns = np.nonzero((pixels != plain).any(axis=2))
    assert columns.max() - columns.min() == pytest.approx(200, abs=3)
    assert rows.max() - rows.min() == pytest.approx(200, abs=3)


def test_colors_differ_and_can_be_read_on_white():
    colors = np.array(object_colors(12))
    distance = np.abs(colors[:, None] - colors[None]).max(axis=2) + np.eye(12)
    assert distance.min() > 0.1
    assert (colors @ [0.3, 0.59, 0.11]).max() < 0.6
