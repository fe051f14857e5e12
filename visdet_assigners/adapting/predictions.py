"""What a dense head of mmdet predicted for an image, prior by prior: levels, scores and boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from mmdet.models.dense_heads import (
    AnchorHead,
    FCOSHead,
    GFLHead,
    GuidedAnchorHead,
    RepPointsHead,
    SABLRetinaHead,
    TOODHead,
    VFNetHead,
    YOLOV3Head,
)
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from visdet_assigners.adapting.needs import Scores, passes_centres
from visdet_assigners.functional.tensors import as_float32
from visdet_assigners.registry import REGISTERED, is_ours

GENERATORS = ("prior_generator", "square_anchor_generator")
"""What heads call the generator of their priors; the second one that has approximations of them, too."""
WITHOUT_BOXES = (VFNetHead, YOLOV3Head, SABLRetinaHead, RepPointsHead)
"""Heads that predict no plain box for each prior before they assign."""
EPS = 1e-6
"""By which probabilities keep away from 0 and 1 where they are turned into logits."""


def has_grid(head: Any) -> bool:
    """Whether a head generates priors on the grids of its levels."""
    return any(hasattr(head, name) for name in GENERATORS)


def grid_of(head: Any) -> Any:
    """The generator of a head's priors."""
    return next(getattr(head, name) for name in GENERATORS if hasattr(head, name))


def fed_by(head: Any) -> frozenset[str]:
    """Names of the assigners of this package that work in a head by their ``type`` alone; empty where it isn't fed."""
    classes = type(head).__mro__[: type(head).__mro__.index(BaseDenseHead)] if isinstance(head, BaseDenseHead) else ()
    own_ways = any("loss" in vars(cls) and not is_ours(cls) for cls in classes)
    if not classes or own_ways or not has_grid(head) or isinstance(head, GuidedAnchorHead):
        return frozenset()
    wanted = "RepPoints" if isinstance(head, WITHOUT_BOXES) else "RPN"
    named = {name: re.split(r"[,; ]+", getattr(cls, "heads", "")) for name, cls in REGISTERED.items()}
    return frozenset(name for name, heads in named.items() if wanted in heads)


class HeadOutputs:
    """The outputs of a head for a batch, and what follows from their shapes.

    Args:
        head: any dense head that ``has_grid``.
        outputs: of its ``forward``; the first is a list of L maps (B, A * C, h, w), of scores where there are any.
        fail: raises an error of that text.
    """

    def __init__(self, head: Any, outputs: Sequence[Any], fail: Callable[[str], NoReturn]) -> None:
        self.head = head
        self.outputs = outputs
        self.fail = fail
        self.maps: Sequence[Tensor] = outputs[0]
        self.featmap_sizes = [tuple(level.shape[-2:]) for level in self.maps]
        places = [height * width for height, width in self.featmap_sizes]
        self.generator = grid_of(head)
        self.lengths = [n * size for n, size in zip(self.generator.num_base_priors, places)]  # (L,)

    def inside(self, priors: Tensor, metainfo: Mapping[str, Any]) -> Tensor | None:
        """Which of all priors the head passed for an image, (N,) bool; None where it passed all of them.

        Those in the padding are left out, and with ``allowed_border`` those outside the image.  The priors that are
        left by the head's own rule must be those that it passed, one by one: levels are never guessed.

        Args:
            priors: that it passed.
            metainfo: of the image.
        """
        if len(priors) == sum(self.lengths):
            return None
        flags, found = self._flags(priors.device, metainfo)
        if flags is None or int(flags.sum()) != len(priors) or not torch.equal(found[flags], priors):
            self.fail("reads the sizes of the levels, and which priors were left out of which level can't be told")
        return flags

    def _flags(self, device: torch.device, metainfo: Mapping[str, Any]) -> tuple[Any, Any]:
        """The priors that the head keeps, as flags of all, and all of them; None where it has a rule of its own."""
        head = self.head
        if isinstance(head, RepPointsHead):
            points, valid = head.get_points(self.featmap_sizes, [metainfo], device)
            centres = torch.cat(points[0])  # (N, 4)
            if passes_centres(head):
                return torch.cat(valid[0]).bool(), centres
            return torch.cat(valid[0]).bool(), torch.cat(head.centers_to_bboxes(points)[0])
        if isinstance(head, SABLRetinaHead):
            valid = GuidedAnchorHead.get_sampled_approxs(head, self.featmap_sizes, [metainfo], device=device)[1]
            return torch.cat(valid[0]).bool(), torch.cat(head.get_anchors(self.featmap_sizes, [metainfo], device)[0])
        if not isinstance(head, AnchorHead) or isinstance(head, GuidedAnchorHead):
            return None, None
        anchors, valid = head.get_anchors(self.featmap_sizes, [metainfo], device)
        every = torch.cat([get_box_tensor(level) for level in anchors[0]])
        border = head.train_cfg["allowed_border"]
        return anchor_inside_flags(every, torch.cat(valid[0]).bool(), metainfo["img_shape"][:2], border), every

    def level_sizes(self, inside: Tensor | None) -> list[int]:
        """Priors of each level; without synchronising where all were passed."""
        if inside is None:
            return list(self.lengths)
        return torch.stack([level.sum() for level in inside.split(self.lengths)]).tolist()

    def strides(self, inside: Tensor | None) -> Tensor:
        """Strides in x and y of the priors that were passed, (N, 2) pixels."""
        rows = [
            self.maps[0].new_tensor(_pair(one)).expand(n, 2) for one, n in zip(self.generator.strides, self.lengths)
        ]
        return _kept(torch.cat(rows).float(), inside)

    def scores(self, image: int, inside: Tensor | None, given: Scores, wanted: Scores) -> Tensor:
        """Scores of an image, (N, C): those of the classes, of a head with softmax without the background's."""
        channels = self.head.cls_out_channels
        scores = as_float32(_kept(_rows(self.maps, image, channels), inside))
        if not getattr(self.head, "use_sigmoid_cls", True):
            scores, given = scores.softmax(dim=1)[:, :-1], "probabilities"
        return as_scores(scores, given, wanted)

    def boxes(self, image: int, inside: Tensor | None, priors: Tensor) -> Tensor:
        """Boxes predicted at the priors that were passed, (N, 4) xyxy, pixels.

        Args:
            image: its number in the batch.
            inside: see ``inside``.
            priors: (N, 4) xyxy, that were passed.
        """
        head = self.head
        levels = self.outputs[1] if len(self.outputs) > 1 else None
        per_prior = 4 * (head.reg_max + 1) if isinstance(head, GFLHead) else 4
        counts = self.generator.num_base_priors
        if (
            levels is None
            or isinstance(head, WITHOUT_BOXES)
            or not all(isinstance(level, Tensor) for level in levels)
            or any(level.shape[1] != per_prior * n for level, n in zip(levels, counts))
        ):
            self.fail(f"reads boxes, and {type(head).__name__} does not predict four numbers for each")
        predicted = as_float32(_kept(_rows(levels, image, per_prior), inside))  # type: ignore[arg-type]
        strides = self.strides(inside)
        if isinstance(head, TOODHead):
            return predicted * strides.repeat(1, 2)
        centres = (priors[:, :2] + priors[:, 2:4]) / 2
        if isinstance(head, GFLHead):
            return get_box_tensor(head.bbox_coder.decode(centres, head.integral(predicted) * strides[:, :1]))
        if isinstance(head, FCOSHead):
            scale = strides[:, :1] if head.norm_on_bbox else 1
            return get_box_tensor(head.bbox_coder.decode(centres, predicted * scale))
        return get_box_tensor(head.bbox_coder.decode(priors, predicted))


def as_scores(scores: Tensor, given: Scores, wanted: Scores) -> Tensor:
    """Logits as probabilities, or probabilities as logits: (N, C) -> (N, C)."""
    if given == wanted:
        return scores
    return scores.sigmoid() if wanted == "probabilities" else torch.logit(scores, eps=EPS)


def _rows(levels: Sequence[Tensor], image: int, channels: int) -> Tensor:
    """(N, channels) predictions of an image, from maps (B, A * channels, h, w) of all levels."""
    return torch.cat([level[image].permute(1, 2, 0).reshape(-1, channels) for level in levels])


def _kept(rows: Tensor, inside: Tensor | None) -> Tensor:
    return rows if inside is None else rows[inside]


def _pair(value: Any) -> tuple[float, float]:
    """A stride in x and y."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value, value)  # type: ignore[return-value]
