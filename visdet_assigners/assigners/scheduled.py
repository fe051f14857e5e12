"""Scheduled: one assigner until an epoch, then another, as ATSS until predictions mean something, then TaskAligned.

Li et al., YOLOv6, arXiv:2209.02976, and Xu et al., PP-YOLOE, arXiv:2203.16250, train their first epochs so.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from typing_extensions import Unpack

from visdet_assigners.assigners.base import BaseAssigner, Common
from visdet_assigners.assigners.forms import in_any_form
from visdet_assigners.assignment import AssignResult
from visdet_assigners.functional.validity import Kind
from visdet_assigners.registry import build, register
from visdet_assigners.schedule import progress

SHARED = {"memory_budget": None, "compile": False, "deterministic": None, "on_nonfinite": None}
"""Options that the assigners of a schedule take from it, and what they are where nobody sets them."""


@register
class ScheduledAssigner(BaseAssigner):
    """Assign by one of several assigners, by the epoch of the training.

    The epoch is the running training's, which mmengine keeps in its ``MessageHub``, also after a resume; outside of a
    training it is 0, unless the attribute ``epoch`` says otherwise, as a loop of one's own may.

    Each assigner gets of the head's arguments those that it takes, and its result goes to the head as it is.  So both
    must fit the head: they read what it gives, and their results have what its loss reads.  TOOD's head switches by
    itself (``initial_epoch``), and its loss with it.

    Args:
        assigners: configurations or objects, in the order of their turns.
        milestones: the epoch, or iteration, from which on each but the first has its turn, ascending, counted from 0:
            4 means that four epochs are done.
        by_epoch: whether epochs count, or iterations.
        **common: see ``BaseAssigner``; they hold for the assigners that don't set them themselves.

    Example:
        >>> schedule = ScheduledAssigner(
        ...     [dict(type="ATSSAssigner", topk=9), dict(type="TaskAlignedAssigner", topk=13)], milestones=[4])
        >>> schedule.epoch = 3
        >>> type(schedule.current).__name__
        'ATSSAssigner'
        >>> schedule.epoch = 4
        >>> type(schedule.current).__name__
        'TaskAlignedAssigner'
    """

    epoch: int | None = None
    """The epoch, or iteration, where it isn't that of the running training."""

    def __init__(
        self, assigners: Sequence[Any], milestones: Sequence[int], by_epoch: bool = True, **common: Unpack[Common]
    ) -> None:
        super().__init__(**common)
        if len(assigners) < 2 or len(milestones) != len(assigners) - 1:
            text = "give two assigners or more, and a milestone for each but the first"
            self.fail(f"there are {len(assigners)} assigners and {len(milestones)} milestones; {text}")
        self.milestones = [self.count_of("milestones", milestone) for milestone in milestones]
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            self.fail(f"milestones are {list(milestones)}; they must ascend")
        self.assigners = [build(assigner) for assigner in assigners]
        self.by_epoch = by_epoch

    @classmethod
    def reads_of(cls, assigner: Any) -> Mapping[str, Kind]:
        """What the assigner reads whose turn it is."""
        current = assigner.current
        return type(current).reads_of(current) if isinstance(current, BaseAssigner) else {}

    @property
    def knobs(self) -> str:  # type: ignore[override]
        """What to change of the assigner whose turn it is."""
        return getattr(self.current, "knobs", "")

    @property
    def levels(self) -> str:
        """Whether the assigner whose turn it is needs the sizes of the levels, see `DenseAssigner`."""
        return getattr(self.current, "levels", "unused")

    @property
    def matches_on_host(self) -> bool:  # type: ignore[override]
        """Whether the assigner whose turn it is matches on the host."""
        return getattr(self.current, "matches_on_host", False)

    @property
    def ignore_iof_thr(self) -> float:
        """The threshold for ignore regions of the assigner whose turn it is."""
        return getattr(self.current, "ignore_iof_thr", -1)

    @property
    def current(self) -> Any:
        """The assigner whose turn it is, with the options of the schedule."""
        assigner = self.assigners[bisect_right(self.milestones, self._now())]
        if isinstance(assigner, BaseAssigner):
            for name, unset in SHARED.items():
                if getattr(self, name) != unset and getattr(assigner, name) == unset:
                    setattr(assigner, name, getattr(self, name))
        return assigner

    def _now(self) -> int:
        return progress(self.by_epoch) if self.epoch is None else self.epoch

    @in_any_form
    def assign(  # type: ignore[override]
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any = None,
        alpha: float | None = None,
        beta: float | None = None,
        *,
        num_level_priors: Sequence[int] | None = None,
        img_meta: Mapping[str, Any] | None = None,
    ) -> AssignResult:
        """Assign the priors of one image.

        Args:
            pred_instances: with the fields that the assigner reads whose turn it is.
            gt_instances: as for every assigner.
            gt_instances_ignore: likewise.
            alpha: TOOD's exponents, for assigners that take them; and so ``beta``.
            beta: see there.
            num_level_priors: likewise; also in the second place.
            img_meta: of the image.

        Raises:
            AssignerInputError: the assigner whose turn it is misses something, or there is something wrong.
        """
        given = {"alpha": alpha, "beta": beta, "num_level_priors": num_level_priors, "img_meta": img_meta}
        given["gt_instances_ignore"] = gt_instances_ignore
        current = self.current
        parameters = inspect.signature(current.assign).parameters
        known = {name: value for name, value in given.items() if value is not None and name in parameters}
        return current.assign(pred_instances=pred_instances, gt_instances=gt_instances, **known)

    def assign_batch(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any] | None] | None = None,
        **shared: Any,
    ) -> list[AssignResult]:
        """Assign B images, together where the assigner can whose turn it is; see ``BaseAssigner.assign_batch``."""
        current = self.current
        if not isinstance(current, BaseAssigner):
            return super().assign_batch(pred_list, gt_list, ignore_list, img_metas, **shared)
        parameters = inspect.signature(current.assign).parameters
        known = {name: value for name, value in shared.items() if name in parameters}
        return current.assign_batch(pred_list, gt_list, ignore_list, img_metas, **known)
