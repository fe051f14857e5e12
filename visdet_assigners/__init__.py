"""Label assignment for mmdet: which predictions learn from which objects.

Importing the package registers its classes with mmengine where that is installed; torch and scipy alone are enough to
use the functions and classes directly.  Functions decide one image, tensors in and an `Assignment` out; the classes of
the same names do so for heads.
"""
# ruff: noqa: E402

from visdet_assigners.command_line import answer_at_once

answer_at_once()

from visdet_assigners import match_costs
from visdet_assigners.assigners import *  # noqa: F403
from visdet_assigners.assigners import __all__ as _assigners
from visdet_assigners.assigners.atss import atss
from visdet_assigners.assigners.center_region import center_region
from visdet_assigners.assigners.dynamic_soft_label import dynamic_soft_label
from visdet_assigners.assigners.grid import grid
from visdet_assigners.assigners.hierarchical import hierarchical
from visdet_assigners.assigners.hungarian import hungarian
from visdet_assigners.assigners.max_iou import match_by_iou, max_iou
from visdet_assigners.assigners.multi_instance import multi_instance
from visdet_assigners.assigners.point import point
from visdet_assigners.assigners.poto import poto
from visdet_assigners.assigners.ranking import ranking
from visdet_assigners.assigners.region import region
from visdet_assigners.assigners.scale_range import scale_range
from visdet_assigners.assigners.sim_ota import sim_ota
from visdet_assigners.assigners.task_aligned import task_aligned
from visdet_assigners.assigners.topk_hungarian import topk_hungarian
from visdet_assigners.assigners.uniform import uniform
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult
from visdet_assigners.dropped import replaced_counts
from visdet_assigners.errors import AssignerInputError
from visdet_assigners.settings import set_deterministic, set_memory_budget, set_on_nonfinite

__version__ = "0.1.0"

__all__ = [
    "IGNORED",
    "NEGATIVE",
    "AssignResult",
    "AssignerInputError",
    "Assignment",
    "__version__",
    "atss",
    "center_region",
    "dynamic_soft_label",
    "grid",
    "hierarchical",
    "hungarian",
    "match_by_iou",
    "match_costs",
    "max_iou",
    "multi_instance",
    "point",
    "poto",
    "ranking",
    "region",
    "replaced_counts",
    "scale_range",
    "set_deterministic",
    "set_memory_budget",
    "set_on_nonfinite",
    "sim_ota",
    "task_aligned",
    "topk_hungarian",
    "uniform",
    *_assigners,
]
