"""Collaborative hybrid assignment training for mmdet's DETRs: Co-DETR.

``type='visdet_assigners.CoDeformableDETR'`` in a config makes mmengine import this.
"""

from visdet_assigners.codetr.adapter import MultiScaleAdapter
from visdet_assigners.codetr.branches import AuxDenseBranch, AuxRoIBranch
from visdet_assigners.codetr.collaboration import Collaboration
from visdet_assigners.codetr.conflict import Conflict, assignment_conflict
from visdet_assigners.codetr.detectors import (
    CoConditionalDETR,
    CoDABDETR,
    CoDeformableDETR,
    CoDINO,
    CollaborativeMixin,
)
from visdet_assigners.codetr.positives import Positives, record_positives
from visdet_assigners.codetr.primary import PrimaryOneToMany, one_to_many
from visdet_assigners.codetr.strip import strip_auxiliary, strip_config

__all__ = [
    "AuxDenseBranch",
    "AuxRoIBranch",
    "CoConditionalDETR",
    "CoDABDETR",
    "CoDINO",
    "CoDeformableDETR",
    "Collaboration",
    "CollaborativeMixin",
    "Conflict",
    "MultiScaleAdapter",
    "Positives",
    "PrimaryOneToMany",
    "assignment_conflict",
    "one_to_many",
    "record_positives",
    "strip_auxiliary",
    "strip_config",
]
