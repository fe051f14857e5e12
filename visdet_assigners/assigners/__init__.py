"""The assigners: one file each, a pure function and a thin class around it.

The classes stand here; the functions are imported from their files, as ``from visdet_assigners.assigners.atss import
atss``.
"""

from visdet_assigners.assigners.atss import ATSSAssigner
from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.assigners.hungarian import HungarianAssigner
from visdet_assigners.assigners.mask_hungarian import MaskHungarianAssigner
from visdet_assigners.assigners.max_iou import MaxIoUAssigner
from visdet_assigners.assigners.sim_ota import SimOTAAssigner
from visdet_assigners.assigners.task_aligned import TaskAlignedAssigner

__all__ = [
    "ATSSAssigner",
    "BaseAssigner",
    "HungarianAssigner",
    "MaskHungarianAssigner",
    "MaxIoUAssigner",
    "SimOTAAssigner",
    "TaskAlignedAssigner",
]
