"""How many rows of inputs assigners have left out, counted without waiting for a device."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

_dropped: dict[tuple[str, str, torch.device], _Tally] = {}
"""Counts of dropped rows, by assigner, field and device."""


class _Tally:
    """Counts rows that are not kept, on the device where that is known, adding up only now and then."""

    AT_ONCE = 32

    def __init__(self) -> None:
        self.rows = 0
        self.kept: Tensor | int = 0
        self.waiting: list[Tensor] = []

    def add(self, good: Tensor) -> None:
        self.rows += len(good)
        self.waiting.append(good)
        if len(self.waiting) == self.AT_ONCE:
            self.add_up()

    def add_up(self) -> None:
        if self.waiting:
            self.kept = self.kept + torch.cat(self.waiting).sum()
            self.waiting.clear()

    def total(self) -> int:
        self.add_up()
        return self.rows - int(self.kept)


def count_dropped(who: str, what: str, good: Tensor) -> None:
    """Count the rows that an assigner drops, without synchronising.

    Args:
        who: name of the assigner.
        what: the field.
        good: (N,) bool, the rows that are kept; not to be changed afterwards.
    """
    _dropped.setdefault((who, what, good.device), _Tally()).add(good)


def replaced_counts() -> dict[tuple[str, str], int]:
    """Count what assigners have taken out in this process under the policy 'replace'; synchronises with the devices.

    Returns:
        Number of rows by name of the assigner and of the field, or of pairs for "costs" of the Hungarian ones; without
        those of which nothing was taken out.  Calls that a CUDA graph replays are not counted again.

    Example:
        >>> from types import SimpleNamespace as Instances
        >>> import visdet_assigners
        >>> assigner = visdet_assigners.MaxIoUAssigner(0.5, 0.4, on_nonfinite="replace")
        >>> gt = Instances(bboxes=torch.tensor([[0., 0., 9., float("nan")]]), labels=torch.tensor([0]))
        >>> result = assigner.assign(Instances(priors=torch.zeros(3, 4)), gt)
        >>> ("MaxIoUAssigner", "gt_instances.bboxes") in visdet_assigners.replaced_counts()
        True
    """
    counts: Counter[tuple[str, str]] = Counter()
    for (who, what, _), tally in _dropped.items():
        counts[who, what] += tally.total()
    return dict(+counts)
