"""Label assignment for mmdet: which predictions learn from which objects.

Importing the package registers its classes with mmengine where that is installed; torch and scipy alone are enough to
use the functions and classes directly.
"""

from visdet_assigners import match_costs
from visdet_assigners.assigners import *  # noqa: F403
from visdet_assigners.assigners import __all__ as _assigners
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult
from visdet_assigners.functional.blocks import set_memory_budget
from visdet_assigners.functional.inputs import AssignerInputError, replaced_counts, set_on_nonfinite
from visdet_assigners.functional.ties import set_deterministic

__version__ = "0.1.0"

__all__ = [
    "IGNORED",
    "NEGATIVE",
    "AssignResult",
    "AssignerInputError",
    "Assignment",
    "__version__",
    "match_costs",
    "replaced_counts",
    "set_deterministic",
    "set_memory_budget",
    "set_on_nonfinite",
    *_assigners,
]
