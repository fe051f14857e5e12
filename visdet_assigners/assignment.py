"""What an assigner decides: ``Assignment`` inside the package, ``AssignResult`` towards mmdet's heads and samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visdet_assigners.functional.tensors import padded

NEGATIVE = -1
IGNORED = -2
# Counted from 1, as mmdet does, these are 0 and -1.


@dataclass(frozen=True)
class Assignment:
    """Which ground truth each prior learns from, counted from 0.

    Attributes:
        gt_index: (N,) int64: 0 to M - 1 for positives, ``NEGATIVE`` for background, ``IGNORED`` for priors that are
            left out of the loss.
        quality: (N,) float, the IoU or whatever ranks the matches; None where the method has no such number.
        extras: what one method alone returns, by name; some are ``Deferred``.
    """

    gt_index: Tensor
    quality: Tensor | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Deferred:
    """An extra whose size depends on the data: computed when it is asked for, which synchronises with a device.

    Attributes:
        value: gives it.
    """

    value: Callable[[], Any]


def all_negative(num_priors: int, like: Tensor) -> Tensor:
    """A ``gt_index`` (N,) that marks every prior as background, on the device of ``like``."""
    return torch.full((num_priors,), NEGATIVE, dtype=torch.long, device=like.device)


class AssignResult:
    """Assignments of one image in mmdet's form: counted from 1, 0 for background, -1 for ignored.

    A drop-in for ``mmdet.models.task_modules.AssignResult``: the same attributes, properties and methods.

    Args:
        num_gts: M.
        gt_inds: (N,) int64, number of the matched ground truth, from 1; 0 background, -1 ignored.
        max_overlaps: (N,) float, overlap with the matched ground truth, or None where a method has none.
        labels: (N,) int64, class of the matched ground truth, -1 where nothing is matched; or None.

    Example:
        >>> result = AssignResult(2, torch.tensor([0, 2]), torch.tensor([0.1, 0.8]), torch.tensor([-1, 5]))
        >>> result
        <AssignResult(num_gts=2, gt_inds.shape=(2,), max_overlaps.shape=(2,), labels.shape=(2,))>
        >>> result.add_gt_(torch.tensor([3, 5]))
        >>> result.gt_inds, result.labels
        (tensor([1, 2, 0, 2]), tensor([ 3,  5, -1,  5]))
    """

    assign_metrics: Tensor
    """Alignment of each match; a plain attribute, set by the task-aligned assigners alone (TOOD's head reads it)."""
    norm_metrics: Tensor
    """What the score of each match should become, likewise."""

    def __init__(self, num_gts: int, gt_inds: Tensor, max_overlaps: Tensor | None, labels: Tensor | None) -> None:
        self.num_gts = num_gts
        self.gt_inds = gt_inds
        self.max_overlaps = max_overlaps
        self.labels = labels
        self._extra_properties: dict[str, Any] = {}

    @property
    def num_preds(self) -> int:
        """N, the number of priors (and of added ground truths)."""
        return len(self.gt_inds)

    @property
    def info(self) -> dict[str, Any]:
        """Everything that is known, the extra properties among it."""
        return {
            "num_gts": self.num_gts,
            "num_preds": self.num_preds,
            "gt_inds": self.gt_inds,
            "max_overlaps": self.max_overlaps,
            "labels": self.labels,
            **{key: self.get_extra_property(key) for key in self._extra_properties},
        }

    def set_extra_property(self, key: str, value: Any) -> None:
        """Attach a value of the caller's under a new name.

        Raises:
            AssertionError: the name is taken (mmdet's exception, kept because callers may catch it).
        """
        if key in ("num_gts", "num_preds", "gt_inds", "max_overlaps", "labels", *self._extra_properties):
            raise AssertionError(f"AssignResult has a property {key!r} already; choose another name")
        self._extra_properties[key] = value

    def get_extra_property(self, key: str) -> Any:
        """Value attached under a name, None if there is none."""
        value = self._extra_properties.get(key)
        if isinstance(value, Deferred):
            value = self._extra_properties[key] = value.value()
        return value

    def add_gt_(self, gt_labels: Tensor) -> None:
        """Put the ground truths in front, each matched with itself at overlap 1 (samplers add them to the proposals).

        Args:
            gt_labels: (M,) int64.

        Raises:
            ValueError: the method that made this result gives no overlaps or labels, as Hungarian matching does.
        """
        if self.max_overlaps is None or self.labels is None:
            missing = "max_overlaps" if self.max_overlaps is None else "labels"
            raise ValueError(
                f"AssignResult.add_gt_: this result has no {missing}; use a sampler with add_gt_as_proposals=False"
            )
        own = torch.arange(1, len(gt_labels) + 1, dtype=torch.long, device=gt_labels.device)
        self.gt_inds = torch.cat([own, self.gt_inds])
        self.max_overlaps = torch.cat([self.max_overlaps.new_ones(len(gt_labels)), self.max_overlaps])
        self.labels = torch.cat([gt_labels, self.labels])

    @classmethod
    def random(
        cls,
        *,
        num_preds: int | None = None,
        num_gts: int | None = None,
        p_ignore: float = 0.3,
        p_assigned: float = 0.7,
        num_classes: int = 3,
        rng: torch.Generator | int | None = None,
    ) -> AssignResult:
        """Draw a result for tests and debugging.

        Args:
            num_preds: N; drawn from 0 to 15 if None.
            num_gts: M; drawn from 0 to 7 if None.
            p_ignore: share of ignored priors.
            p_assigned: share of positives among the others; 0 of them if M is 0.
            num_classes: C.
            rng: seed or generator; None draws from the global one.

        Example:
            >>> AssignResult.random(num_preds=4, num_gts=2, rng=0).num_preds
            4
        """
        generator = torch.Generator().manual_seed(rng) if isinstance(rng, int) else rng

        def integers(high: int, size: tuple[int, ...] = ()) -> Tensor:
            return torch.randint(high, size, generator=generator)

        n = int(integers(16)) if num_preds is None else num_preds
        m = int(integers(8)) if num_gts is None else num_gts
        kind = torch.rand(n, generator=generator)
        assigned = (torch.rand(n, generator=generator) < p_assigned) & (m > 0)
        gt_inds = torch.where(assigned, integers(max(m, 1), (n,)) + 1, 0)
        gt_inds = torch.where(kind < p_ignore, -1, gt_inds)
        gt_labels = integers(max(num_classes, 1), (max(m, 1),))
        labels = torch.where(gt_inds > 0, gt_labels[(gt_inds - 1).clamp(min=0)], -1)
        overlaps = torch.where(gt_inds > 0, torch.rand(n, generator=generator), 0.0)
        return cls(m, gt_inds, overlaps, labels)

    def __repr__(self) -> str:
        def shape(name: str) -> str:
            value = getattr(self, name)
            return f"{name}=None" if value is None else f"{name}.shape={tuple(value.shape)}"

        fields = ", ".join(shape(name) for name in ("gt_inds", "max_overlaps", "labels"))
        return f"<AssignResult(num_gts={self.num_gts}, {fields})>"


def to_assign_result(assignment: Assignment, gt_labels: Tensor) -> AssignResult:
    """Turn an assignment into mmdet's form.  The only place where 1 is added.

    Args:
        assignment: of one image.
        gt_labels: (M,) classes of the ground truths; M may be 0.

    Returns:
        AssignResult with ``labels`` -1 exactly where nothing is matched; ``max_overlaps`` is the quality, and the
        extras become extra properties.
    """
    gt_inds, labels = in_mmdets_form(assignment.gt_index, gt_labels)
    result = AssignResult(len(gt_labels), gt_inds, assignment.quality, labels)
    for name, value in assignment.extras.items():
        result.set_extra_property(name, value)
    return result


def to_assign_results(gt_index: Tensor, quality: Tensor | None, gt_labels: Sequence[Tensor]) -> list[AssignResult]:
    """Turn the assignments of B images with N priors each into mmdet's form.

    Args:
        gt_index: (B, N) int64, as in ``Assignment``.
        quality: (B, N), or None.
        gt_labels: (M_i,) of each image; M_i may be 0.
    """
    inds, labels = in_mmdets_form(gt_index, padded(gt_labels)[0] if len(gt_labels) > 1 else gt_labels[0][None])
    qualities = [None] * len(inds) if quality is None else quality
    return [AssignResult(len(own), *parts) for own, *parts in zip(gt_labels, inds, qualities, labels, strict=True)]


def in_mmdets_form(gt_index: Tensor, gt_labels: Tensor) -> tuple[Tensor, Tensor]:
    """``gt_inds`` (..., N) and ``labels`` (..., N) from ``gt_index`` (..., N) and the classes (..., M); M may be 0."""
    gt_inds = gt_index + 1
    around = F.pad(gt_labels.long(), (1, 1), value=-1)  # the first for background, the last for what is ignored
    return gt_inds, around.take(gt_inds) if gt_inds.ndim == 1 else around.gather(-1, gt_inds.clamp(min=0))
