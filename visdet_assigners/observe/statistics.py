"""What many assignments have in common: positives of each object by its size, level, class; quality; stability.

Pure functions over records, ours or anybody's: a table with a row for each object, then numbers from the table.

    table = ObjectTable.of(records, images)   # the records of one assigner, and the number of the image of each
    summary = summarize(table, PriorCounts.of(records), class_names)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visdet_assigners.assignment import IGNORED
from visdet_assigners.functional.boxes import box_iou
from visdet_assigners.observe.outlines import are_inside
from visdet_assigners.observe.priors import are_points, centers_and_sizes, grid_stride, infer_level_sizes
from visdet_assigners.observe.records import AssignmentRecord

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SIZE_CLASSES = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, float("inf"))}
"""COCO's classes, by the square root of the area in pixels of the image that the model gets."""
_LEVELS = 16  # more than any detector has


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """A row for each of K objects under one assigner.

    Attributes:
        image: (K,) number of the image, as the caller counts them.
        number: (K,) of the object within its image.
        label: (K,) class, as the assigner saw it; -1 where it saw none.
        box: (K, 4) xyxy, pixels of the image that the model got, of a rotated object as it would be without its angle;
            NaN where objects have no boxes.
        positives: (K,) how many priors or queries the object got.
        quality: (K,) mean quality of its positives; NaN where it has none.
        levels: (K, 16) positives in each level; all 0 where priors stand on no grid.
    """

    image: Integers
    number: Integers
    label: Integers
    box: Floats
    positives: Integers
    quality: Floats
    levels: Integers

    @classmethod
    def of(cls, records: Sequence[AssignmentRecord], images: Sequence[int]) -> ObjectTable:
        """Make the table of records, each of the image of that number; there may be none."""
        parts = [_rows(record, image) for record, image in zip(records, images)] or [_rows(_NOTHING, 0)]
        return cls(*map(np.concatenate, zip(*parts)))

    @classmethod
    def join(cls, tables: Sequence[ObjectTable]) -> ObjectTable:
        """Put tables below each other; there may be none."""
        columns = ([getattr(table, name) for table in tables] for name in cls.__dataclass_fields__)
        return cls(*map(np.concatenate, columns)) if tables else cls.of([], [])

    def __len__(self) -> int:
        return len(self.image)

    @property
    def size(self) -> Floats:
        """(K,) square root of the area, pixels."""
        width, height = (self.box[:, 2:] - self.box[:, :2]).clip(min=0).T
        return np.sqrt(width * height)

    def where(self, chosen: NDArray[np.bool_]) -> ObjectTable:
        """Rows that are chosen, (K,) bool."""
        return ObjectTable(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class PriorCounts:
    """How many priors (or queries) of all images there are, and of what kind.

    Attributes:
        total: all.
        positive: matched with an object.
        ignored: left out of the loss.
        contested: positive, with the centre inside a second object too.
    """

    total: int = 0
    positive: int = 0
    ignored: int = 0
    contested: int = 0

    @classmethod
    def of(cls, records: Sequence[AssignmentRecord]) -> PriorCounts:
        """Count over records."""
        counts = cls()
        for record in records:
            index = record.gt_index
            kinds = int((index >= 0).sum()), int((index == IGNORED).sum())
            counts += cls(index.numel(), *kinds, count_contested(record))
        return counts

    def __add__(self, other: PriorCounts) -> PriorCounts:
        return PriorCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other))))


def count_contested(record: AssignmentRecord) -> int:
    """How many positives have their centre inside two objects or more, where one of them had to win."""
    places = record.priors if record.priors is not None else record.pred_boxes
    if places is None or record.gt_boxes is None or not len(record.gt_boxes):
        return 0
    centers = centers_and_sizes(places[(record.gt_index >= 0).reshape(len(places), -1).any(dim=1)])[0]
    if "gt_boxes" in record.corners:
        return int((are_inside(centers, record.corners["gt_boxes"]).sum(dim=1) > 1).sum())
    x, y = centers.unbind(1)
    x1, y1, x2, y2 = record.gt_boxes.unbind(1)
    inside = (x[:, None] > x1) & (x[:, None] < x2) & (y[:, None] > y1) & (y[:, None] < y2)  # (P, M)
    return int((inside.sum(dim=1) > 1).sum())


def match_quality(record: AssignmentRecord) -> Tensor | None:
    """(N,) or (N, I) quality as recorded, or the IoU of the matched pairs where the assigner gives none.

    IoU is that of the predicted box, or of the prior where nothing is predicted; 0 where nothing is matched.  None
    where there is neither, as for points, and for boxes that aren't upright.
    """
    if record.quality is not None:
        return record.quality.float()
    boxes = record.pred_boxes if record.pred_boxes is not None else record.priors
    if boxes is None or record.gt_boxes is None or record.corners or boxes.shape[-1] < 4 or are_points(boxes):
        return None
    quality = boxes.new_zeros(len(boxes))
    matched = record.gt_index >= 0
    iou = box_iou(boxes[matched][:, :4].float(), record.gt_boxes.float())
    quality[matched] = iou.gather(1, record.gt_index[matched][:, None]).flatten().to(quality)
    return quality


def queries_of(record: AssignmentRecord) -> Tensor:
    """(M,) which query each object got, -1 where none; of several, any.  Doesn't synchronise with the device."""
    count = record.num_objects
    index = record.gt_index if record.gt_index.ndim == 1 else record.gt_index[:, 0]
    query = index.new_full((count + 1,), -1)
    numbers = torch.arange(len(index), device=index.device)
    return query.scatter_(0, torch.where(index >= 0, index, count), numbers)[:count]


def instability(before: Sequence[Any], after: Sequence[Any]) -> float:
    """Share of objects whose query changed, over pairs of equally long sequences; NaN for no objects.

    The measure IS of DN-DETR (Li et al., CVPR 2022, arXiv:2203.01305), per object.

    Example:
        >>> instability([[4, 7], [1]], [[4, 9], [1]])
        0.3333333333333333
    """
    pairs = [(a, b) for mine, other in zip(before, after) for a, b in zip(mine, other)]
    return float(np.mean([a != b for a, b in pairs])) if pairs else float("nan")


def layer_changes(queries: Sequence[tuple[int, int, Sequence[int]]]) -> list[float]:
    """Share of objects whose query differs from that in the layer before, for every layer after the first.

    Args:
        queries: layer, image, and the query of each of its objects.
    """
    layers: dict[int, dict[int, Sequence[int]]] = {}
    for layer, image, numbers in queries:
        layers.setdefault(layer, {})[image] = numbers
    shares = []
    for last, this in itertools.pairwise(layers[layer] for layer in sorted(layers)):
        both = [image for image in this if image in last]
        shares.append(instability([last[image] for image in both], [this[image] for image in both]))
    return shares


def level_names(record: AssignmentRecord) -> list[str]:
    """What the levels are called: by stride where they have one; none where priors stand on no grid."""
    sizes = _level_sizes(record)
    if sizes is None or record.priors is None:
        return []
    strides = [grid_stride(centers) for centers in centers_and_sizes(record.priors.float().cpu())[0].split(sizes)]
    return [f"level {level}" if stride is None else f"stride {stride:g}" for level, stride in enumerate(strides)]


def size_edges(table: ObjectTable) -> Floats:
    """Edges of bins of half an octave that hold all objects, pixels; at least two."""
    size = table.size[np.isfinite(table.size) & (table.size > 0)]
    low, high = (np.log2(size.min()), np.log2(size.max())) if len(size) else (3.0, 4.0)
    return 2.0 ** np.arange(np.floor(2 * low) / 2, np.floor(2 * high) / 2 + 0.51, 0.5)


def positives_by_size(table: ObjectTable, edges: Floats) -> list[dict[str, Any]]:
    """Positives of the objects in each bin of sizes: count, median, the band of 10 to 90 %, share without any.

    Args:
        table: of the objects.
        edges: (B + 1,) pixels, ascending.

    Returns:
        A row for each bin that has objects.
    """
    rows = []
    for low, high in itertools.pairwise(edges):
        positives = table.positives[(table.size >= low) & (table.size < high)]
        if len(positives):
            tenth, median, most = np.percentile(positives, [10, 50, 90])
            rows.append({
                "from": float(low), "to": float(high), "objects": len(positives), "median": float(median),
                "p10": float(tenth), "p90": float(most), "without": float((positives == 0).mean()),
            })  # fmt: skip
    return rows


def levels_by_size(table: ObjectTable, edges: Floats) -> Floats:
    """(levels, B): where the positives of the objects of each size are, shares that sum to 1 in each bin with any."""
    bins = np.digitize(table.size, edges) - 1
    counts = np.zeros((_LEVELS, len(edges) - 1))
    for column in range(counts.shape[1]):
        counts[:, column] = table.levels[bins == column].sum(axis=0)
    return counts / np.maximum(counts.sum(axis=0), 1)


def mean_quality(table: ObjectTable) -> float | None:
    """Mean over the objects that have a positive with a quality; None where there is none."""
    known = table.quality[np.isfinite(table.quality)]
    return float(known.mean()) if len(known) else None


def summarize(
    table: ObjectTable, priors: PriorCounts, names: Sequence[str] = (), levels: Sequence[str] = ()
) -> dict[str, Any]:
    """Collect all numbers of one assigner in plain lists and dictionaries, as JSON takes them.

    Args:
        table: of the objects; it may be empty.
        priors: of the same images.
        names: of the classes, by label.
        levels: names of the levels, none where priors stand on no grid.
    """
    edges = size_edges(table)
    low, median, high = _percentiles(table.quality, [10, 50, 90])
    return {
        "objects": len(table),
        "images_with_objects": len(np.unique(table.image)),
        **_outline(table),
        "quality": {"p10": low, "median": median, "p90": high},
        "priors": asdict(priors),
        "by_size_class": {
            name: {"objects": int(chosen.sum()), **_outline(table.where(chosen))}
            for name, (least, most) in SIZE_CLASSES.items()
            for chosen in [(table.size >= least) & (table.size < most)]
        },
        "by_size": positives_by_size(table, edges),
        "by_class": [
            {
                "class": names[label] if 0 <= label < len(names) else str(label),
                "objects": int(chosen.sum()),
                "median_size": _percentiles(table.size[chosen], [50])[0],
                **_outline(table.where(chosen)),
            }
            for label in np.unique(table.label).tolist()
            for chosen in [table.label == label]
        ],
        "by_level": {
            level: int(count) for level, count in zip(levels, table.levels.sum(axis=0))
        },
    }  # fmt: skip


def _outline(table: ObjectTable) -> dict[str, float | None]:
    """Positives of the objects, their quality and the share that has none; None where there is nothing to tell."""
    if not len(table):
        return {"median_positives": None, "mean_positives": None, "without": None, "mean_quality": None}
    return {
        "median_positives": float(np.median(table.positives)),
        "mean_positives": float(table.positives.mean()),
        "without": float((table.positives == 0).mean()),
        "mean_quality": mean_quality(table),
    }


def _percentiles(values: Floats, which: list[float]) -> list[float | None]:
    known = values[np.isfinite(values)]
    return [float(value) for value in np.percentile(known, which)] if len(known) else [None] * len(which)


def _rows(record: AssignmentRecord, image: int) -> tuple[NDArray[Any], ...]:
    """The columns of one record's objects, in the order of the table."""
    count = record.num_objects
    positives = record.positives_per_object().cpu()
    boxes = np.full((count, 4), np.nan)
    if record.gt_boxes is not None:
        boxes = record.gt_boxes[:, :4].double().cpu().numpy()
        if "gt_boxes" in record.corners:
            center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, record.gt_sizes.double().cpu().numpy() / 2
            boxes = np.concatenate([center - half, center + half], axis=1)
    labels = np.full(count, -1) if record.gt_labels is None else record.gt_labels.cpu().numpy()

    matched = record.gt_index >= 0
    owner = record.gt_index[matched].cpu()
    quality = np.full(count, np.nan)
    values = match_quality(record)
    if values is not None:
        sums = torch.zeros(count, dtype=torch.double).index_add_(0, owner, values[matched].double().cpu())
        quality = torch.where(positives > 0, sums / positives.clamp(min=1), torch.nan).numpy()

    levels = torch.zeros(count, _LEVELS, dtype=torch.long)
    sizes = _level_sizes(record)
    if sizes is not None and len(sizes) <= _LEVELS and record.gt_index.ndim == 1:
        level = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[matched.cpu()]
        levels.view(-1).index_add_(0, owner * _LEVELS + level, torch.ones_like(owner))
    numbers = np.arange(count)
    return np.full(count, image), numbers, labels.astype(np.int64), boxes, positives.numpy(), quality, levels.numpy()


def _level_sizes(record: AssignmentRecord) -> tuple[int, ...] | None:
    """Priors in each level, as the head gave them or as the grid shows; None where priors stand on no grid."""
    if record.priors is None or not len(record.priors) or record.gt_index.ndim > 1:
        return None
    if record.level_sizes is not None and sum(record.level_sizes) == len(record.priors):
        return record.level_sizes
    return infer_level_sizes(record.priors.float().cpu())


_NOTHING = AssignmentRecord("", "", "", 0, torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
