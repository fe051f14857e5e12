"""Where two assigners agree on the same priors of the same image, in numbers and as a picture."""

from __future__ import annotations

import inspect
import math
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from visdet_assigners.observe.panels import Panel, panels_of
from visdet_assigners.observe.priors import infer_level_sizes
from visdet_assigners.observe.records import AssignmentCall, AssignmentRecord, as_record

KINDS = {"agree": "#8a8a8a", "only the first": "#1f6fb4", "only the second": "#d1495b", "another object": "#8e5ea2"}
"""What the two say about a positive of either, and its colour in pictures."""


@dataclass(frozen=True)
class Agreement:
    """Positives of two assigners over the same priors.

    Attributes:
        agree: positive for the same object in both.
        only_first: positive in the first alone.
        only_second: in the second alone.
        another_object: positive in both, for different objects.
    """

    agree: int = 0
    only_first: int = 0
    only_second: int = 0
    another_object: int = 0

    @classmethod
    def of(cls, first: Tensor, second: Tensor) -> Agreement:
        """Count over (N,) or (N, I) indices of objects, negative where there is none.

        Example:
            >>> Agreement.of(torch.tensor([0, 0, -1, 1, -1]), torch.tensor([0, -1, 1, 0, -2]))
            Agreement(agree=1, only_first=1, only_second=1, another_object=1)
        """
        kinds = kinds_of(first.cpu().numpy(), second.cpu().numpy())
        return cls(*(int((kinds == kind).sum()) for kind in range(len(KINDS))))

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other))))

    @property
    def share(self) -> float:
        """Share of all positives of either on which both agree; 1 where there is none."""
        return self.agree / max(sum(astuple(self)), 1) if sum(astuple(self)) else 1.0


def kinds_of(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index into ``KINDS`` of each prior, -1 where it is positive in neither."""
    return np.select(
        [(first < 0) & (second < 0), first == second, second < 0, first < 0], [-1, 0, 1, 2], default=3
    )  # fmt: skip


def ask_too(assigner: Any, call: AssignmentCall) -> AssignmentRecord:
    """Give another assigner the arguments of a call, as far as it takes them, and record what it decides.

    Level sizes are read off the priors where the head passed none, as RetinaNet's, so that ATSS can be asked.

    Raises:
        TypeError: the head passes nothing for an argument that this assigner needs.
    """
    arguments = dict(call.arguments)
    predicted = arguments.get("pred_instances")
    priors = getattr(predicted, "priors", None)
    if priors is not None and "num_level_priors" not in arguments:
        sizes = infer_level_sizes(getattr(priors, "tensor", priors).float().cpu())
        arguments["num_level_priors"] = None if sizes is None else list(sizes)
    taken = inspect.signature(assigner.assign).parameters
    result = assigner.assign(**{name: value for name, value in arguments.items() if name in taken})
    return as_record(replace(call, assigner=assigner, result=result))


def same_priors(first: AssignmentRecord, second: AssignmentRecord) -> bool:
    """Whether two records are about the same priors, or the same predictions, of the same objects."""
    if first.gt_index.shape != second.gt_index.shape:
        return False
    pairs = [(first.gt_boxes, second.gt_boxes)]
    pairs.append((first.pred_boxes, second.pred_boxes) if first.priors is None else (first.priors, second.priors))
    return all(one is not None and other is not None and torch.equal(one, other) for one, other in pairs)


def draw_difference(image: NDArray[np.uint8], first: AssignmentRecord, second: AssignmentRecord) -> Figure:
    """Draw two assignments of the same priors: what both agree on faintly, differences brightly.

    Args:
        image: (H, W, 3) RGB, the image that the boxes refer to.
        first: what one assigner decides.
        second: what the other does.

    Returns:
        Figure with a panel for each level where either has a positive (for all queries, one), in image pixels.

    Raises:
        ValueError: the records are about different priors.
    """
    if not same_priors(first, second):
        raise ValueError("draw_difference: the two records are about different priors")
    # The levels of the first hold for the second, whose head may have passed none.
    panels = list(zip(panels_of(first), panels_of(replace(second, level_sizes=first.level_sizes))))
    shown = [pair for pair in panels if any((panel.gt_index >= 0).any() for panel in pair)] or panels[:1]
    height, width = image.shape[:2]
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    panel_width = 6.4 if columns > 1 else 8.5  # inches; the title and the key need some
    size = (panel_width * columns, panel_width * height / width * rows + 0.9)
    figure = Figure(figsize=size, dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    names = {"only the first": f"only {first.assigner}", "only the second": f"only {second.assigner}"}
    agreement = Agreement.of(first.gt_index, second.gt_index)
    figure.suptitle(
        f"{first.assigner} and {second.assigner} ({first.where}) agree on {agreement.share:.0%} of "
        f"{sum(astuple(agreement))} positives",
        fontsize=12,
    )
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for axes, (one, other) in zip(grid, shown):
        axes.imshow((0.35 * image + 0.65 * 255).astype(np.uint8), extent=(0, width, height, 0))
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        axes.set_title(_title(one, other), fontsize=10, loc="left")
        for number, box in enumerate([] if first.gt_boxes is None else first.gt_boxes.cpu().tolist()):
            x1, y1, x2, y2 = box[:4]
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="#333333", linewidth=0.9))
            axes.text(max(x1, 0), max(y1, 0), str(number), fontsize=8, color="#333333", va="bottom", clip_on=True)
        kinds = kinds_of(one.gt_index, other.gt_index)
        for kind, color in enumerate(KINDS.values()):
            x, y = one.centers[kinds == kind].T
            axes.scatter(x, y, s=16 if kind == 0 else 34, color=color, alpha=0.6 if kind == 0 else 1,
                         edgecolors="white", linewidths=0.5, zorder=3 + (kind > 0))  # fmt: skip
    handles = [
        Line2D([], [], marker="o", linestyle="", color=color, label=names.get(name, name))
        for name, color in KINDS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=10)
    return figure


def _title(one: Panel, other: Panel) -> str:
    counts = [int((panel.gt_index >= 0).sum()) for panel in (one, other)]
    return f"{one.label}: {counts[0]} and {counts[1]} positives"
