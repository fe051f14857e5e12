"""The assigners: one file each, a pure function and a thin class around it.

The classes stand here; the functions are imported from their files, as ``from visdet_assigners.assigners.atss import
atss``.
"""

from visdet_assigners.assigners.approx_max_iou import ApproxMaxIoUAssigner
from visdet_assigners.assigners.ascend_max_iou import AscendMaxIoUAssigner
from visdet_assigners.assigners.atss import ATSSAssigner
from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.assigners.center_region import CenterRegionAssigner
from visdet_assigners.assigners.dynamic_soft_label import DynamicSoftLabelAssigner
from visdet_assigners.assigners.grid import GridAssigner
from visdet_assigners.assigners.hierarchical import HierarchicalAssigner
from visdet_assigners.assigners.hungarian import HungarianAssigner
from visdet_assigners.assigners.mask_hungarian import MaskHungarianAssigner
from visdet_assigners.assigners.max_iou import MaxIoUAssigner
from visdet_assigners.assigners.multi_instance import MultiInstanceAssigner
from visdet_assigners.assigners.point import PointAssigner
from visdet_assigners.assigners.poto import POTOAssigner
from visdet_assigners.assigners.ranking import RankingAssigner
from visdet_assigners.assigners.region import RegionAssigner
from visdet_assigners.assigners.scale_range import ScaleRangeAssigner
from visdet_assigners.assigners.scheduled import ScheduledAssigner
from visdet_assigners.assigners.sim_ota import SimOTAAssigner
from visdet_assigners.assigners.task_aligned import TaskAlignedAssigner
from visdet_assigners.assigners.topk_hungarian import TopkHungarianAssigner
from visdet_assigners.assigners.uniform import UniformAssigner

__all__ = [
    "ATSSAssigner",
    "ApproxMaxIoUAssigner",
    "AscendMaxIoUAssigner",
    "BaseAssigner",
    "CenterRegionAssigner",
    "DynamicSoftLabelAssigner",
    "GridAssigner",
    "HierarchicalAssigner",
    "HungarianAssigner",
    "MaskHungarianAssigner",
    "MaxIoUAssigner",
    "MultiInstanceAssigner",
    "POTOAssigner",
    "PointAssigner",
    "RankingAssigner",
    "RegionAssigner",
    "ScaleRangeAssigner",
    "ScheduledAssigner",
    "SimOTAAssigner",
    "TaskAlignedAssigner",
    "TopkHungarianAssigner",
    "UniformAssigner",
]
