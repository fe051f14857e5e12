"""Dense assigners, which say of each prior what it learns: reading an image, deciding, and the result, written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from visdet_assigners.assigners import forms
from visdet_assigners.assigners.base import BaseAssigner, Common
from visdet_assigners.assigners.calling import assigner_method
from visdet_assigners.assigners.compiling import in_bucket
from visdet_assigners.assigners.covering import cover
from visdet_assigners.assigners.forms import in_any_form
from visdet_assigners.assigners.overlapping import OverlapMixin
from visdet_assigners.assignment import IGNORED, NEGATIVE, Assignment, AssignResult, to_assign_result
from visdet_assigners.functional.geometry import form_of, is_upright
from visdet_assigners.functional.tensors import padded
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs, count_instances

FINER = "larger images, or a pyramid that starts at a finer stride, put more priors into small boxes"
"""What helps where the assigner has no knob that does."""


METRICS = ("assign_metrics", "norm_metrics")
"""Extras that hold the quality of a match; heads read them as attributes of the result."""


class Coverage(Common, total=False):
    """Options that every dense assigner takes as keywords, and `ignore_iof_thr`."""

    min_positives: int


class DenseCommon(Coverage, total=False):
    """Options that every dense assigner takes as keywords."""

    ignore_iof_thr: float


class DenseAssigner(OverlapMixin, BaseAssigner):
    """An assigner that reads priors, and perhaps what is predicted at them, and decides about each of them.

    A subclass says what it reads and decides; all else is here.

    * ``reads``: the fields of the predictions, each with a row for each prior, and what they hold; the first are the
      priors.
    * ``levels``: whether the sizes of the levels are "needed", "optional" or "unused".
    * ``handles_regions``: whether the method itself defines ignore regions, and reads ``Inputs.regions``.
    * ``needs_geometry``: whether it reads more of boxes than their overlaps; otherwise boxes may be of any form that
      the calculator knows, as rotated ones.
    * ``asks_boxes``: whether it needs no more of them than `functional.geometry.Geometry` says: then boxes of any form
      will do whose class says it, as mmdet's ``BaseBoxes``, and that the calculator knows.
    * ``covers_inside``: whether heads need the centres of positives to lie inside, see ``min_positives``.
    * ``decide(inputs)``: the assignment of one image, by a pure function.

    Args:
        ignore_iof_thr: a prior that would be background is left out of the loss where ignore regions cover more than
            this share of it (of points, of a square of the size of a stride); off when not above 0.
        min_positives: 1 gives an object that is left without a positive its best prior that nobody has: the largest
            overlap with what is predicted, or with the priors where predictions don't count, by the assigner's own
            calculator; where nothing overlaps, the nearest centre.  Objects of no area get none, nor does one whose 8
            best free priors all go to others that had none, or, where heads need centres inside, one that holds none.
            It brings coverage, which isn't AP: where few objects are left without, it may change nothing.  0 is off.
        **common: see ``BaseAssigner``.

    Result: ``AssignResult``, its ``max_overlaps`` (N,) being the quality of the ``Assignment``.
    """

    reads: ClassVar[Mapping[str, Kind]] = {"priors": "boxes"}
    mmdet2: ClassVar[forms.Names | None] = forms.DENSE
    levels: ClassVar[Literal["needed", "optional", "unused"]] = "unused"
    handles_regions: ClassVar[bool] = False
    needs_geometry: ClassVar[bool] = True
    asks_boxes: ClassVar[bool] = False
    covers_inside: ClassVar[bool] = False

    def __init__(self, *, ignore_iof_thr: float = -1, min_positives: int = 0, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.min_positives = self.count_of("min_positives", min_positives, least=0)
        if self.min_positives > 1:
            self.fail(f"min_positives is {min_positives}; 0 and 1 are known: raise what counts candidates for more")
        self.ignore_iof_thr = self.number_of("ignore_iof_thr", ignore_iof_thr)

    @in_any_form
    @assigner_method
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any = None,
        *,
        num_level_priors: Sequence[int] | None = None,
        img_meta: Mapping[str, Any] | None = None,
    ) -> AssignResult:
        """Assign the priors of one image.

        Also takes mmdet 2's tensors, in its order or by its names: ``bboxes``, ``gt_bboxes``, ``gt_bboxes_ignore``,
        ``gt_labels`` of most classes, see ``mmdet2`` of each.

        Args:
            pred_instances: with the fields that the class reads, (N, ...) each; N may be 0.
            gt_instances: with ``bboxes`` (M, 4) xyxy and ``labels`` (M,); M may be 0.
            gt_instances_ignore: with ``bboxes`` (R, 4) xyxy of regions to leave out of the loss, or None.
            num_level_priors: priors in each level, summing to N; also in the second place, as mmdet's ATSSHead passes
                it; not used by assigners that don't tell levels apart.
            img_meta: of the image, named in errors.

        Raises:
            AssignerInputError: a field is missing or has the wrong shape, or, where values are checked, one is wrong.
        """
        image = self.read(pred_instances, gt_instances, gt_instances_ignore, num_level_priors, img_meta)
        image.settle()
        return self.decided([image])[0]

    @assigner_method
    def assign_batch(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        num_level_priors: Sequence[int] | None = None,
        **options: Any,
    ) -> list[AssignResult]:
        """Assign B images, equal to ``assign`` for each; the arguments are those of ``BaseAssigner.assign_batch``.

        Values of all images are checked together.  On a device, assigners that can work on all images at once.  A CPU
        takes them one by one, which is faster: what is near in one image fills its cache.
        """
        zipped = self.zip_images(pred_list, gt_list, ignore_list, img_metas)
        images = [self.read(pred, gt, ignore, num_level_priors, meta, **options) for pred, gt, ignore, meta in zipped]
        if not images:
            return []
        images[0].settle(*images[1:])
        results: dict[int, AssignResult] = {}
        for group in self._groups(images):
            results.update(zip(group, self.decided([images[number] for number in group])))
        return [results[number] for number in range(len(images))]

    def _groups(self, images: Sequence[Inputs]) -> list[list[int]]:
        """Numbers of images that are decided together: on a device those that have objects and as many priors."""
        together: dict[int, list[int]] = {}
        alone = []
        for number, image in enumerate(images):
            num_priors = len(next(iter(image.fields.values())))
            if (
                self.can_batch()
                and image.upright
                and not self.compile
                and image.on_device
                and len(image.gts)
                and num_priors
            ):
                together.setdefault(num_priors, []).append(number)
            else:
                alone.append([number])
        return [*together.values(), *alone]

    # ------------------------------------------------------------------------------------------------------- reading

    def uses_regions(self) -> bool:
        """Whether ignore regions count."""
        return self.handles_regions or self.ignore_iof_thr > 0

    def fields_of(self, pred_instances: Any) -> Mapping[str, Kind]:
        """The fields that are read of these predictions, and what they hold."""
        reads = self.reads_of(self)
        return reads if self.needs_geometry else {name: self.kind_of(kind) for name, kind in reads.items()}

    def read(
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any,
        num_level_priors: Sequence[int] | None,
        img_meta: Mapping[str, Any] | None,
        **options: Any,
    ) -> Inputs:
        """Fetch the fields of one image; their values are checked by ``Inputs.settle``.

        Args:
            pred_instances: as in ``assign``, and so are the next four.
            gt_instances: see there.
            gt_instances_ignore: see there.
            num_level_priors: see there.
            img_meta: see there.
            **options: of the call, for ``decide``.
        """
        image = self.inputs(img_meta, gt_instances, pred_instances)
        image.options = options
        kinds = self.fields_of(pred_instances)
        boxes, labels = (getattr(gt_instances, name, None) for name in ("bboxes", "labels"))
        kind: Kind = "boxes" if self.needs_geometry else self.kind_of("boxes")
        kind = self.kind_in(image, "gt_instances.bboxes", boxes, kind)
        named = {}
        for name, held in kinds.items():
            value = getattr(pred_instances, name, None)
            named[name] = (value, self.kind_in(image, f"pred_instances.{name}", value, held, kind == "shapes"))
        image.fields = dict(zip(kinds, image.rows(named, owner="pred_instances.")))
        num_classes = image.fields["scores"].shape[1] if "scores" in kinds else None
        image.read_truths(boxes, labels, num_classes, kind=kind, hint=self.other_boxes())
        regions = getattr(gt_instances_ignore, "bboxes", None)
        forms = {name: form_of(value) for name, (value, _) in named.items()}
        image.forms = {**forms, "gts": form_of(boxes), "regions": form_of(regions)}
        if kind != "boxes" or not image.upright:
            for option in self.upright_options():
                image.fail(f"{option} needs xyxy boxes, and only their class or the iou_calculator knows these")
        image.truths = gt_instances
        num_priors = len(next(iter(image.fields.values())))
        if self.levels == "needed" or (self.levels == "optional" and num_level_priors is not None):
            image.read_levels(num_level_priors, num_priors, pred_instances)
        if self.uses_regions():
            if kind == "boxes":
                kind = self.kind_in(image, "gt_instances_ignore.bboxes", regions, "predicted")
            image.read_regions(gt_instances_ignore, kind)
        else:
            self.without_regions(gt_instances_ignore)
        return image

    def kind_in(self, image: Inputs, name: str, value: Any, kind: Kind, with_shapes: bool = False) -> Kind:
        """What a field of boxes holds, by the class that they came in.

        Args:
            image: the inputs, for errors.
            name: of the field.
            value: as it was given.
            kind: what it holds if upright.
            with_shapes: whether the ground truths are boxes of a class of their own.

        Raises:
            AssignerInputError: the method or its calculator can't do with such boxes.
        """
        if kind not in ("boxes", "predicted"):
            return kind
        form, columns = form_of(value), getattr(value, "shape", (4,))[-1:]
        if not is_upright(form):
            if self.promise("upright") and (kind == "predicted" or self.asks_boxes or not self.needs_geometry):
                calculator = type(self.iou_calculator).__name__
                text = f"{name} are {form.__name__}, which the iou_calculator {calculator} doesn't know"
                image.fail(f"{text}; give one that does, as dict(type='mmrotate.RBboxOverlaps2D')")
            if kind == "boxes" and self.needs_geometry and not self.asks_boxes:
                image.fail(f"{name} are {form.__name__}, and the method needs upright boxes, xyxy")
            return "shapes" if kind == "boxes" else "numbers"
        if kind == "predicted":
            # Scores behind four columns are left out for our calculators; others get what mmdet gives them.
            return kind if self.promise("upright") or tuple(columns) == (4,) else "numbers"
        if with_shapes and tuple(columns) != (4,) and form is None:
            image.fail(f"{name} has {columns[0]} columns and no class that knows their centres; {self.other_boxes()}")
        return kind

    def upright_options(self) -> list[str]:
        """Options in use that know xyxy boxes alone."""
        return ["min_positives"] if self.min_positives else []

    def other_boxes(self) -> str:
        """How boxes that aren't xyxy can be given, for errors."""
        if not self.needs_geometry:
            return "of others, give an iou_calculator that knows them"
        if not self.asks_boxes:
            return ""
        return (
            "of others, the method needs the centres, and what lies inside: give BaseBoxes that know them, as "
            "mmrotate's RotatedBoxes (boxtype2tensor=False), and an iou_calculator for them"
        )

    def without_regions(self, gt_instances_ignore: Any) -> None:
        """Say once that ignore regions are given and not used."""
        count = count_instances(gt_instances_ignore)
        if count:
            text = (
                f"gt_instances_ignore has {count} regions, which are not used; what lies in them may become background"
            )
            self.warn_once("ignore regions", f"{text}, unless ignore_iof_thr leaves it out of the loss")

    # ------------------------------------------------------------------------------------------------------ deciding

    def can_batch(self) -> bool:
        """Whether ``decide_images`` works on many images at once."""
        return False

    def pads(self) -> bool:
        """Whether ground truths may be padded by boxes that match nothing: if the calculator leaves those at 0."""
        return bool(self.promise("upright"))

    def replays(self) -> bool:
        """Where ``compile='reduce-overhead'``, if ground truths may be padded."""
        return self.compile == "reduce-overhead" and self.pads()

    def decided(self, images: Sequence[Inputs]) -> list[AssignResult]:
        """Assign images whose inputs are right, see `decide_images`, padded where their work is replayed."""
        if not self.replays():
            return self.decide_images(images)
        results = self.decide_images([in_bucket(image) for image in images])
        for result, image in zip(results, images):
            result.num_gts = len(image.labels)
        return results

    def decide_images(self, images: Sequence[Inputs]) -> list[AssignResult]:
        """Assign images whose inputs are right; more than one only where ``can_batch``, with as many priors each."""
        return [self.result(self.decide(image), image) for image in images]

    def decide(self, image: Inputs) -> Assignment:
        """Assign one image; a subclass has this, or ``decide_images``."""
        raise NotImplementedError(f"{type(self).__name__} has neither decide nor decide_images")

    def result(self, assignment: Assignment, image: Inputs) -> AssignResult:
        """The assignment in mmdet's form, when each object has what ``min_positives`` promises."""
        return self.in_form(self.covered(assignment, image), image)

    def covered(self, assignment: Assignment, image: Inputs) -> Assignment:
        """Give objects without a positive their best free priors, where that is wanted."""
        gt_index = assignment.gt_index
        if not self.min_positives or not len(gt_index) or not len(image.gts):
            return assignment
        priors = self.boxes_of_priors(image)
        boxes = image.fields.get("bboxes", priors)
        free = self.free_priors(assignment, image)
        with torch.no_grad():
            taker, overlap = cover(gt_index, image.gts, boxes, priors, free, self.measure, self.covers_inside)
        given = taker >= 0
        quality = assignment.quality
        extras = {
            name: torch.where(given, overlap, value) if name in METRICS else value
            for name, value in assignment.extras.items()
        }
        quality = None if quality is None else torch.where(given, overlap, quality)
        return Assignment(torch.where(given, taker, gt_index), quality, extras)

    def free_priors(self, assignment: Assignment, image: Inputs) -> Tensor:
        """Which priors an object without a positive may get, (N,) bool: what no object has, outside ignore regions."""
        free = assignment.gt_index < 0
        ignored = self.ignored_priors(self.boxes_of_priors(image), image.regions)
        return free if ignored is None else free & ~ignored

    def in_form(self, assignment: Assignment, image: Inputs) -> AssignResult:
        """The assignment in mmdet's form, negatives in ignore regions being left out; metrics are plain attributes."""
        extras = dict(assignment.extras)
        metrics = {name: extras.pop(name) for name in METRICS if name in extras}
        assignment = Assignment(assignment.gt_index, assignment.quality, extras)
        if image.regions is not None and not self.handles_regions and self.ignore_iof_thr > 0:
            name = next(iter(self.reads))
            ignored = self.ignored_priors(
                self.boxes_of_priors(image), image.regions, forms=(image.forms["regions"], image.forms[name])
            )
            if ignored is not None:
                index = assignment.gt_index
                index = index.masked_fill(ignored & (index == NEGATIVE), IGNORED)
                assignment = Assignment(index, assignment.quality, assignment.extras)
        result = to_assign_result(assignment, image.labels)
        vars(result).update(metrics)
        return result

    def padded_regions(self, images: Sequence[Inputs]) -> Tensor | None:
        """Ignore regions of images, (B, R, 4) padded with boxes of no area; None where no image has any."""
        if self.ignore_iof_thr <= 0 or all(image.regions is None for image in images):
            return None
        nothing = images[0].gts.new_zeros(0, images[0].gts.shape[1])
        return padded([nothing if image.regions is None else image.regions for image in images])[0]

    def boxes_of_priors(self, image: Inputs) -> Tensor:
        """Boxes (N, 4) xyxy that ignore regions may cover: the priors, or of points squares of the size of a stride."""
        name, kind = next(iter(self.reads_of(self).items()))
        priors = image.fields[name]
        if kind not in ("points", "strided"):
            return priors
        half = priors[:, [2, -1]] / 2
        return torch.cat([priors[:, :2] - half, priors[:, :2] + half], dim=1)
