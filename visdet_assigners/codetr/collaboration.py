"""What a collaborative detector is made of beside the plain one: its knobs, its branches, and their fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from visdet_assigners.codetr.adapter import MultiScaleAdapter
from visdet_assigners.codetr.primary import PrimaryOneToMany
from visdet_assigners.options import one_of
from visdet_assigners.registry import MODELS, SCOPE
from visdet_assigners.schedule import Schedule

Conflicts = Literal["count", "ignore"]


@dataclass(frozen=True)
class Collaboration:
    """The knobs of collaborative training.

    Either factor may change while training: points ``[(epoch, factor), ...]`` with straight lines between them, or
    ``dict(points=..., by_epoch=False)`` with iterations; see ``schedule.Schedule``.

    Attributes:
        lambda1: factor of the positive queries' losses (paper: 1; table 13).
        lambda2: factor of the auxiliary heads' losses, times the number of decoder layers (paper: 2, so 12 for 6).
        aux_losses: False leaves the heads' losses at 0, with their positives still used: row 3 of table 9.
        pos_queries: False leaves the heads' positive queries out: row 2 of table 9.
        max_pos_queries: most queries of a branch and image; of more positives a random subset is taken (paper: 300).
        with_feat: whether a query also gets the encoder's feature at the centre of its box.
        conflicts: what becomes of a head's background where another head has a positive: 'count', as in the paper, or
            'ignore': it is left out of that head's loss, see ``ignoring``.
    """

    lambda1: Any = 1.0
    lambda2: Any = 2.0
    aux_losses: bool = True
    pos_queries: bool = True
    max_pos_queries: int = 300
    with_feat: bool = True
    conflicts: Conflicts = "count"

    def __post_init__(self) -> None:
        for name in ("lambda1", "lambda2"):
            Schedule("collab", name, getattr(self, name))  # raises where it is none
        if self.max_pos_queries < 1:
            raise ValueError(f"collab: max_pos_queries must be at least 1, got {self.max_pos_queries}")
        one_of("collab", "conflicts", self.conflicts, Conflicts)

    def factor(self, name: str) -> float:
        """``lambda1`` or ``lambda2`` at this point of the training."""
        return Schedule("collab", name, getattr(self, name)).now()


class Auxiliary(BaseModule):
    """All that is there for training alone, under one name, so that it can be left behind.

    Args:
        adapter: makes the pyramid; None where no branch has a head.
        branches: K of them, in order.
        encoders: of the positives' queries, one for each branch with a head, or none.
    """

    def __init__(self, adapter: MultiScaleAdapter | None, branches: Sequence[Any], encoders: Sequence[Any]) -> None:
        super().__init__()
        self.adapter = adapter
        self.branches = ModuleList(branches)
        self.encoders = ModuleList(encoders)

    @property
    def on_maps(self) -> list[tuple[int, Any]]:
        """The branches that read the pyramid, each with its number k."""
        return [pair for pair in enumerate(self.branches) if not isinstance(pair[1], PrimaryOneToMany)]

    @property
    def on_queries(self) -> list[tuple[int, Any]]:
        """The branches that read the detector's own queries, likewise."""
        return [pair for pair in enumerate(self.branches) if isinstance(pair[1], PrimaryOneToMany)]


def build_branch(config: Mapping[str, Any]) -> Any:
    """Build a branch; one of this package needs no prefix, others are looked up as mmengine does."""
    kind = config["type"]
    return MODELS.build(dict(config, type=f"{SCOPE}.{kind}" if kind in MODELS.module_dict else kind))


def times(value: Any, factor: float, name: str) -> Any:
    """Scale a loss, or a list of losses; accuracies and other figures stay."""
    if "loss" not in name:
        return value
    return [one * factor for one in value] if isinstance(value, (list, tuple)) else value * factor


def check_classes(branch: Any, expected: int, index: int) -> None:
    """Raise where a head of a branch has other classes: labels would be its background, or out of its bounds."""
    for name in ("head", "roi.bbox_head", "roi.mask_head"):
        head: Any = branch
        for part in name.split("."):
            head = getattr(head, part, None)
        for one in head if isinstance(head, ModuleList) else [head]:
            number = getattr(one, "num_classes", expected)
            if number != expected and not getattr(one, "class_agnostic", False):
                raise ValueError(
                    f"aux_branches[{index}].{name}: {type(one).__name__} has num_classes={number}, the detector's "
                    f"bbox_head {expected}; leave it out, and the branch takes the detector's"
                )


def check_head(branch: Any, maps: Sequence[Tensor], index: int) -> None:
    """Raise where a head's levels or channels are not the pyramid's; mmdet's own error would name neither."""
    head = getattr(branch, "head", getattr(branch, "rpn", None))
    levels = getattr(getattr(head, "prior_generator", None), "num_levels", len(maps))
    channels = getattr(head, "in_channels", maps[0].shape[1])
    if levels != len(maps):
        raise ValueError(
            f"aux_branches[{index}]: {type(head).__name__} has {levels} levels of priors, the adapter gives "
            f"{len(maps)}; set the strides of the head, or `coarser` and `finer` of aux_adapter"
        )
    if channels != maps[0].shape[1]:
        raise ValueError(
            f"aux_branches[{index}]: {type(head).__name__} has in_channels={channels}, "
            f"the transformer is {maps[0].shape[1]} wide; set in_channels to that"
        )
