"""Pure functions over tensors: geometry, costs, selection, conflicts, matching.  They need torch (and scipy) alone."""

from visdet_assigners.functional.boxes import (
    border_distance,
    box_area,
    box_center,
    box_iou,
    box_overlaps,
    center_distance,
    xyxy_to_cxcywh,
)
from visdet_assigners.functional.lsap import linear_assignment, linear_assignments
from visdet_assigners.functional.resolve import keep_best, last_claim
from visdet_assigners.functional.select import cheapest, dynamic_k, nearest_per_level

__all__ = [
    "border_distance",
    "box_area",
    "box_center",
    "box_iou",
    "box_overlaps",
    "center_distance",
    "cheapest",
    "dynamic_k",
    "keep_best",
    "last_claim",
    "linear_assignment",
    "linear_assignments",
    "nearest_per_level",
    "xyxy_to_cxcywh",
]
