"""Match costs that change while training."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from visdet_assigners.errors import AssignerInputError
from visdet_assigners.options import OptionError, check_names
from visdet_assigners.registry import build, register
from visdet_assigners.schedule import check_begins, progress


@register
class ScheduledCosts:
    """Other match costs in other epochs: an entry of ``match_costs``, alone or beside others.

    DEIMv2 and Rank-DETR match by a product of class and box, ``HighOrderCost``, once boxes are near their objects, and
    by the usual three costs before.  The epoch is mmengine's, see ``schedule``; a resumed training goes on where it
    was.

    Args:
        stages: each ``dict(begin=EPOCH, match_costs=[...])``, in order, the first with ``begin=0``; a list of costs may
            be empty where others stand beside it.
        by_epoch: False where ``begin`` counts iterations, as for trainings that have no epochs.

    Raises:
        AssignerInputError: the stages are none, not in order, or don't begin at 0.

    Example:
        >>> costs = ScheduledCosts([
        ...     dict(begin=0, match_costs=[dict(type="FocalLossCost", weight=2.0), dict(type="IoUCost")]),
        ...     dict(begin=40, match_costs=[dict(type="HighOrderCost")]),
        ... ])
        >>> [type(cost).__name__ for cost in costs.at(39)], [type(cost).__name__ for cost in costs.at(40)]
        (['FocalLossCost', 'IoUCost'], ['HighOrderCost'])
    """

    def __init__(self, stages: Sequence[Mapping[str, Any]], by_epoch: bool = True) -> None:
        name = type(self).__name__
        for stage in stages:
            if not isinstance(stage, Mapping) or "begin" not in stage or "match_costs" not in stage:
                raise OptionError(name, f"a stage is {stage!r}; write dict(begin=EPOCH, match_costs=[...])")
            check_names(name, stage, ("begin", "match_costs"))
        self.begins = check_begins(name, "begin of the stages", [stage["begin"] for stage in stages])
        self.stages = [[build(cost) for cost in stage["match_costs"]] for stage in stages]
        self.by_epoch = by_epoch

    def at(self, step: int) -> list[Any]:
        """The costs at an epoch or iteration."""
        return self.stages[bisect_right(self.begins, step) - 1]

    def now(self) -> list[Any]:
        """The costs at this point of the training."""
        return self.at(progress(self.by_epoch))

    def __call__(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None = None) -> Tensor:
        """Sum of the costs of now, (N, M), for assigners that take it for a cost, as mmdet's do."""
        costs = [
            cost(pred_instances=pred_instances, gt_instances=gt_instances, img_meta=img_meta) for cost in self.now()
        ]
        if not costs:
            raise AssignerInputError(type(self).__name__, "the stage of this epoch has no match_costs; add one")
        return sum(costs[1:], start=costs[0])


def costs_of_now(match_costs: Sequence[Any]) -> list[Any]:
    """The costs themselves, with those of now in place of ``ScheduledCosts``."""
    found: list[Any] = []
    for cost in match_costs:
        found.extend(cost.now() if isinstance(cost, ScheduledCosts) else [cost])
    return found
