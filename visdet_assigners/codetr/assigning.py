"""Any assigner in any anchor head: what a head leaves out of its call is filled in from what it has.

mmdet's heads are written for one assigner each: ``RetinaHead`` passes anchors alone, ``ATSSHead`` the sizes of the
levels too, and neither passes the scores and boxes that a task-aligned or a one-to-one assigner reads.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from mmdet.models.dense_heads import AnchorHead, PAAHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from visdet_assigners.assigners.forms import levels_by_name
from visdet_assigners.codetr.shadowing import listen, shadow
from visdet_assigners.functional.validity import POINTS
from visdet_assigners.registry import REGISTERED


@dataclass(frozen=True)
class Needs:
    """What an assigner reads beside anchors: scores as 'logits' or 'probabilities', and points with their strides."""

    scores: str | None = None
    points: bool = False


def needs_of(assigner: Any) -> Needs:
    """What an assigner reads, ours or mmdet's of the same name."""
    cls: Any = REGISTERED.get(type(assigner).__name__)
    reads = cls.reads_of(assigner) if hasattr(cls, "reads_of") else {}
    predicted = {"scores", "bboxes", "decoder_priors"} & reads.keys()
    scores = ("logits" if reads.get("scores") == "scores" else "probabilities") if predicted else None
    return Needs(scores, points=reads.get("priors") in POINTS)


_INSTANCES = ("pred_instances", "gt_instances", "gt_instances_ignore")


@contextmanager
def adapt_assigner(head: nn.Module, samples: Sequence[Any]) -> Iterator[None]:
    """Let an anchor head work with assigners that it was not written for, inside the block, around one ``loss`` call.

    A head that passes more than priors was written for its assigner, and is left alone, as are heads without anchors.

    Args:
        head: a dense head of mmdet.
        samples: the batch.
    """
    assigner = getattr(head, "assigner", None)
    if not isinstance(head, AnchorHead) or not callable(getattr(assigner, "assign", None)):
        yield
        return
    adapter = _Adapter(head, assigner, samples)
    with ExitStack() as stack:
        stack.enter_context(listen(head, "forward", adapter.keep_predictions))
        stack.enter_context(shadow(assigner, "assign", adapter.assign))
        yield


class _Adapter:
    """Answers a head's calls of ``assign``, one an image, by calls that the assigner understands."""

    def __init__(self, head: Any, assigner: Any, samples: Sequence[Any]) -> None:
        self.head = head
        self.name = type(assigner).__name__
        self.needs = needs_of(assigner)
        self.parameters = inspect.signature(assigner.assign).parameters
        self.samples = samples
        self.outputs: Any = None
        self.calls = 0

    def keep_predictions(self, outputs: Any, *_: Any, **__: Any) -> None:
        self.outputs = outputs

    def assign(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        image = self.calls % len(self.samples)
        self.calls += 1
        given = _sort_out(args, kwargs)
        if given is None or set(given["pred_instances"].keys()) != {"priors"}:
            return method(*args, **kwargs)
        given.update(img_meta=self.samples[image].metainfo, anchors=given["pred_instances"].priors)
        with torch.no_grad():
            self._complete(given, image)
        if "pred_scores" in self.parameters:  # TopkHungarianAssigner takes tensors
            predicted, truths = given["pred_instances"], given["gt_instances"]
            given.update(pred_scores=predicted.scores, decode_bboxes=predicted.bboxes)
            given.update(gt_bboxes=get_box_tensor(truths.bboxes), gt_labels=truths.labels)
        if any(one.kind is one.VAR_KEYWORD for one in self.parameters.values()):
            known, missing = {name: given.get(name) for name in _INSTANCES}, []
        else:
            known = {name: value for name, value in given.items() if name in self.parameters}
            missing = [name for name, one in self.parameters.items() if name not in known and one.default is one.empty]
        if missing:
            self._fail(f"needs {', '.join(missing)}, which {type(self.head).__name__} does not have")
        result = method(**known)
        if getattr(result, "gt_inds", torch.empty(0, 0)).ndim != 1:
            self._fail("does not give one object for each prior; choose another assigner")
        if hasattr(self.head, "atss_centerness") and not isinstance(self.head, PAAHead):
            self._check_centres(given, result.gt_inds)
        return result

    def _fail(self, message: str) -> NoReturn:
        raise TypeError(f"{type(self.head).__name__}: {self.name} {message}")

    def _check_centres(self, given: dict[str, Any], gt_inds: Tensor) -> None:
        """Raise where ATSS's centerness would be the root of a negative number; mmdet's own assertion is mute."""
        positive = gt_inds > 0
        priors = get_box_tensor(given["anchors"])[positive]
        gts = get_box_tensor(given["gt_instances"].bboxes)[gt_inds[positive] - 1]
        centres = (priors[:, :2] + priors[:, 2:]) / 2
        if ((centres < gts[:, :2]) | (centres > gts[:, 2:])).any():
            self._fail(
                "made anchors positive whose centres lie outside their objects, and there is no centerness there for "
                f"{type(self.head).__name__}; take one that keeps them inside (ATSS, TaskAligned), or RetinaHead"
            )

    def _complete(self, given: dict[str, Any], image: int) -> None:
        """Add level sizes, predictions and points, in the order of the priors that the head passed."""
        flags, strides = self._inside(image)
        if given.get("num_level_priors") is None:
            given["num_level_priors"] = [int(level.sum()) for level in flags]
        inside = torch.cat(flags)
        priors = get_box_tensor(given["pred_instances"].priors)
        if self.needs == Needs():
            return
        fields = dict(priors=priors)
        if self.needs.scores is not None:
            if len(self.outputs[1][0][image]) != 4 * self.head.num_base_priors:
                self._fail(f"reads boxes, and {type(self.head).__name__} does not predict four numbers for each")
            logits = _rows(self.outputs[0], image, self.head.cls_out_channels)[inside]
            deltas = _rows(self.outputs[1], image, 4)[inside]
            decoded = get_box_tensor(self.head.bbox_coder.decode(priors, deltas))
            scores = logits if self.needs.scores == "logits" else logits.sigmoid()
            fields.update(scores=scores, bboxes=decoded, decoder_priors=decoded)
        if self.needs.points:
            centres = (priors[:, :2] + priors[:, 2:]) / 2
            fields.update(priors=torch.cat([centres, strides[inside]], dim=1))
        given["pred_instances"] = InstanceData(**fields)

    def _inside(self, image: int) -> tuple[list[Tensor], Tensor]:
        """Which anchors of each level the head passes for an image, and the strides (N, 2) of all anchors."""
        head, metainfo = self.head, self.samples[image].metainfo
        sizes = [level.shape[-2:] for level in self.outputs[0]]
        device = self.outputs[0][0].device
        anchors = [get_box_tensor(level) for level in head.prior_generator.grid_priors(sizes, device=device)]
        valid = head.prior_generator.valid_flags(sizes, metainfo["pad_shape"], device)
        lengths = [len(level) for level in anchors]
        flags = anchor_inside_flags(
            torch.cat(anchors), torch.cat(valid), metainfo["img_shape"][:2], head.train_cfg["allowed_border"]
        )
        strides = [anchors[0].new_tensor(s).expand(n, 2) for s, n in zip(head.prior_generator.strides, lengths)]
        return list(flags.split(lengths)), torch.cat(strides)


def _sort_out(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Name the arguments of a head's call; None where it is not one of instances."""
    args, named = levels_by_name(args, kwargs)
    named.update(zip(_INSTANCES, args))
    return named if isinstance(named.get("pred_instances"), InstanceData) else None


def _rows(levels: Sequence[Tensor], image: int, channels: int) -> Tensor:
    """(N, channels) predictions of an image, from maps (B, A * channels, h, w) of all levels."""
    return torch.cat([level[image].permute(1, 2, 0).reshape(-1, channels) for level in levels])
