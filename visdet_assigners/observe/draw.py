"""Pictures of one image's assignments: which prior or query belongs to which object.

    figure = draw_assignments(image, records)  # the records of one assigner for one image
    save(figure, "assignments.png")            # or: pixels = render(figure)

One panel per level (or per call, for proposals and queries) on the image, and a table of the objects.  An object has
one colour in all of them.  Nothing here needs a display.
"""

import colorsys
import itertools
import math
import textwrap
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

from visdet_assigners.assignment import IGNORED, NEGATIVE
from visdet_assigners.observe.panels import Array, Panel, panels_of, positive_dots
from visdet_assigners.observe.records import AssignmentRecord, MaskRecord

# All lengths in this file are pixels of the figure: at 72 dots per inch a point of matplotlib is one pixel.
_DPI = 72
_MARGIN = 10
_HEADER = 34  # strip with the title of the figure
_TITLE = 22  # strip with the title of a panel
_ROW = 17  # line of the table
_FONT = 13
_TEXT = (0.0, 0.0, 0.0)
_GREY = (0.35, 0.35, 0.35)


def object_colors(count: int) -> list[tuple[float, float, float]]:
    """Colours that stay apart for neighbouring numbers, and dark enough to be read on white.

    Hues are a golden section apart; full colours and dull ones take turns.
    """
    colors = []
    for number in range(count):
        red, green, blue = colorsys.hsv_to_rgb((0.98 + 0.618 * number) % 1, (1.0, 0.75)[number // 5 % 2], 1.0)
        luminance = 0.3 * red + 0.59 * green + 0.11 * blue
        darker = min(1.0, (0.5, 0.38)[number // 5 % 2] / luminance)
        colors.append((darker * red, darker * green, darker * blue))
    return colors


def draw_assignments(
    image: NDArray[np.uint8],
    records: Sequence[AssignmentRecord],
    names: Sequence[str] | None = None,
    panel_width: int | None = None,
    all_levels: bool = False,
) -> Figure:
    """Draw the calls of one assigner for one image.

    Dots are positives in the colour of their object, larger where several anchors of one location are positive; grey
    crosses are ignored priors, the finest dots all the others.  Boxes are dashed in panels where the object has no
    positive.  Positive proposals are drawn themselves, in thin lines.  For queries, a line goes from the centre of the
    predicted box to the centre of its object; a ``MaskRecord`` shows masks' outlines in place of boxes.  Rotated boxes
    are drawn as they are, and their size in the table is their own.

    Args:
        image: (H, W, 3) RGB, the image that the boxes refer to.
        records: one for a dense head; one per decoder layer for a DETR-like head.
        names: class name of each object; without it the labels are shown as numbers.
        panel_width: width of the image in each panel, in pixels; by default twice the image's, between 480 and 800.
        all_levels: also draw levels where nothing is positive or ignored; otherwise the key names them.

    Returns:
        Figure with one axes per panel, in order, and the table last.  Panel axes are in image pixels.

    Raises:
        ValueError: there is no record, or none of them has priors or boxes.
    """
    all_panels = [panel for record in records for panel in panels_of(record)]
    if not all_panels:
        raise ValueError("draw_assignments: no record has priors or predicted boxes, so there is nothing to place")
    empty = [panel for panel in all_panels if not panel.are_queries and (panel.gt_index == NEGATIVE).all()]
    if all_levels or len(empty) == len(all_panels):
        empty = []
    panels = [panel for panel in all_panels if panel not in empty]
    height, width = image.shape[:2]
    panel_width = panel_width or min(max(2 * width, 480), 800)
    panel_height = round(panel_width * height / width)
    columns, rows = _layout(len(panels) + 1)
    cell_height = panel_height + _TITLE + _MARGIN
    figure_size = (columns * (panel_width + _MARGIN) + _MARGIN, rows * cell_height + _HEADER + _MARGIN)
    figure = Figure(figsize=(figure_size[0] / _DPI, figure_size[1] / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        _MARGIN / figure_size[0], 1 - _HEADER / 2 / figure_size[1], _headline(records), fontsize=_FONT + 4, va="center"
    )

    colors = object_colors(records[0].num_objects)
    for number in range(len(panels) + 1):
        left = _MARGIN + number % columns * (panel_width + _MARGIN)
        top = _HEADER + _TITLE + number // columns * cell_height
        bottom = figure_size[1] - top - panel_height
        axes = figure.add_axes(
            (
                left / figure_size[0],
                bottom / figure_size[1],
                panel_width / figure_size[0],
                panel_height / figure_size[1],
            )
        )
        if number < len(panels):
            _draw_panel(axes, image, panels[number], records[0], colors, panel_width / width)
        else:
            table = object_table(records[0], panels, names)
            _draw_table(axes, table, _key(panels, empty), colors, panel_width, panel_height)
    return figure


def render(figure: Figure) -> NDArray[np.uint8]:
    """Return the figure as an (H, W, 3) RGB image."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save(figure: Figure, path: str | PathLike) -> None:
    """Write the figure as a PNG of 256 colours, chosen so that none is far off; the faded image makes others large."""
    pixels = Image.fromarray(render(figure))
    few = pixels.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def object_table(
    record: AssignmentRecord, panels: Sequence[Panel], names: Sequence[str] | None = None
) -> list[list[str]]:
    """Build the table of the objects: a row of headings, then a row for each object.

    Columns are number, class, size in pixels, and one for each panel: how many priors the object got there, and at last
    their sum; or which query and how many more, as ``12+3``, and at last how often they changed from call to call.
    """
    if names is None or len(names) != record.num_objects:
        labels = record.gt_labels
        names = ["object"] * record.num_objects if labels is None else [f"class {label}" for label in labels.tolist()]
    is_query = panels[0].are_queries
    rows = [["#", "class", "size", *(panel.label for panel in panels), "changes" if is_query else "all"]]
    sizes = record.gt_sizes.float().cpu()
    for number, name in enumerate(names):
        width, height = sizes[number].tolist() if len(sizes) else (math.nan, math.nan)
        mine = [np.flatnonzero(panel.gt_index == number).tolist() for panel in panels]
        cells = [_cell(index, is_query) for index in mine]
        summary = sum(now != last for last, now in itertools.pairwise(mine)) if is_query else sum(map(len, mine))
        rows.append([str(number), name, f"{width:.0f}x{height:.0f}", *cells, str(summary)])
    return rows


def _cell(index: Sequence[int], is_query: bool) -> str:
    """What an object has in one panel: how many priors, or which query and how many more."""
    if not index:
        return "."
    if not is_query:
        return str(len(index))
    return f"{index[0]}+{len(index) - 1}" if len(index) > 1 else str(index[0])


def _layout(cells: int) -> tuple[int, int]:
    """Columns and rows: about as many of either, with few places left empty."""
    fewest = math.ceil(math.sqrt(cells))
    columns = min(fewest, fewest + 1, key=lambda columns: -cells % columns)
    return columns, math.ceil(cells / columns)


def _boxes(record: AssignmentRecord) -> Array:
    return np.zeros((0, 4)) if record.gt_boxes is None else record.gt_boxes.float().cpu().numpy()


def _headline(records: Sequence[AssignmentRecord]) -> str:
    record = records[0]
    per_object = record.positives_per_object()
    text = f"{record.assigner} ({record.where}): {int(per_object.sum())} positives, {len(per_object)} objects"
    missed = int((per_object == 0).sum())
    return text + (f", {missed} without any positive" if missed else "")


def _key(panels: Sequence[Panel], empty: Sequence[Panel]) -> list[str]:
    """Lines that explain the panels and name those that are not drawn."""
    if panels[0].are_queries:
        shape = "box" if panels[0].masks is None else "mask"
        lines = [f"lines: from the predicted {shape} (dotted) to its object", "grey dots: queries without an object"]
        matched = [panel.gt_index[panel.gt_index >= 0] for panel in panels]
        several = any(len(np.unique(index)) < len(index) for index in matched)
        return [*lines, "12+3: query 12 and three more"] if several else lines
    shared = any((positive_dots(panel)[2] > 1).any() for panel in panels)
    lines = ["dots: positives" + (", large where priors share a place" if shared else ""), "fine dots: other priors"]
    if any(panel.boxes is not None for panel in panels):
        lines.insert(1, "thin boxes: the positive proposals")
    if any((panel.gt_index == IGNORED).any() for panel in panels):
        lines.append("crosses: ignored")
    if len(panels) > 1:
        lines.append("dashed: objects without a positive in this panel")
    if empty:
        lines.append(f"nothing positive or ignored: {', '.join(panel.label for panel in empty)}")
    return lines


def _draw_panel(
    axes: Axes,
    image: NDArray[np.uint8],
    panel: Panel,
    record: AssignmentRecord,
    colors: Sequence[tuple[float, float, float]],
    scale: float,
) -> None:
    """Draw image, ignore regions, objects and dots; ``scale`` is figure pixels per image pixel."""
    height, width = image.shape[:2]
    axes.set_title(panel.title, fontsize=_FONT, loc="left", pad=5)
    axes.imshow(_faded(image), extent=(0, width, height, 0), interpolation="antialiased")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    if record.ignored_boxes is not None:
        for outline in _outlines(record, "ignored_boxes"):
            axes.add_patch(_shape(outline, _GREY, "-", 1.0, hatch="//"))
    present = set(panel.gt_index.tolist())
    gt_masks = record.gt_masks if isinstance(record, MaskRecord) else None
    outlines = _outlines(record, "gt_boxes")
    for number, (x1, y1, *_) in enumerate(_boxes(record).tolist()):
        style, line = ("-", 2.0) if number in present else ("--", 1.0)
        if gt_masks is not None:
            _draw_outline(axes, gt_masks[number].cpu().numpy(), (height, width), colors[number], style, line)
        else:
            axes.add_patch(_shape(outlines[number], colors[number], style, line))
        inside = y1 * scale < _FONT  # no room above the box
        top = max(y1, 0) + 2 / scale if inside else y1
        label = axes.text(max(x1, 0) + 2 / scale, top, str(number), color=colors[number], fontsize=_FONT - 1)
        label.set_verticalalignment("top" if inside else "bottom")
        label.set_path_effects([withStroke(linewidth=2, foreground="white")])
        label.set_clip_on(True)
    if panel.are_queries:
        _draw_queries(axes, panel, (height, width), _boxes(record), colors)
    else:
        _draw_priors(axes, panel, colors, scale)


def _draw_priors(axes: Axes, panel: Panel, colors: Sequence[tuple[float, float, float]], scale: float) -> None:
    """Draw prior centres: all, ignored, positive; and the boxes of proposals that are positive."""
    size = 8.0 if panel.stride is None else min(max(0.5 * panel.stride * scale, 4.0), 12.0)  # diameter
    others = np.unique(panel.centers[panel.gt_index < 0].round(2), axis=0)
    axes.scatter(others[:, 0], others[:, 1], s=(0.25 * size) ** 2, color="black", alpha=0.6, linewidths=0, zorder=2)
    ignored = np.unique(panel.centers[panel.gt_index == IGNORED].round(2), axis=0)
    axes.scatter(ignored[:, 0], ignored[:, 1], s=(0.8 * size) ** 2, marker="x", color=_GREY, linewidths=1, zorder=3)
    if panel.boxes is not None:
        for prior in np.flatnonzero(panel.gt_index >= 0):
            axes.add_patch(_shape(panel.boxes[prior], colors[panel.gt_index[prior]], "-", 0.6))
    centers, objects, counts = positive_dots(panel)
    if not len(centers):
        return
    areas = size**2 * np.sqrt(counts)
    # Two objects may claim anchors of one location: the later dot is smaller, so that both are seen.
    _, place, claims = np.unique(centers, axis=0, return_inverse=True, return_counts=True)
    order = np.lexsort((objects, -areas))
    seen = np.zeros(len(claims), dtype=np.int64)
    for dot in order:
        here = place.reshape(-1)[dot]
        areas[dot] *= 0.4 ** seen[here]
        seen[here] += 1
    axes.scatter(
        centers[order, 0],
        centers[order, 1],
        s=areas[order],
        c=[colors[number] for number in objects[order]],
        edgecolors="white",
        linewidths=0.7,
        zorder=4,
    )


def _draw_queries(
    axes: Axes,
    panel: Panel,
    image_size: tuple[int, int],
    gt_boxes: Array,
    colors: Sequence[tuple[float, float, float]],
) -> None:
    """Draw predicted centres, and for matched queries their box or mask and a line to the object."""
    free = panel.centers[panel.gt_index < 0]
    axes.scatter(free[:, 0], free[:, 1], s=12, color=_GREY, linewidths=0, zorder=3)
    for query in np.flatnonzero(panel.gt_index >= 0):
        number = int(panel.gt_index[query])
        color = colors[number]
        if panel.masks is not None:
            _draw_outline(axes, panel.masks[query], image_size, color, ":", 1.6)
        elif panel.boxes is not None:
            axes.add_patch(_shape(panel.boxes[query], color, ":", 1.0))
        x, y = panel.centers[query]
        axes.scatter(x, y, s=64, color=[color], edgecolors="white", linewidths=0.7, zorder=5)
        if len(gt_boxes):
            target_x, target_y = (gt_boxes[number, :2] + gt_boxes[number, 2:]) / 2
            axes.plot([x, target_x], [y, target_y], color=color, linewidth=1.5, zorder=4)
            axes.scatter(
                target_x, target_y, s=30, marker="s", color=[color], edgecolors="white", linewidths=0.7, zorder=5
            )


def _outlines(record: AssignmentRecord, name: str) -> Array:
    """The boxes of a field as they are drawn: (N, 4) xyxy, or (N, 4, 2) corners where they aren't upright."""
    boxes = record.corners.get(name, getattr(record, name))
    return np.zeros((0, 4)) if boxes is None else boxes.float().cpu().numpy()


def _shape(box: Array, color: tuple[float, float, float], style: str, width: float, hatch: str | None = None) -> Patch:
    """Outline of a box, (4,) xyxy or (4, 2) corners."""
    looks: Any = dict(fill=False, edgecolor=color, linestyle=style, linewidth=width, hatch=hatch)
    if box.ndim == 2:
        return Polygon(box, closed=True, **looks)
    x1, y1, x2, y2 = box
    return Rectangle((x1, y1), x2 - x1, y2 - y1, **looks)


def _draw_outline(
    axes: Axes,
    mask: NDArray[np.bool_],
    image_size: tuple[int, int],
    color: tuple[float, float, float],
    style: str,
    width: float,
) -> None:
    """Draw the outline of a mask (h, w) that covers an image of (height, width) pixels; of an empty one, nothing."""
    if not mask.any():
        return
    closed = np.pad(mask.astype(float), 1)  # or the outline would be open where the mask meets the image's edge
    y, x = ((np.arange(size) - 0.5) * whole / (size - 2) for size, whole in zip(closed.shape, image_size))
    axes.contour(x, y, closed, levels=[0.5], colors=[color], linestyles=style, linewidths=width, zorder=3)


def _draw_table(
    axes: Axes,
    rows: Sequence[Sequence[str]],
    key: list[str],
    colors: Sequence[tuple[float, float, float]],
    width: int,
    height: int,
) -> None:
    """Write the table of objects, a line each, and the key; too many objects leave those that most want a look."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(height, 0))
    key = _wrapped(key, width)
    head, *objects = rows
    is_query = head[-1] == "changes"
    numbers = list(range(len(objects)))
    capacity = height // _ROW - len(key) - 3
    if len(objects) > capacity:
        sign, which = (-1, "most changes") if is_query else (1, "fewest positives")
        numbers = sorted(sorted(numbers, key=lambda number: sign * int(objects[number][-1]))[:capacity])
        key = _wrapped([f"{len(objects)} objects; these {len(numbers)} have the {which}", *key], width)
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    # A letter of the monospaced font is 0.6 of its height, and is drawn whole pixels wide.
    font = min(_FONT, width // (sum(widths) + 2 * len(widths)) / 0.6)
    lines = [(head, _TEXT), *((objects[number], colors[number]) for number in numbers)]
    for line, (cells, color) in enumerate(lines):
        # Classes read from the left, figures from the right.
        text = "  ".join(
            cell.ljust(letters) if column == 1 else cell.rjust(letters)
            for column, (cell, letters) in enumerate(zip(cells, widths))
        )
        axes.text(0, (line + 0.5) * _ROW, text, color=color, fontsize=font, family="monospace", va="center")
    for line, text in enumerate(key, start=len(lines) + 1):
        axes.text(0, (line + 0.5) * _ROW, text, color=_GREY, fontsize=_FONT, va="center")


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Break lines of the key that are too long; its letters are up to 0.54 of their height wide, over a line."""
    return [part for line in lines for part in textwrap.wrap(line, int(width / (0.54 * _FONT)))]


def _faded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take out most of the colour and contrast, so that the dots stand out."""
    grey = image.mean(axis=2, keepdims=True)
    return (0.5 * (0.4 * image + 0.6 * grey) + 127).astype(np.uint8)
