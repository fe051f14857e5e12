"""One page about the assignments of a whole data set: verdict, charts, tables, and the objects without a positive.

report = Report("atss_r50 on train2017")
for number, records in enumerate(...):   # the records of each image
    report.add(number, "000000391895.jpg", records)
Path("report.html").write_text(report.html())
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from torch import Tensor

from visdet_assigners.observe import charts
from visdet_assigners.observe.records import AssignmentRecord
from visdet_assigners.observe.statistics import (
    ObjectTable,
    PriorCounts,
    layer_changes,
    level_names,
    mean_quality,
    queries_of,
    summarize,
)
from visdet_assigners.observe.verdict import findings

_LISTED = 20  # objects without a positive, and classes, on the page; the JSON has all


class AssignerStatistics:
    """The numbers of one assigner, gathered image by image; records aren't kept.

    Args:
        record: the first, which tells what it is called.
        decoder_layers: calls for an image that are decoder layers; what comes after them is the encoder's, and left
            out.  None where all are, or there is one.
    """

    def __init__(self, record: AssignmentRecord, decoder_layers: int | None = None) -> None:
        self.where = record.where
        self.assigner = record.assigner
        self.levels = level_names(record)
        # Priors that stand on no grid are predicted themselves: proposals, refined points.
        self.reads_predictions = record.reads_predictions or (record.priors is not None and not self.levels)
        self.decoder_layers = decoder_layers
        self.last_layer = 0
        self.tables: dict[int, list[ObjectTable]] = {}
        self.counts: dict[int, PriorCounts] = {}
        self.queries: list[tuple[int, int, list[int]]] = []

    def add(self, record: AssignmentRecord, image: int) -> None:
        """Add a record of the image of that number."""
        layer = record.repeat
        if self.decoder_layers is not None and layer >= self.decoder_layers:
            return
        self.last_layer = max(self.last_layer, layer)
        self.tables.setdefault(layer, []).append(ObjectTable.of([record], [image]))
        self.counts[layer] = self.counts.get(layer, PriorCounts()) + PriorCounts.of([record])
        if not self.levels:
            self.levels = level_names(record)
        if record.pred_boxes is not None and record.priors is None:
            self.queries.append((layer, image, queries_of(record).tolist()))

    def layer(self, number: int) -> ObjectTable:
        """The objects as one decoder layer sees them."""
        return ObjectTable.join(self.tables[number])

    @property
    def table(self) -> ObjectTable:
        """The objects, as the last decoder layer sees them."""
        return self.layer(self.last_layer)

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """All numbers, as JSON takes them."""
        summary = summarize(self.table, self.counts[self.last_layer], names, self.levels)
        if self.last_layer:
            summary["layer_quality"] = [mean_quality(self.layer(layer)) for layer in range(self.last_layer + 1)]
            summary["layer_changes"] = layer_changes(self.queries)
        return {"assigner": self.assigner, "reads_predictions": self.reads_predictions, **summary}


class Report:
    """The assignments of a data set.

    Args:
        title: of the page.
        names: of the classes, by label.
        decoder_layers: of the detector, see ``AssignerStatistics``.

    ``alternatives`` are the assigners that the head of each assigner can feed, by ``where``; the verdict advises no
    other.  Where a head isn't known, it may.
    """

    def __init__(self, title: str, names: Sequence[str] = (), decoder_layers: int | None = None) -> None:
        self.title = title
        self.decoder_layers = decoder_layers
        self.names = names
        self.paths: dict[int, str] = {}
        self.notes: list[str] = []
        self.random_weights = False
        self.alternatives: Mapping[str, Collection[str]] = {}
        self.assigners: dict[str, AssignerStatistics] = {}
        self.pictures: dict[tuple[str, int], str] = {}

    def add(self, image: int, path: str, records: Sequence[AssignmentRecord], labels: Tensor | None = None) -> None:
        """Add what was assigned in an image.

        Args:
            image: its number in the data set.
            path: its file.
            records: of all assigners.
            labels: (M,) classes of the objects, for assigners that see one class, as those of proposals do.
        """
        self.paths[image] = path
        for record in records:
            if labels is not None:
                record = record.with_labels(labels)
            if record.where not in self.assigners:
                self.assigners[record.where] = AssignerStatistics(record, self.decoder_layers)
            self.assigners[record.where].add(record, image)

    def without_positives(self, where: str) -> list[dict[str, Any]]:
        """The objects of one assigner that got no positive, smallest first."""
        table = self.assigners[where].table
        lost = table.where(table.positives == 0)
        return [
            {
                "image": self.paths[int(lost.image[row])],
                "number": int(lost.image[row]),
                "object": int(lost.number[row]),
                "class": self.class_name(int(lost.label[row])),
                "box": [round(float(value), 1) for value in lost.box[row]],
                "size": round(float(lost.size[row]), 1),
            }
            for row in np.argsort(lost.size, kind="stable")
        ]

    def class_name(self, label: int) -> str:
        """Name of a class, or its number."""
        return self.names[label] if 0 <= label < len(self.names) else str(label)

    def to_show(self, where: str, count: int) -> list[int]:
        """Images that are most worth a look: the most objects without a positive, then the fewest for an object."""
        table = self.assigners[where].table
        images = np.unique(table.image)
        lost = np.array([(table.positives[table.image == image] == 0).sum() for image in images])
        fewest = np.array([table.positives[table.image == image].min() for image in images])
        return images[np.lexsort((fewest, -lost))][:count].tolist()

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain lists and dictionaries."""
        assigners = {}
        for where, statistics in self.assigners.items():
            summary = {**statistics.summary(self.names), "random_weights": self.random_weights}
            known = {**summary, "alternatives": self.alternatives.get(where)}
            verdict = [vars(finding) for finding in findings(known, statistics.assigner)]
            assigners[where] = {"verdict": verdict, **summary, "objects_without": self.without_positives(where)}
        return {"title": self.title, "images": len(self.paths), "notes": self.notes, "assigners": assigners}

    def html(self) -> str:
        """One page that needs no other file."""
        data = self.as_json()
        sections = [
            {"where": where, **section, "charts": self._charts(where, section), "pictures": self._pictures(where)}
            for where, section in data["assigners"].items()
        ]
        text = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.filters.update(percent=_percent, number=_number)
        return environment.from_string(text).render({**data, "sections": sections, "listed": _LISTED})

    def _charts(self, where: str, summary: Mapping[str, Any]) -> dict[str, str]:
        """Charts of one assigner by caption, as SVG."""
        statistics = self.assigners[where]
        table = statistics.table
        figures = {}
        if not summary.get("layer_changes"):  # one query for each object, whatever its size
            name = "Positives of each object, by its size"
            figures[name] = charts.positives_chart({statistics.assigner: table})
        if statistics.levels:
            figures["The level that positives lie in, by the size of the object"] = charts.levels_chart(
                table, statistics.levels
            )
        if np.isfinite(table.quality).any():
            figures["How well the positives of an object fit it"] = charts.quality_chart({statistics.assigner: table})
        if summary.get("layer_changes"):
            figures["Matching from layer to layer"] = charts.layers_chart(
                summary["layer_quality"], summary["layer_changes"]
            )
        return {caption: charts.as_svg(figure) for caption, figure in figures.items()}

    def _pictures(self, where: str) -> list[dict[str, Any]]:
        return [
            {"number": image, "path": self.paths[image], "address": address}
            for (name, image), address in self.pictures.items()
            if name == where
        ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    """A number as a table shows it: integers whole, others to two decimals."""
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
