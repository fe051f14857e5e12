"""Any assigner in any dense head: what a head leaves out of its call is filled in from what it has.

mmdet's heads are written for one assigner each: ``RPNHead`` and ``RetinaHead`` pass anchors alone, ``ATSSHead`` the
sizes of the levels too, and neither passes the scores and boxes that a task-aligned or a one-to-one assigner reads.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from visdet_assigners.adapting.needs import Dialect, Needs, dialect_of, needs_of
from visdet_assigners.adapting.predictions import HeadOutputs, as_scores, grid_of, has_grid
from visdet_assigners.adapting.results import complete_result
from visdet_assigners.adapting.shadowing import listen, shadow
from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.assigners.forms import levels_by_name
from visdet_assigners.registry import REGISTERED

SQUARE = 8.0
"""Side, in strides, of the squares that stand for points where an assigner reads boxes: the anchors of ATSS's paper."""
REGION = ("featmap_sizes", "anchor_scale", "anchor_strides")
"""Arguments of Cascade RPN's call alone."""
_INSTANCES = ("pred_instances", "gt_instances", "gt_instances_ignore")
_adapted: set[int] = set()  # heads inside a block, by id


@contextmanager
def adapt_assigner(head: nn.Module, samples: Sequence[Any], only_ours: bool = False) -> Iterator[None]:
    """Let a dense head work with assigners that it was not written for, inside the block, around one ``loss`` call.

    A call that is complete goes through as it is.  Only mmdet's dense heads and their heirs are adapted.

    Args:
        head: a dense head of mmdet.
        samples: the batch.
        only_ours: whether mmdet's own assigners are left alone, too.

    Raises:
        TypeError: inside the block, where an assigner reads what the head doesn't have; the message names both.
    """
    assigners = [one for one in vars(head).values() if callable(getattr(type(one), "assign", None))]
    if only_ours:
        assigners = [one for one in assigners if isinstance(one, BaseAssigner)]
    if not isinstance(head, BaseDenseHead) or not has_grid(head) or not assigners or id(head) in _adapted:
        yield
        return
    _adapted.add(id(head))
    try:
        with ExitStack() as stack:
            adapters = [_Adapter(head, assigner, samples) for assigner in {id(one): one for one in assigners}.values()]
            for adapter in adapters:
                stack.enter_context(listen(head, "forward", adapter.keep_outputs))
                stack.enter_context(shadow(adapter.assigner, "assign", adapter.assign))
            try:
                yield
            except AssertionError:  # of ATSS's centerness, which is mute
                for adapter in adapters:
                    adapter.explain()
                raise
    finally:
        _adapted.discard(id(head))


class _Adapter:
    """Answers a head's calls of ``assign``, one an image, by calls that the assigner understands."""

    def __init__(self, head: Any, assigner: Any, samples: Sequence[Any]) -> None:
        self.head = head
        self.assigner = assigner
        self.name = type(assigner).__name__
        self.needs: Needs = needs_of(assigner)
        self.dialect: Dialect = dialect_of(head, assigner)
        self.parameters = inspect.signature(assigner.assign).parameters
        self.samples = samples
        self.outputs: Any = None
        self.calls: list[tuple[Tensor, Any, Tensor]] = []  # priors, ground truths and result of each

    def keep_outputs(self, outputs: Any, *_: Any, **__: Any) -> None:
        """Remember what the head predicted."""
        self.outputs = outputs

    def assign(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer one call."""
        given, more = _sort_out(args, kwargs)
        if given is None or self.outputs is None or "priors" not in given["pred_instances"]:
            return method(*args, **kwargs)
        passed = given["pred_instances"]
        if self._is_complete(given) and len(more) <= self._places() - len(_INSTANCES):
            result = method(*args, **kwargs)
        else:
            if "img_meta" in self.parameters and given.get("img_meta") is None:
                given["img_meta"] = self.samples[self._image_of(given)].metainfo
            with torch.no_grad():
                self._complete(given)
            result = method(**self._known(given))
        if getattr(result, "gt_inds", torch.empty(0, 0)).ndim != 1:
            self.fail("does not give one object for each prior; choose another assigner")
        self.calls.append((passed.priors, given["gt_instances"], result.gt_inds))
        reads_boxes = "bboxes" in self.needs.fields
        return complete_result(result, self.dialect, passed, given["gt_instances"], reads_boxes, *more[:2])

    def _places(self) -> int:
        """How many arguments the assigner takes by their place."""
        return sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in self.parameters.values())

    def fail(self, message: str) -> NoReturn:
        """Raise with both names in front."""
        raise TypeError(f"{type(self.head).__name__}: {self.name} {message}; {self._fitting()}")

    def _fitting(self) -> str:
        heads = getattr(REGISTERED.get(self.name), "heads", "")
        return f"heads that can feed it: {heads}" if heads else "choose another head"

    def explain(self) -> None:
        """Raise where ATSS's centerness was the root of a negative number; mmdet's own assertion doesn't say so."""
        for passed, truths, gt_inds in self.calls if hasattr(self.head, "atss_centerness") else ():
            positive = gt_inds > 0
            priors = get_box_tensor(passed)[positive]
            if priors.shape[-1] != 4:  # turned boxes
                continue
            gts = get_box_tensor(truths.bboxes)[gt_inds[positive] - 1]
            centres = (priors[:, :2] + priors[:, 2:4]) / 2
            if ((centres < gts[:, :2]) | (centres > gts[:, 2:])).any():
                raise TypeError(
                    f"{type(self.head).__name__}: {self.name} made anchors positive whose centres lie outside their "
                    "objects, and there is no centerness there; take one that keeps them inside (ATSS, TaskAligned, "
                    "MaxIoU with ignore_outside_gt=True), or RetinaHead"
                )

    # ------------------------------------------------------------------------------------------------ what is missing

    def _points(self, passed: Any) -> bool:
        """Whether the priors that the head passed are points."""
        return self.dialect.points or get_box_tensor(passed.priors).shape[-1] == 3

    def _is_complete(self, given: dict[str, Any]) -> bool:
        """Whether the call holds what the assigner reads, in the form that it reads."""
        passed, needs = given["pred_instances"], self.needs
        if "priors" in needs.fields and needs.points != self._points(passed):
            return False
        scores_fit = "scores" not in needs.fields or needs.scores == self.dialect.scores
        sizes = not needs.levels or needs.points or given.get("num_level_priors") is not None or "level_ids" in passed
        sees_image = not self.needs.image or given.get("img_meta") is not None
        regions = given.get("gt_instances_ignore") is not None or not getattr(self.assigner, "ignore_iof_thr", -1) > 0
        takes_any = any(one.kind is one.VAR_KEYWORD for one in self.parameters.values())
        required = not self._missing(given) and (takes_any or given.keys() <= self.parameters.keys())
        return needs.fields <= set(passed.keys()) and scores_fit and sizes and sees_image and regions and required

    def _known(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments that the assigner takes."""
        if any(one.kind is one.VAR_KEYWORD for one in self.parameters.values()):
            return {name: given[name] for name in (*_INSTANCES, "num_level_priors", "img_meta") if name in given}
        if "pred_scores" in self.parameters:  # TopkHungarianAssigner takes tensors
            predicted, truths = given["pred_instances"], given["gt_instances"]
            given.update(pred_scores=predicted.scores, decode_bboxes=predicted.bboxes)
            given.update(gt_bboxes=get_box_tensor(truths.bboxes), gt_labels=truths.labels)
        missing = self._missing(given)
        if missing:
            self.fail(f"needs {', '.join(missing)}, which {type(self.head).__name__} does not have")
        return {name: value for name, value in given.items() if name in self.parameters}

    def _missing(self, given: dict[str, Any]) -> list[str]:
        """Arguments that the assigner can't do without and that aren't there."""
        named = {name: one for name, one in self.parameters.items() if one.kind is not one.VAR_KEYWORD}
        return [name for name, one in named.items() if given.get(name) is None and one.default is one.empty]

    def _image_of(self, given: dict[str, Any]) -> int:
        """The number of the image that a call is about: heads hand on the ground truths of its sample."""
        for number, sample in enumerate(self.samples):
            if sample.gt_instances is given["gt_instances"]:
                return number
        return self.fail("is asked for ground truths that are none of the batch's, so their image is unknown")

    def _complete(self, given: dict[str, Any]) -> None:
        """Add what is missing, in the order of the priors that the head passed."""
        needs, passed = self.needs, given["pred_instances"]
        image = self._image_of(given)
        sample = self.samples[image]
        if given.get("gt_instances_ignore") is None:
            given["gt_instances_ignore"] = sample.get("ignored_instances")
        lacking = needs.predicted - set(passed.keys())
        unknown = sorted(needs.fields - set(passed.keys()) - {"priors", "valid_flags", *needs.predicted})
        if unknown:
            self.fail(f"reads {', '.join(unknown)}, which {type(self.head).__name__} does not have")
        of_region = any(name in self.parameters for name in REGION)
        if not lacking and not needs.levels and not of_region and self._fits(passed):
            return
        priors, outputs = get_box_tensor(passed.priors), HeadOutputs(self.head, self.outputs, self.fail)
        inside = outputs.inside(priors, sample.metainfo)
        if given.get("num_level_priors") is None and (needs.levels or of_region):
            given["num_level_priors"] = outputs.level_sizes(inside)
        if of_region:
            self._for_region(given, outputs)
        if not (lacking or of_region or not self._fits(passed)):
            return
        fields = dict(passed.items())
        if self._points(passed) and ("priors" in needs.fields) and not needs.points:
            fields["priors"] = self._squares(priors, outputs.strides(inside))
        elif needs.points and not self._points(passed):
            strides = outputs.strides(inside)
            if priors.shape[-1] != 4:
                self.fail("reads points, and only those of upright boxes are known")
            if not hasattr(outputs.generator, "base_anchors") and torch.equal(priors[:, 2:4], strides):
                self.fail("is given points by a head that is not known to have them; they were read as boxes")
            fields["priors"] = torch.cat([(priors[:, :2] + priors[:, 2:4]) / 2, strides], dim=1)
        if of_region:
            fields["valid_flags"] = torch.ones(len(priors), dtype=torch.bool, device=priors.device)
        if lacking & {"bboxes", "decoder_priors"}:
            boxes = fields.get("bboxes", fields.get("decoder_priors"))
            boxes = outputs.boxes(image, inside, priors) if boxes is None else boxes
            fields.update(bboxes=boxes, decoder_priors=boxes)
        if needs.scores is not None and "scores" in fields:
            fields["scores"] = as_scores(fields["scores"], self.dialect.scores, needs.scores)
        elif needs.scores is not None and "scores" in needs.fields:
            fields["scores"] = outputs.scores(image, inside, self.dialect.scores, needs.scores)
        unread = {"scores", "bboxes", "decoder_priors"} - needs.fields
        given["pred_instances"] = InstanceData(**{name: value for name, value in fields.items() if name not in unread})

    def _fits(self, passed: Any) -> bool:
        """Whether the priors and scores that the head passed are of the kind that the assigner reads."""
        priors = "priors" not in self.needs.fields or self.needs.points == self._points(passed)
        scores = "scores" not in self.needs.fields or "scores" not in passed or self.needs.scores == self.dialect.scores
        return priors and scores

    def _squares(self, points: Tensor, strides: Tensor) -> Tensor:
        """Squares around points: (N, 2 or more), (N, 2) -> (N, 4) xyxy."""
        half = strides * (SQUARE / 2)
        return torch.cat([points[:, :2] - half, points[:, :2] + half], dim=1)

    def _for_region(self, given: dict[str, Any], outputs: HeadOutputs) -> None:
        """Add what Cascade RPN passes: the scale of anchors is the geometric mean of theirs."""
        generator = grid_of(self.head)
        strides = [one[0] if isinstance(one, (list, tuple)) else one for one in generator.strides]
        scale = SQUARE
        if hasattr(generator, "base_anchors"):
            corners = generator.base_anchors[0]
            sides = ((corners[:, 2:4] - corners[:, :2]).prod(dim=1)).sqrt().tolist()
            scale = math.exp(sum(math.log(side) for side in sides) / len(sides)) / strides[0]
        given.update(featmap_sizes=outputs.featmap_sizes, anchor_scale=scale, anchor_strides=strides)
        given.update(num_level_anchors=given["num_level_priors"], allowed_border=-1)
        if not self.assigner.uses_regions():
            self.assigner.without_regions(given.pop("gt_instances_ignore"))


def _sort_out(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any] | None, tuple[float, ...]]:
    """Name the arguments of a head's call, None if it is not one of instances; and those behind: TOOD's exponents."""
    args, named = levels_by_name(args, kwargs)
    named.update(zip(_INSTANCES, args))
    return (named if isinstance(named.get("pred_instances"), InstanceData) else None), args[len(_INSTANCES) :]
