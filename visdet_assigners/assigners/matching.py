"""Sums of match costs, of one image or of many at once: what the one-to-one assigners share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.functional.blocks import split, static_shapes
from visdet_assigners.functional.inputs import Kind
from visdet_assigners.functional.lsap import InvalidCostError
from visdet_assigners.functional.tensors import as_float32, as_tensor, padded
from visdet_assigners.match_costs import BaseMatchCost, batch_fields

IN_TURN = 4
"""Costs up to which torch adds a stack of them in turn; from there on the order depends on the place in the matrix."""
KINDS: dict[str, Kind] = {"scores": "scores", "bboxes": "predicted", "masks": "masks"}
MATRICES = 8
"""Matrices of the size of an image's costs, or of its scores, that are there at once."""

Image = tuple[Any, Any, Mapping[str, Any] | None]
"""Predictions, ground truths, and meta data of one image."""


class Fields(NamedTuple):
    """What the costs read of an image whose costs can be worked out together with those of others, or in blocks.

    Attributes:
        preds: (N, ...) each, by name.
        truths: (M, ...) each, by name.
    """

    preds: dict[str, Tensor]
    truths: dict[str, Tensor]

    @property
    def kind(self) -> Hashable:
        """What images have in common that go together."""
        preds = tuple((name, value.shape, value.dtype) for name, value in self.preds.items())
        return preds, tuple((name, value.shape[1:], value.dtype) for name, value in self.truths.items())

    def bytes_of(self, columns: int) -> int:
        """Bytes that the temporaries of so many columns of costs take."""
        largest = max(self.preds.values(), key=lambda value: value.nbytes)
        return MATRICES * (4 * len(largest) * columns + largest.nbytes)


class MatchingAssigner(BaseAssigner):
    """An assigner that adds up match costs."""

    matches_on_host = True

    @abstractmethod
    def costs_for(self, pred_instances: Any) -> Sequence[Any]:
        """The match costs that count for these predictions."""

    def check(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Check the fields of one image that the costs read, and give its labels (M,) int64; N and M may be 0."""
        self.about(img_meta, gt_instances, pred_instances)
        costs = [cost for cost in self.costs_for(pred_instances) if isinstance(cost, BaseMatchCost)]
        reads = {cost.reads: None for cost in costs}
        kinds = {pred: KINDS[pred] for pred, _ in reads if pred}
        fields = dict(zip(kinds, self.read_predictions(pred_instances, **kinds) if kinds else ()))
        num_classes = fields["scores"].shape[-1] if ("scores", "labels") in reads else None
        truths = [truth for _, truth in reads]
        labels = self.read_labels(gt_instances, num_classes=num_classes)
        if len(labels) and "bboxes" in truths:
            self.read_ground_truths(gt_instances)
        for name in {"masks", "positive_maps"}.intersection(truths if len(labels) else ()):
            self.read_masks(gt_instances, name, len(labels))
        if any(cost.needs_size for cost in costs):
            self.image_size(img_meta)
        return labels

    def total_cost(self, pred_instances: Any, gt_instances: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """Sum of the costs of one image, (N, M); either may be 0.

        Raises:
            ValueError: a field is missing, or a cost is not finite on CPU or where that is asked for.
        """
        labels = gt_instances.labels
        num_preds, num_gts = self.count(pred_instances), len(labels)
        self.about(img_meta, gt_instances, pred_instances)
        if num_preds == 0 or num_gts == 0:
            return labels.new_zeros(num_preds, num_gts, dtype=torch.float32)
        costs = self.costs_for(pred_instances)
        blocks = split(num_gts, MATRICES * 4 * num_preds, labels.device, least=num_gts)
        fields = self._fields((pred_instances, gt_instances, img_meta), num_gts) if len(blocks) > 1 else None
        if fields is None:
            return self._sum(costs, pred_instances, gt_instances, img_meta)
        # Each entry is worked out by itself, so the columns may come in blocks.
        parts = [SimpleNamespace(**{name: value[block] for name, value in fields.truths.items()}) for block in blocks]
        return torch.cat([self._sum(costs, pred_instances, part, img_meta) for part in parts], dim=1)

    def total_costs(self, images: Sequence[Image], labels: Sequence[Tensor]) -> list[tuple[list[int], Tensor]]:
        """Sums of the costs of images, on a device of as many at once as the memory budget allows.

        Together go images whose predictions have the same shapes, where all costs take batches (those of masks don't:
        products of matrices round by their shapes).  On a CPU each image is by itself, which is faster: its costs stay
        in the cache.

        Args:
            images: B of them.
            labels: (M_i,) of each.

        Returns:
            Batches: the numbers of b images and their costs (b, N, M), M being at least the M_i of each, and 0 behind
            them.

        Raises:
            ValueError: as in `total_cost`.
        """
        fields = [self._fields(image, len(own)) for image, own in zip(images, labels)]
        groups: dict[Hashable, list[int]] = {}
        for number, own in enumerate(fields):
            alone = own is None or not static_shapes(labels[number].device)
            groups.setdefault(number if alone else own.kind, []).append(number)  # type: ignore[union-attr]
        batches = []
        for group in groups.values():
            first, columns = fields[group[0]], 1 + max(len(labels[number]) for number in group)
            bytes_each = 0 if first is None else first.bytes_of(columns)
            for block in split(len(group), bytes_each, labels[group[0]].device):
                chosen = group[block]
                if len(chosen) == 1:
                    cost = self.total_cost(*images[chosen[0]])[None]
                else:
                    cost = self._cost_of_all([(images[number], fields[number]) for number in chosen])  # type: ignore
                batches.append((chosen, cost))
        return batches

    def fail_for(self, error: InvalidCostError, numbers: Sequence[int], images: Sequence[Image]) -> NoReturn:
        """Raise for the image that the error is about, the problems being in the order of the numbers of images."""
        wrong = numbers[error.problem]
        self.call.search()
        self.check(*images[wrong])
        self.total_cost(*images[wrong])
        self.call.settle()
        self.fail(str(InvalidCostError(wrong, len(images))), images[wrong][2])

    def _fields(self, image: Image, count: int) -> Fields | None:
        """What the costs read of an image, None where they must be worked out for this image alone and whole."""
        pred, gt, meta = image
        if count == 0 or self.count(pred) == 0 or meta is None or "img_shape" not in meta:
            return None
        costs = self.costs_for(pred)
        names = batch_fields(costs)
        if names is None or len(costs) > IN_TURN:
            return None
        preds, truths = ({name: as_tensor(getattr(of, name, None)) for name in n} for of, n in zip((pred, gt), names))
        if not all(isinstance(value, Tensor) for value in (*preds.values(), *truths.values())):
            return None
        lengths = [len(value) != self.count(pred) for value in preds.values()]
        lengths += [len(value) != count for value in truths.values()]
        return None if any(lengths) else Fields(preds, truths)

    def _cost_of_all(self, of_kind: Sequence[tuple[Image, Fields]]) -> Tensor:
        """Sums of the costs of images of one kind, (B, N, M), 0 behind the ground truths of each."""
        images, fields = zip(*of_kind)
        preds = {name: torch.stack([own.preds[name] for own in fields]) for name in fields[0].preds}
        truths = {name: padded([own.truths[name] for own in fields]) for name in fields[0].truths}
        valid = next(iter(truths.values()))[1]  # (B, M)
        sizes = torch.tensor([meta["img_shape"][:2] for _, _, meta in images])
        cost = self._sum(
            self.costs_for(images[0][0]),
            SimpleNamespace(**preds),
            SimpleNamespace(**{name: batch for name, (batch, _) in truths.items()}),
            {"img_shape": sizes.to(valid.device, non_blocking=True)},
        )
        return cost.masked_fill_(~valid[:, None], 0)

    def _sum(self, costs: Sequence[Any], pred: Any, gt: Any, img_meta: Mapping[str, Any] | None) -> Tensor:
        """The costs added up, of one image or, where each takes batches, of many."""
        terms = []
        for match_cost in costs:
            cost = match_cost(pred_instances=pred, gt_instances=gt, img_meta=img_meta)
            terms.append(as_float32(cost))
            if self.call.searching:
                self.expect_finite(terms[-1], type(match_cost).__name__)
        # Stacked, not added in turn: from five costs on the two differ in the last bit.
        return torch.stack(terms).sum(dim=0)
