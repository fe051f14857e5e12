"""Sums of match costs, of one image or of many at once: what the one-to-one assigners share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visdet_assigners.assigners.base import PREDICTING, BaseAssigner
from visdet_assigners.dropped import count_dropped
from visdet_assigners.errors import AssignerInputError
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.lsap import InvalidCostError
from visdet_assigners.functional.tensors import as_float32, padded
from visdet_assigners.functional.validity import Kind, fault_in
from visdet_assigners.inputs import Inputs, count_instances
from visdet_assigners.match_costs import IS_OBJECT, BaseMatchCost, batch_fields
from visdet_assigners.registry import is_ours
from visdet_assigners.settings import on_nonfinite

IN_TURN = 4
"""Costs up to which torch adds a stack of them in turn; from there on the order depends on the place in the matrix."""
KINDS: dict[str, Kind] = {"scores": "scores", "bboxes": "predicted", "masks": "masks"}
MATRICES = 8
"""Matrices of the size of an image's costs, or of its scores, that are there at once."""

Found = TypeVar("Found")
"""What a function of ``functional.lsap`` returns."""
Image = tuple[Any, Any, Mapping[str, Any] | None]
"""Predictions, ground truths, and meta data of one image, as they come."""


class Fields(SimpleNamespace):
    """Fields that were read, with those behind them that were not."""

    def __getattr__(self, name: str) -> Any:
        if name == "_instances":  # while it is copied
            raise AttributeError(name)
        return getattr(self._instances, name)


@dataclass
class MatchedImage:
    """One image, read and checked.

    Attributes:
        pred: predictions with the fields (N, ...) that the costs read.
        gt: ground truths with the fields (M, ...) that they read.
        meta: meta data of the image.
        labels: (M,) int64.
        num_preds: N.
        inputs: what was read, for errors.
        instances: predictions and ground truths as they came, for costs of others.
    """

    pred: Fields
    gt: Fields
    meta: Mapping[str, Any] | None
    labels: Tensor
    num_preds: int
    inputs: Inputs
    instances: tuple[Any, Any]

    def kind(self, names: tuple[Sequence[str], Sequence[str]]) -> Hashable:
        """What images have in common whose costs of these fields are worked out together."""
        preds = tuple((name, getattr(self.pred, name).shape) for name in names[0])
        return preds, tuple((name, getattr(self.gt, name).shape[1:]) for name in names[1])


class MatchingAssigner(BaseAssigner):
    """An assigner that adds up match costs."""

    matches_on_host: ClassVar[bool] = True
    heads: ClassVar[str] = f"DETR and its line, {PREDICTING}"
    reads: ClassVar[Mapping[str, Kind]] = {"scores": "scores", "bboxes": "predicted"}

    @abstractmethod
    def costs_for(self, pred_instances: Any) -> Sequence[Any]:
        """The match costs that count for these predictions."""

    @property
    def replaces(self) -> bool:
        """Whether matching leaves out what is not finite instead of raising."""
        return (self.on_nonfinite or on_nonfinite()) == "replace"

    def report_bad_costs(self, finite: NDArray[np.bool_]) -> None:
        """Count the costs that are not finite, given (P,) bool, and say once that there are some."""
        count_dropped(type(self).__name__, "costs", torch.from_numpy(finite))
        self.warn_once("costs", "there are costs that are not finite; these pairs are never matched")

    # ------------------------------------------------------------------------------------------------------- reading

    def read_image(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> MatchedImage:
        """Fetch the fields of one image that the costs read; N and M may be 0.

        What is not finite shows in the costs, so that fields are looked at only then, and of them only what is read.
        """
        inputs = self.inputs(img_meta, gt_instances, pred_instances)
        costs = [cost for cost in self.costs_for(pred_instances) if isinstance(cost, BaseMatchCost)]
        reads = {pair: None for cost in costs for pair in cost.pairs}
        preds = {}
        for name in dict.fromkeys(pred for pred, _ in reads if pred):
            value = inputs.field(getattr(pred_instances, name, None), f"pred_instances.{name}", KINDS[name])
            preds[name] = value
        if len({len(value) for value in preds.values()}) > 1:
            lengths = {name: len(value) for name, value in preds.items()}
            inputs.fail(f"pred_instances has fields of different lengths: {lengths}")
        num_classes = preds["scores"].shape[-1] if ("scores", "labels") in reads else None
        labels = inputs.read_labels(getattr(gt_instances, "labels", None), num_classes=num_classes)
        truths: dict[str, Any] = {"labels": labels}
        names = {truth for _, truth in reads} | {name for cost in costs for name in cost.reads_besides}
        if len(labels):
            if "bboxes" in names:
                inputs.read_truths(getattr(gt_instances, "bboxes", None), labels, num_classes)
                truths["bboxes"] = inputs.gts
            for name in sorted(names & {"masks", "positive_maps", "text_token_mask"}):
                masks = getattr(gt_instances, name, None)
                truths[name] = inputs.read_masks(masks, f"gt_instances.{name}", len(labels))
        pred, gt = Fields(_instances=pred_instances, **preds), Fields(_instances=gt_instances, **truths)
        if "bboxes" in preds and not inputs.replaces:  # overlaps of infinite boxes may be finite
            inputs.check(preds["bboxes"], "pred_instances.bboxes", "predicted")
        for name, value in preds.items():
            inputs.remember(self._part_read(costs, name, value, gt), f"pred_instances.{name}", KINDS[name])
        if any(cost.needs_size for cost in costs):
            inputs.image_size(img_meta)
        num_preds = len(next(iter(preds.values()))) if preds else count_instances(pred_instances)
        return MatchedImage(pred, gt, img_meta, labels, num_preds, inputs, (pred_instances, gt_instances))

    def _part_read(self, costs: Sequence[BaseMatchCost], name: str, value: Tensor, gt: Any) -> Tensor:
        """What the costs read of a field of the predictions, 0 in place of the rest."""
        parts = [cost.part_read(value, gt) for cost in costs if name in [pred for pred, _ in cost.pairs]]
        whole = any(part is value for part in parts)
        return value if whole or not parts else parts[0]

    def read_images(self, images: Sequence[Image]) -> list[MatchedImage]:
        """Fetch what the costs read of all images, and check it together."""
        read = [self.read_image(*image) for image in images]
        if read:
            read[0].inputs.settle(*(image.inputs for image in read[1:]))
        return read

    # --------------------------------------------------------------------------------------------------------- costs

    def total_cost(self, image: MatchedImage) -> Tensor:
        """Sum of the costs of one image, (N, M); either may be 0."""
        num_gts, device = len(image.labels), image.labels.device
        if image.num_preds == 0 or num_gts == 0:
            return image.labels.new_zeros(image.num_preds, num_gts, dtype=torch.float32)
        blocks = split(num_gts, MATRICES * 4 * image.num_preds, device, least=num_gts)
        names = self._names_together(image) if len(blocks) > 1 else None
        costs = self.costs_for(image.instances[0])
        if names is None or any(cost.over_image for cost in costs):
            return torch.stack(self._terms(image)).sum(dim=0)
        # Each entry is worked out by itself, so the columns may come in blocks.
        truths = {name: getattr(image.gt, name) for name in names[1]}
        parts = [SimpleNamespace(**{name: value[block] for name, value in truths.items()}) for block in blocks]
        return torch.cat([sum_of(costs, image.pred, part, image.meta) for part in parts], dim=1)

    def total_costs(self, images: Sequence[MatchedImage]) -> list[tuple[list[int], Tensor]]:
        """Sums of the costs of images, on a device of as many at once as the memory budget allows.

        Together go images whose predictions have the same shapes, where all costs take batches (those of masks don't:
        products of matrices round by their shapes).  On a CPU each image is by itself, which is faster: its costs stay
        in the cache.

        Args:
            images: B of them.

        Returns:
            Batches: the numbers of b images and their costs (b, N, M), M being at least the M_i of each, and 0 behind
            them.
        """
        groups: dict[Hashable, list[int]] = {}
        names = [self._names_together(image) for image in images]
        for number, (image, own) in enumerate(zip(images, names)):
            alone = own is None or not static_shapes(image.labels.device)
            groups.setdefault(number if alone else image.kind(own), []).append(number)  # type: ignore[arg-type]
        batches = []
        for group in groups.values():
            first, columns = images[group[0]], 1 + max(len(images[number].labels) for number in group)
            largest = max((getattr(first.pred, name).nbytes for name in (names[group[0]] or [()])[0]), default=0)
            bytes_each = MATRICES * (4 * first.num_preds * columns + largest)
            for block in split(len(group), bytes_each, first.labels.device):
                chosen = group[block]
                if len(chosen) == 1:
                    cost = self.total_cost(images[chosen[0]])[None]
                else:
                    cost = self._cost_of_all([images[number] for number in chosen], names[chosen[0]])  # type: ignore
                batches.append((chosen, cost))
        return batches

    def never_matched(self, images: Sequence[MatchedImage]) -> Tensor | None:
        """Which predictions of some images with N each may not be matched: those with inverted boxes, (B, N) bool."""
        if "bboxes" not in vars(images[0].pred) or images[0].num_preds == 0:
            return None
        boxes = [image.pred.bboxes for image in images]
        stacked = torch.stack(boxes) if len(boxes) > 1 else boxes[0][None]
        inverted = (stacked[..., 2:] < stacked[..., :2]).any(dim=-1)
        return None if not static_shapes(inverted.device) and not inverted.any() else inverted

    def solve(
        self, images: Sequence[MatchedImage], batches: Sequence[tuple[list[int], Tensor]], match: Callable[..., Found]
    ) -> Found:
        """Hand the costs of batches to a function of ``functional.lsap``; one that isn't finite names its image.

        Args:
            images: B of them.
            batches: what ``total_costs`` returns for them.
            match: takes costs, counts of ground truths, ``tolerate`` and ``never``, as ``matched_columns`` does.
        """
        groups = [[images[number] for number in numbers] for numbers, _ in batches]
        counts = [[len(image.labels) for image in group] for group in groups]
        never = [self.never_matched(group) for group in groups]
        tolerate = self.report_bad_costs if self.replaces else None
        try:
            return match([cost for _, cost in batches], counts, tolerate=tolerate, never=never)
        except InvalidCostError as error:
            self.fail_for(error, [number for numbers, _ in batches for number in numbers], images)

    def fail_for(self, error: InvalidCostError, numbers: Sequence[int], images: Sequence[MatchedImage]) -> NoReturn:
        """Raise for the image whose costs are not finite; ``numbers`` maps the solver's problems to images."""
        wrong = numbers[error.problem]
        image = images[wrong]
        image.inputs.explain()
        for cost, term in zip(self.costs_for(image.instances[0]), self._terms(image)):
            fault = fault_in(term, "scores", type(cost).__name__)
            if fault is not None:
                image.inputs.fail(fault.text, fault)
        image.inputs.fail(str(InvalidCostError(wrong, len(images))))

    def _names_together(self, image: MatchedImage) -> tuple[list[str], list[str]] | None:
        """The fields that the costs read, None where they must be worked out for this image alone and whole."""
        if len(image.labels) == 0 or image.num_preds == 0 or image.meta is None or "img_shape" not in image.meta:
            return None
        costs = self.costs_for(image.instances[0])
        return None if len(costs) > IN_TURN else batch_fields(costs)

    def _cost_of_all(self, images: Sequence[MatchedImage], names: tuple[list[str], list[str]]) -> Tensor:
        """Sums of the costs of images of one kind, (B, N, M), 0 behind the ground truths of each."""
        preds = {name: torch.stack([getattr(image.pred, name) for image in images]) for name in names[0]}
        truths = {name: padded([getattr(image.gt, name) for image in images]) for name in names[1]}
        valid = next(iter(truths.values()))[1]  # (B, M)
        sizes = torch.tensor([image.meta["img_shape"][:2] for image in images])  # type: ignore[index]
        cost = sum_of(
            self.costs_for(images[0].instances[0]),
            SimpleNamespace(**preds),
            SimpleNamespace(**{name: batch for name, (batch, _) in truths.items()}, **{IS_OBJECT: valid}),
            {"img_shape": sizes.to(valid.device, non_blocking=True)},
        )
        return cost.masked_fill_(~valid[:, None], 0)

    def _terms(self, image: MatchedImage) -> list[Tensor]:
        """The costs of one image, (N, M) each; those of others get the instances as they came."""
        pred, gt = image.instances
        terms = []
        for cost in self.costs_for(pred):
            try:
                if isinstance(cost, BaseMatchCost) and is_ours(type(cost)):
                    term = cost.weighted(image.pred, image.gt, image.meta)
                else:
                    term = cost(pred_instances=pred, gt_instances=gt, img_meta=image.meta)
            except AssignerInputError as error:  # which names the cost alone
                image.inputs.fail(str(error))
            terms.append(as_float32(term))
        return terms


def sum_of(costs: Sequence[Any], pred: Any, gt: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
    """Our costs added up, of one image or of many.

    Stacked, not added in turn: from five costs on the two differ in the last bit.
    """
    return torch.stack([as_float32(cost.weighted(pred, gt, img_meta)) for cost in costs]).sum(dim=0)
