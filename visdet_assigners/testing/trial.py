"""One call of an assigner, as a value that can be written down, and points with what is predicted at them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from mmengine.structures import InstanceData
from torch import Tensor

from visdet_assigners.testing.drawing import Draw, logits, predicted, priors


@dataclass(frozen=True)
class Trial:
    """One call of an assigner.

    Attributes:
        name: class of the assigner.
        config: arguments of its constructor.
        pred: fields of the predictions.
        gt: fields of the ground truths.
        ignore: fields of the ignore regions; None if there are no instances of them.
        image: (height, width).
        rest: what else the call takes.
    """

    name: str
    config: dict[str, Any]
    pred: dict[str, Tensor]
    gt: dict[str, Tensor]
    ignore: dict[str, Tensor] | None = None
    image: tuple[int, int] = (64, 64)
    rest: dict[str, Any] = field(default_factory=dict)

    @property
    def instances(self) -> tuple[InstanceData, InstanceData, InstanceData | None]:
        """Predictions, ground truths and ignore regions as heads pass them, each time anew."""
        ignore = None if self.ignore is None else InstanceData(**self.ignore)
        return InstanceData(**self.pred), InstanceData(**self.gt), ignore

    def __repr__(self) -> str:  # tensors with all their digits, so that a failure can be pasted into a test
        fields = ", ".join(f"{name}={_written(value)}" for name, value in vars(self).items())
        return f"Trial({fields})"


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        dtype = "" if value.dtype in (torch.float32, torch.int64) and value.numel() else f", dtype={value.dtype}"
        shape = f".view{tuple(value.shape)}" if not value.numel() else ""
        return f"torch.tensor({value.tolist()}{dtype}){shape}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_written(item)}" for key, item in value.items()) + "}"
    return f"[{', '.join(map(_written, value))}]" if isinstance(value, list) else repr(value)


def pointwise(draw: Draw, image: tuple[int, int], topk: int, gt: dict[str, Tensor]) -> dict[str, Tensor]:
    """Points, boxes predicted from them, and logits."""
    points = draw(priors(image, topk, ratios=False)).points
    reach = draw(st.sampled_from([0.5, 1.0, 2.0])) * points[:, 2:]
    around = torch.cat([points[:, :2] - reach, points[:, :2] + reach], dim=1)
    return {"priors": points, "bboxes": draw(predicted(around, gt["bboxes"])), "scores": draw(logits(len(points)))}
