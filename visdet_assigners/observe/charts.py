"""Charts of statistics: positives by size, levels by size, quality, layers, curves.  Nothing here needs a display."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from visdet_assigners.observe.statistics import ObjectTable, levels_by_size, positives_by_size, size_edges

COLORS = ("#1f6fb4", "#d1495b", "#2e8b57", "#8e5ea2")
_SIZE = (6.4, 3.8)
_GREY = "#777777"


def positives_chart(tables: Mapping[str, ObjectTable]) -> Figure:
    """Positives of each object against its size: median and the band of 10 to 90 %, and the share without any.

    Args:
        tables: by what the curve is called; at most four.
    """
    figure = _figure()
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    edges = size_edges(ObjectTable.join(list(tables.values())))
    for number, ((name, table), color) in enumerate(zip(tables.items(), COLORS)):
        rows = positives_by_size(table, edges)
        if not rows:
            continue
        middle = [np.sqrt(row["from"] * row["to"]) for row in rows]
        low, median, high = ([row[key] for row in rows] for key in ("p10", "median", "p90"))
        upper.fill_between(middle, low, high, color=color, alpha=0.15, linewidth=0)
        upper.plot(middle, median, "o-", color=color, markersize=4, label=name)
        if len(tables) == 1:
            jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(table))
            upper.scatter(
                table.size, table.positives + jitter, s=3, color=_GREY, alpha=0.35, linewidths=0, rasterized=True
            )
        shift = 2 ** (0.2 * (number - (len(tables) - 1) / 2))  # bars of several tables side by side
        heights = [row["without"] for row in rows]
        lower.bar(np.array(middle) * shift, heights, width=0.2 / len(tables) * np.array(middle), color=color)
    upper.set_yscale("symlog", linthresh=10)
    most = max((int(table.positives.max()) for table in tables.values() if len(table)), default=1)
    ticks = [0, 1, 2, 5, *(step * 10**power for power in range(1, 6) for step in (1, 2, 5))]
    upper.set_yticks([tick for tick in ticks if tick <= max(most, 2)], minor=False)
    upper.set_yticks([], minor=True)
    upper.yaxis.set_major_formatter(ScalarFormatter())
    upper.set(ylabel="positives per object", ylim=(-0.5, None))
    upper.legend(frameon=False, title="median; band: 10 to 90 %", alignment="left")
    lower.set(ylabel="without any", xlabel="size of the object, pixels")
    lower.set_ylim(0, max(0.05, *(patch.get_height() for patch in lower.patches), 0) * 1.1)
    lower.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _size_axis(lower)
    return figure


def levels_chart(table: ObjectTable, names: Sequence[str]) -> Figure:
    """Which levels the positives of objects of each size lie in, as a map of shares."""
    figure = _figure()
    axes = figure.subplots()
    edges = size_edges(table)
    shares = levels_by_size(table, edges)[: len(names)]
    image = axes.pcolormesh(edges, np.arange(len(names) + 1) - 0.5, shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("size of the object, pixels")
    _size_axis(axes)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1, decimals=0), label="of the positives of this size")
    return figure


def quality_chart(tables: Mapping[str, ObjectTable]) -> Figure:
    """How well the positives of an object fit it: a histogram over objects."""
    figure = _figure()
    axes = figure.subplots()
    for (name, table), color in zip(tables.items(), COLORS):
        quality = table.quality[np.isfinite(table.quality)]
        weights = np.full(len(quality), 1 / max(len(quality), 1))
        top = max(1.0, quality.max() if len(quality) else 1.0)
        axes.hist(quality, np.linspace(0, top, 41).tolist(), weights=weights, color=color, alpha=0.55, label=name)
    axes.set(xlabel="mean quality (IoU) of the object's positives", ylabel="objects")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(frameon=False)
    return figure


def layers_chart(quality: Sequence[float], changes: Sequence[float]) -> Figure:
    """For each decoder layer, how well the matched boxes fit, and which share of the objects changes its query.

    Args:
        quality: (L,) mean quality of the matches in each layer.
        changes: (L - 1,) share of objects whose query differs from that in the layer before.
    """
    figure = _figure()
    axes = figure.subplots()
    numbers = np.arange(1, len(quality) + 1)
    axes.plot(numbers, quality, "o-", color=COLORS[0], label="mean IoU of the matched boxes")
    axes.bar(numbers[1:], changes, width=0.5, color=COLORS[1], alpha=0.6, label="objects whose query changed")
    axes.set(xlabel="layer", ylim=(0, 1), xticks=numbers)
    axes.legend(frameon=False)
    return figure


def curves_chart(curves: Mapping[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str) -> Figure:
    """Values over training, a line for each name."""
    figure = _figure()
    axes = figure.subplots()
    for (name, points), color in zip(curves.items(), COLORS):
        axes.plot(*zip(*points), "o-" if len(points) < 60 else "-", color=color, markersize=3, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(frameon=False)
    return figure


def as_svg(figure: Figure) -> str:
    """Return the figure as an ``<svg>`` element, the same each time."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "visdet_assigners"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def as_jpeg_address(figure: Figure) -> str:
    """Return the figure as a ``data:`` address for an ``<img>`` element."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpg", pil_kwargs={"quality": 80})
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure() -> Figure:
    figure = Figure(figsize=_SIZE, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _size_axis(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
