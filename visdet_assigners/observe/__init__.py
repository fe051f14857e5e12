"""Seeing what an assigner does: ``tap`` records assignments, ``priors`` reads grids, ``draw`` makes pictures."""

from visdet_assigners.observe.tap import AssignmentRecord, record_assignments, tap

__all__ = ["AssignmentRecord", "record_assignments", "tap"]
