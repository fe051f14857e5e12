"""Overlaps by an exchangeable calculator, of boxes that it may know alone, and ignore regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from visdet_assigners.errors import AssignerInputError
from visdet_assigners.functional.geometry import in_form
from visdet_assigners.functional.overlaps import Measure
from visdet_assigners.functional.tensors import as_float32
from visdet_assigners.functional.validity import JUDGED, Kind
from visdet_assigners.inputs import Inputs, warn_once
from visdet_assigners.iou_calculators import BboxOverlaps2D, IoUCalculator
from visdet_assigners.options import number, threshold_band
from visdet_assigners.registry import build

Forms = tuple[Any, Any]
"""The classes that boxes came in, of either side of a comparison, see `functional.geometry.form_of`."""


class OverlapMixin:
    """Overlaps by ``iou_calculator``, and ignore regions by intersection over the prior.

    A calculator is called as in mmdet, and may promise more by attributes of its own class (subclasses, which may
    compute something else, don't inherit them):

    * ``upright``: it takes xyxy boxes alone, so that these can be checked.
    * ``reach``: pixels from which on boxes apart overlap by exactly 0, so that far pairs are left out, or a
      `functional.blocks.Reach`; None for none.  It may be a property, where it depends on the options.
    * ``takes_pairs``: it takes ``is_aligned`` with any number of leading dimensions.
    * ``blockwise``: an overlap doesn't depend on what else is in the call, so that calls may be cut into blocks.  The
      ground truths then always come first, for measures that tell them from the priors.

    Where it promises nothing it is called once, with all boxes, as long as the memory budget allows.  It gets boxes in
    the class that they came in, as `mmdet.structures.bbox.BaseBoxes`, since it may ask that class for more than rows.
    """

    iou_calculator: IoUCalculator = BboxOverlaps2D()
    ignore_iof_thr: float = -1
    priors_first: ClassVar[bool] = True
    """Whether mmdet calls the calculator with the priors first, for one that isn't symmetric."""

    def build_calculator(self, iou_calculator: Any) -> None:
        """Set ``iou_calculator`` from a configuration, an object, or None for plain IoU."""
        if iou_calculator is not None:
            self.iou_calculator = build(iou_calculator)

    def set_thresholds(self, pos_iou_thr: Any, neg_iou_thr: Any, min_pos_iou: Any) -> None:
        """Set the attributes of these names; of our own calculators they are at most 1.

        Raises:
            ValueError: one of them is no threshold.
        """
        who, most = type(self).__name__, 1.0 if self.promise("upright") else math.inf
        self.pos_iou_thr = number(who, "pos_iou_thr", pos_iou_thr, most=most)
        self.neg_iou_thr = threshold_band(who, "neg_iou_thr", neg_iou_thr, most=most)
        self.min_pos_iou = number(who, "min_pos_iou", min_pos_iou, most=most)
        highest = max(neg_iou_thr) if isinstance(neg_iou_thr, Sequence) else neg_iou_thr
        if highest > pos_iou_thr:
            text = f"neg_iou_thr {neg_iou_thr} is above pos_iou_thr {pos_iou_thr}; priors between them become positive"
            warn_once(who, "thresholds", text)

    def promise(self, name: str) -> Any:
        """What the calculator's own class promises by this name, None if nothing."""
        promised = vars(type(self.iou_calculator)).get(name)
        return promised.__get__(self.iou_calculator) if isinstance(promised, property) else promised

    @property
    def blockwise(self) -> bool:
        """Whether calls of the calculator may be cut into blocks."""
        return bool(self.promise("blockwise"))

    def kind_of(self, kind: Kind) -> Kind:
        """What is known of boxes of this kind: they are upright, or only the calculator knows them."""
        return kind if self.promise("upright") else JUDGED.get(kind, kind)

    def overlaps(self, boxes1: Tensor, boxes2: Tensor, mode: str = "iou", forms: Forms = (None, None)) -> Tensor:
        """Pairwise overlaps, (A, B), at least in float32.

        Args:
            boxes1: (A, D).
            boxes2: (B, E).
            mode: see `IoUCalculator`.
            forms: the classes that the calculator gets both in, None for tensors.

        Raises:
            AssignerInputError: the calculator is somebody else's and refuses the boxes by an assertion, or for what
                their class doesn't have.
        """
        if self.promise("upright"):
            return as_float32(self.iou_calculator(boxes1, boxes2, mode=mode))
        first, second = in_form(forms[0], boxes1), in_form(forms[1], boxes2)
        try:
            return as_float32(self.iou_calculator(first, second, mode=mode))
        except (AssertionError, AttributeError) as error:
            what = " and ".join(f"{type(each).__name__} {tuple(each.shape)}" for each in (first, second))
            text = f"{type(self.iou_calculator).__name__} refuses {what}: {type(error).__name__} {error}".rstrip()
            raise AssignerInputError(type(self).__name__, f"{text}; give an iou_calculator for such boxes") from error

    @property
    def measure(self) -> Measure:
        """How ground truths and boxes are compared, the calculator being called in mmdet's order."""
        return self.measure_of((None, None))

    def measure_of(self, forms: Forms) -> Measure:
        """The measure of ground truths and boxes that came in these classes, the ground truths' first."""
        turned = self.priors_first and not self.blockwise
        if turned:
            overlaps = lambda gts, boxes: self.overlaps(boxes, gts, forms=forms[::-1]).mT  # noqa: E731
        elif forms == (None, None):
            overlaps = self.overlaps
        else:
            overlaps = lambda gts, boxes: self.overlaps(gts, boxes, forms=forms)  # noqa: E731
        return Measure(overlaps, self.promise("reach"), self.blockwise)

    def measure_in(self, image: Inputs, field: str) -> Measure:
        """The measure of the ground truths of an image and the boxes in one of its fields."""
        return self.measure_of((image.forms.get("gts"), image.forms.get(field)))

    def overlaps_at(self, boxes: Tensor, gts: Tensor, candidates: Tensor, forms: Forms = (None, None)) -> Tensor:
        """Overlaps of ground truths with some boxes each, (M, K).

        Args:
            boxes: (N, 4) xyxy.
            gts: (M, 4) xyxy.
            candidates: (M, K) int64, rows of ``boxes``.
            forms: the classes that a calculator of others gets both in, the ground truths' first.
        """
        calculator: Any = self.iou_calculator
        if self.promise("takes_pairs"):
            pairs = boxes[candidates]  # (M, K, 4)
            return as_float32(calculator(gts[:, None].expand_as(pairs), pairs, is_aligned=True))
        return self.overlaps(boxes, gts, forms=forms[::-1]).T.gather(1, candidates)

    def ignored_priors(
        self, priors: Tensor, regions: Tensor | None, wrt_candidates: bool = True, forms: Forms = (None, None)
    ) -> Tensor | None:
        """Which priors lie in ignore regions: IoF above ``ignore_iof_thr``, strictly.

        Args:
            priors: (..., N, 4) xyxy.
            regions: (..., R, 4) xyxy or None.
            wrt_candidates: the intersection over the area of the prior; otherwise over that of the region.
            forms: the classes that a calculator of others gets both in, the regions' first.

        Returns:
            (..., N) bool, or None where ignoring is off or there are no regions.
        """
        if self.ignore_iof_thr <= 0 or regions is None or not regions.numel() or not priors.numel():
            return None
        if wrt_candidates:
            covered = self.overlaps(priors, regions, "iof", forms[::-1]).amax(dim=-1)
        else:
            covered = self.overlaps(regions, priors, "iof", forms).amax(dim=-2)
        return covered > self.ignore_iof_thr
