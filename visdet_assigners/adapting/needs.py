"""What assigners read, and what mmdet's dense heads pass to them and read of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from visdet_assigners.functional.validity import POINTS
from visdet_assigners.registry import REGISTERED

Scores = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Needs:
    """What an assigner reads.

    Attributes:
        fields: of the predictions.
        scores: what its scores are, None where it reads nothing predicted.
        points: whether its priors are points with their strides, rather than boxes.
        levels: whether it reads the sizes of the levels.
        image: whether it reads the size of the image.
    """

    fields: frozenset[str] = frozenset({"priors"})
    scores: Scores | None = None
    points: bool = False
    levels: bool = False
    image: bool = False

    @property
    def predicted(self) -> frozenset[str]:
        """Which of its fields are predicted."""
        return self.fields & {"scores", "bboxes", "decoder_priors"}


def needs_of(assigner: Any) -> Needs:
    """What an assigner reads, ours or mmdet's of the same name; the priors of one that nobody knows."""
    cls: Any = REGISTERED.get(type(assigner).__name__)
    if not hasattr(cls, "reads_of"):
        return Needs()
    reads = dict(cls.reads_of(assigner))
    scores: Scores | None = "probabilities" if reads.get("scores") == "probabilities" else "logits"
    if not {"scores", "bboxes", "decoder_priors"} & reads.keys():
        scores = None
    # What an assigner has itself comes first: one that hands on to others reads what they read.
    known = assigner if hasattr(assigner, "levels") else cls
    levels = getattr(known, "levels", "unused") != "unused"
    on_host = getattr(assigner, "matches_on_host", cls.matches_on_host)
    return Needs(frozenset(reads), scores, reads.get("priors") in POINTS, levels, on_host)


@dataclass(frozen=True)
class Dialect:
    """How a head of mmdet speaks with its assigner.

    Attributes:
        points: whether its priors are points (N, 4) with their strides.
        scores: what the scores are that it predicts.
        quality: whether ``max_overlaps`` becomes a target: the IoU of what is predicted.
        alignment: whether ``assign_metrics`` becomes one, as TOOD's.
        pairs: whether boxes are regressed in the pairs of `uniform`.
    """

    points: bool = False
    scores: Scores = "logits"
    quality: bool = False
    alignment: bool = False
    pairs: bool = False


DIALECTS = {
    "YOLOXHead": Dialect(points=True, scores="probabilities", quality=True),
    "RTMDetHead": Dialect(points=True, quality=True),
    "TOODHead": Dialect(scores="probabilities", quality=True, alignment=True),
    "YOLOFHead": Dialect(pairs=True),
}
"""Of heads that pass more than anchors, or read more of the result than which object each prior has."""


def dialect_of(head: Any, assigner: Any) -> Dialect:
    """The dialect of a head with one of its assigners: its class's, or that of the nearest base that has one."""
    if passes_centres(head) and assigner is getattr(head, "init_assigner", None):
        return Dialect(points=True)
    return next((DIALECTS[cls.__name__] for cls in type(head).__mro__ if cls.__name__ in DIALECTS), Dialect())


def passes_centres(head: Any) -> bool:
    """Whether RepPoints' head passes points to its first stage: where its config has the name of mmdet's class."""
    stage = (getattr(head, "train_cfg", None) or {}).get("init", {})
    return bool(stage.get("assigner", {}).get("type") == "PointAssigner")
