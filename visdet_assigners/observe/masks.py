"""The masks that mask heads match, whose assigners may see points in them alone: what pictures and sizes need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmdet.models.dense_heads import MaskFormerHead

from visdet_assigners.functional.masks import mask_boxes
from visdet_assigners.observe.records import AssignmentRecord, MaskRecord


@contextmanager
def matched_masks(
    model: torch.nn.Module, frame: int = 0
) -> Iterator[dict[str, Callable[[AssignmentRecord], MaskRecord]]]:
    """Keep the masks of one image that the model's mask heads match, whose assigners may see points in them alone.

    Args:
        model: any detector.
        frame: whose masks to keep, for heads that match masks over several frames of a video.

    Yields:
        For the name of each mask head, what makes a record of its assigner one with masks and the boxes around them.
    """
    made: dict[str, Callable[[AssignmentRecord], MaskRecord]] = {}
    with ExitStack() as stack:
        for name, head in model.named_modules():
            if isinstance(head, MaskFormerHead):
                made[name] = stack.enter_context(_masks_of(head, frame))
        yield made


@contextmanager
def _masks_of(head: MaskFormerHead, frame: int) -> Iterator[Callable[[AssignmentRecord], MaskRecord]]:
    """Listen to one mask head; see ``matched_masks``."""
    truths: list[torch.Tensor] = []
    predictions: list[torch.Tensor] = []
    preprocess_gt = head.preprocess_gt

    def keep_truths(*args: Any) -> Any:
        prepared = preprocess_gt(*args)
        truths.append(of_frame(prepared[0].masks).bool())
        return prepared

    def keep_predictions(_module: Any, _inputs: Any, outputs: Any) -> None:
        predictions.extend(of_frame(masks[0]) > 0 for masks in outputs[1])  # one decoder layer after another

    def of_frame(masks: torch.Tensor) -> torch.Tensor:
        return masks if masks.ndim == 3 else masks[:, frame]

    def with_masks(record: AssignmentRecord) -> MaskRecord:
        pred_masks, gt_masks = predictions[record.call], truths[0]
        (height, width), (rows, columns) = gt_masks.shape[1:], pred_masks.shape[1:]
        pixels = torch.tensor([width / columns, height / rows] * 2, device=pred_masks.device)
        boxes = {"gt_boxes": mask_boxes(gt_masks), "pred_boxes": mask_boxes(pred_masks) * pixels}
        return MaskRecord(**{**vars(record), **boxes}, pred_masks=pred_masks, gt_masks=gt_masks)

    head.preprocess_gt = keep_truths
    handle = head.register_forward_hook(keep_predictions)
    try:
        yield with_masks
    finally:
        handle.remove()
        del head.preprocess_gt
