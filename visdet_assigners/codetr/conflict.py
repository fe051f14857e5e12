"""Where heads contradict each other: the share of places that they assign to different objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Conflict:
    """How two heads' assignments of the same places compare, in numbers of places.

    Attributes:
        places: positive in at least one head.
        one_sided: positive in one, background in the other.
        other_object: positive in both, with no object in common.
    """

    places: int = 0
    one_sided: int = 0
    other_object: int = 0

    @property
    def share(self) -> float:
        """Share of the places where the heads contradict each other; 0 where no place is positive."""
        return (self.one_sided + self.other_object) / self.places if self.places else 0.0

    def __add__(self, other: Conflict) -> Conflict:
        return Conflict(
            self.places + other.places, self.one_sided + other.one_sided, self.other_object + other.other_object
        )


def assignment_conflict(first: Any, second: Any, num_places: int | None = None) -> Conflict:
    """Compare what two heads decided in one image.

    The paper calls it a conflict when "the same spatial coordinate is assigned to different foreground boxes or treated
    as background in different heads", and blames it for the loss beyond two heads (section 4.4, figures 8 and 9, there
    measured by Grad-CAM on trained models).  This needs no weights.

    Args:
        first: ``AssignResult``, or ``gt_inds`` (N1,): 1-based, 0 background, negative ignored.
        second: the same of the other head, (N2,).
        num_places: places of the pyramid, where the heads have several priors in each, one after another; N1 and N2 are
            multiples of it.  Without it every prior is a place, and N1 = N2.

    Returns:
        Counts, which may be added over images.  Places that either head ignores and neither takes are left out.

    Raises:
        ValueError: the numbers of priors don't fit.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([1, 1, 2, 0]), torch.tensor([1, 0, 1, 0])
        >>> assignment_conflict(a, b)
        Conflict(places=3, one_sided=1, other_object=1)
    """
    a, b = (_by_place(one, num_places) for one in (first, second))
    if len(a) != len(b):
        raise ValueError(
            f"the heads have {len(a)} and {len(b)} priors; give num_places where they differ in anchors for each place"
        )
    in_a, in_b = (a > 0).any(dim=1), (b > 0).any(dim=1)
    background_a, background_b = (a == 0).all(dim=1), (b == 0).all(dim=1)
    common = ((a[:, :, None] == b[:, None, :]) & (a > 0)[:, :, None]).flatten(1).any(dim=1)
    counts = [in_a | in_b, in_a & background_b | in_b & background_a, in_a & in_b & ~common]
    return Conflict(*(int(count.sum()) for count in counts))


def _by_place(result: Any, num_places: int | None) -> Tensor:
    """(places, anchors of a place) int64."""
    gt_inds: Tensor = getattr(result, "gt_inds", result)
    places = len(gt_inds) if num_places is None else num_places
    if places and len(gt_inds) % places:
        raise ValueError(f"{len(gt_inds)} priors are no multiple of num_places={places}")
    return gt_inds.reshape(places, -1 if places else 1)
