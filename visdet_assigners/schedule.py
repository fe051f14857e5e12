"""What changes while training: numbers and choices by epoch, or by iteration.

How far a training is stands in mmengine's ``MessageHub``, where mmdet's heads look it up, too.  mmengine writes it
there before each epoch and iteration, also of a resumed training, so nothing need be saved, and no hook is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from visdet_assigners.errors import AssignerInputError
from visdet_assigners.options import OptionError, check_names, number, whole_number


def progress(by_epoch: bool = True) -> int:
    """Number of the epoch, or of the iteration, that is trained, from 0; 0 where nothing is."""
    try:
        from mmengine.logging import MessageHub
    except ModuleNotFoundError:  # mmengine need not be there, and then nobody counts
        return 0
    return MessageHub.get_current_instance().get_info("epoch" if by_epoch else "iter") or 0


def check_begins(who: str, name: str, begins: Sequence[Any]) -> list[int]:
    """Return when the parts of a schedule begin: whole numbers, ascending, the first 0.

    Raises:
        AssignerInputError: they are not.
    """
    numbers = [whole_number(who, name, begin, least=0) for begin in begins]
    if not numbers or numbers[0] != 0 or any(one >= other for one, other in pairwise(numbers)):
        raise AssignerInputError(who, f"{name} is {numbers}; the first must be 0, and each later than the one before")
    return numbers


class Schedule:
    """A number, constant or changing while training: straight lines between points, constant after the last.

    Args:
        who: named in errors.
        name: of the option, likewise.
        value: a number of at least 0; or points (epoch, number), epochs ascending from 0; or
            ``dict(points=..., by_epoch=False)`` with iterations in place of epochs.

    Raises:
        AssignerInputError: it is none of these.

    Example:
        >>> falling = Schedule("collab", "lambda2", [(0, 2.0), (10, 0.2)])
        >>> [round(falling.at(epoch), 2) for epoch in (0, 5, 10, 50)]
        [2.0, 1.1, 0.2, 0.2]
    """

    def __init__(self, who: str, name: str, value: Any) -> None:
        self.by_epoch = True
        if isinstance(value, Mapping):
            check_names(who, value, ("points", "by_epoch"))
            self.by_epoch = bool(value.get("by_epoch", True))
            value = value.get("points", ())
        points = [(0, value)] if not isinstance(value, Sequence) or isinstance(value, str) else value
        if any(not isinstance(point, Sequence) or len(point) != 2 for point in points):
            raise OptionError(who, f"{name} is {value!r}; a number or points (epoch, number) are expected")
        self.begins = check_begins(who, f"{name}'s epochs", [begin for begin, _ in points])
        self.values = [float(number(who, name, each, least=0)) for _, each in points]

    def at(self, step: int) -> float:
        """The number at an epoch or iteration."""
        later = next((place for place, begin in enumerate(self.begins) if begin > step), None)
        if later is None:
            return self.values[-1]
        begin, end = self.begins[later - 1 : later + 1]
        first, last = self.values[later - 1 : later + 1]
        return first + (last - first) * (step - begin) / (end - begin)

    def now(self) -> float:
        """The number at this point of the training."""
        return self.at(progress(self.by_epoch))
