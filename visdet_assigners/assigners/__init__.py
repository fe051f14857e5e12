"""The assigners: one file each, a pure function and a thin class around it."""

from visdet_assigners.assigners.atss import ATSSAssigner, atss, ddod_quality
from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.assigners.hungarian import HungarianAssigner, hungarian
from visdet_assigners.assigners.mask_hungarian import MaskHungarianAssigner
from visdet_assigners.assigners.max_iou import MaxIoUAssigner, match_by_iou, max_iou
from visdet_assigners.assigners.sim_ota import SimOTAAssigner, sim_ota
from visdet_assigners.assigners.task_aligned import TaskAlignedAssigner, task_aligned
from visdet_assigners.match_costs import BaseMatchCost

__all__ = [
    "ATSSAssigner",
    "BaseAssigner",
    "BaseMatchCost",
    "HungarianAssigner",
    "MaskHungarianAssigner",
    "MaxIoUAssigner",
    "SimOTAAssigner",
    "TaskAlignedAssigner",
    "atss",
    "ddod_quality",
    "hungarian",
    "match_by_iou",
    "max_iou",
    "sim_ota",
    "task_aligned",
]
