"""Seeing what an assigner does: ``tap`` records assignments, ``priors`` reads grids, ``draw`` makes pictures."""

from visdet_assigners.observe.records import AssignmentRecord, ImageInfo
from visdet_assigners.observe.tap import record_assignments, tap, watch

__all__ = ["AssignmentRecord", "ImageInfo", "record_assignments", "tap", "watch"]
