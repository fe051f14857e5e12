"""Heads that use what mmdet's own heads can't.  The one part of the package that is built on mmdet.

``type='visdet_assigners.StaticRetinaHead'`` in a config makes mmengine import this.
"""

from visdet_assigners.heads.any_assigner_retina import AnyAssignerRetinaHead
from visdet_assigners.heads.assigned_fcos import AssignedFCOSHead
from visdet_assigners.heads.batched_detr import BatchedDeformableDETRHead, BatchedDETRHead, BatchedDINOHead
from visdet_assigners.heads.point_coder import PointBBoxCoder
from visdet_assigners.heads.static_retina import StaticRetinaHead

__all__ = [
    "AnyAssignerRetinaHead",
    "AssignedFCOSHead",
    "BatchedDETRHead",
    "BatchedDINOHead",
    "BatchedDeformableDETRHead",
    "PointBBoxCoder",
    "StaticRetinaHead",
]
