"""A record cut into what one picture shows: a level, the proposals, or the queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visdet_assigners.assignment import IGNORED
from visdet_assigners.functional.masks import center_of_mass
from visdet_assigners.observe.priors import are_points, centers_and_sizes, grid_stride, infer_level_sizes
from visdet_assigners.observe.records import AssignmentRecord, MaskRecord

Array = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Panel:
    """What one panel shows.

    Attributes:
        title: level or call, with counts.
        label: the title's shortest form, for the table.
        centers: (P, 2) pixels, prior centres, or centres of the boxes or masks that queries predict; NaN without one.
        gt_index: (P,) as in the record; a prior that stands for several objects comes several times.
        stride: distance of neighbouring priors in pixels, where they are on a grid.
        boxes: (P, 4) xyxy, of proposals and queries alone; (P, 4, 2) corners where they aren't upright.
        are_queries: whether the boxes are predicted ones that are matched one to one.
        masks: (P, h, w) bool, what the queries predict, of the image in any resolution; instead of their boxes.
    """

    title: str
    label: str
    centers: Array
    gt_index: NDArray[np.int64]
    stride: float | None = None
    boxes: Array | None = None
    are_queries: bool = False
    masks: NDArray[np.bool_] | None = None


def panels_of(record: AssignmentRecord) -> list[Panel]:
    """Split a record into panels: one per level for priors on a grid, one for proposals, one for queries.

    None where there is nothing to place: masks without the images they belong to.
    """
    gt_index = record.gt_index.cpu()
    if record.priors is None:
        if record.pred_boxes is None:
            return []
        query_boxes = record.pred_boxes.float().cpu().numpy()
        matched = int((gt_index >= 0).sum())
        number = record.call if record.image is None else record.repeat  # with an image, calls of its own are known
        name = f"call {number + 1}"
        title = f"{name}: {matched} of {len(query_boxes)} queries matched"
        centers = (query_boxes[:, :2] + query_boxes[:, 2:]) / 2
        masks = None
        if isinstance(record, MaskRecord):
            masks = record.pred_masks.cpu().numpy()
            (height, width), (rows, columns) = record.gt_masks.shape[1:], masks.shape[1:]
            middle = center_of_mass(record.pred_masks).cpu().numpy() + 0.5
            centers = middle * (width / columns, height / rows)
            centers[~masks.any(axis=(1, 2))] = np.nan  # an empty mask has no place
        shapes = record.corners["pred_boxes"].cpu().numpy() if "pred_boxes" in record.corners else query_boxes
        return [Panel(title, name, centers, gt_index.numpy(), boxes=shapes, are_queries=True, masks=masks)]

    priors = record.priors.float().cpu()
    level_sizes = record.level_sizes
    if level_sizes is None or sum(level_sizes) != len(priors):
        level_sizes = infer_level_sizes(priors)
    if level_sizes is None or gt_index.ndim > 1:
        title = f"{len(priors)} proposals: {_counts(gt_index.numpy())}"
        if gt_index.ndim > 1:  # a proposal comes once for each of its instances
            title += f", {int((gt_index >= 0).all(dim=1).sum())} proposals for {gt_index.shape[1]} objects"
            priors = priors.repeat_interleave(gt_index.shape[1], dim=0)
        centers, _ = centers_and_sizes(priors)
        boxes = None if are_points(priors) else priors[:, :4].numpy()
        if "priors" in record.corners:
            boxes = record.corners["priors"].cpu().numpy()
        return [Panel(title, "proposals", centers.numpy(), gt_index.flatten().numpy(), boxes=boxes)]
    panels = []
    all_centers, _ = centers_and_sizes(priors)
    for number, (centers, index) in enumerate(zip(all_centers.split(level_sizes), gt_index.split(level_sizes))):
        stride = grid_stride(centers)
        name = f"level {number}" if stride is None else f"stride {stride:g}"
        panels.append(Panel(f"{name}: {_counts(index.numpy())}", name, centers.numpy(), index.numpy(), stride))
    return panels


def positive_dots(panel: Panel) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Group positives by place and object.

    Returns:
        (D, 2) centres, (D,) objects and (D,) how many positives the dot stands for: several anchors share a location.
    """
    positive = panel.gt_index >= 0
    claims = np.column_stack([panel.centers[positive].round(2), panel.gt_index[positive]])  # (P, 3)
    dots, counts = np.unique(claims, axis=0, return_counts=True)
    return dots[:, :2], dots[:, 2].astype(np.int64), counts


def _counts(gt_index: NDArray[np.int64]) -> str:
    ignored = int((gt_index == IGNORED).sum())
    return f"{(gt_index >= 0).sum()} positives" + (f", {ignored} ignored" if ignored else "")
