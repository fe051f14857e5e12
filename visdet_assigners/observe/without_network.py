"""Get the assignments of a detector from its priors alone, without computing features or predictions.

places = ask_without_network(model, dataset)  # of the assigners of which this is right
with without_network(model):
image, sample, records = assignments(model, dataset[0])
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from visdet_assigners.observe.detector import assignments, numbered_items, objects_of


@contextmanager
def without_network(model: Any, noise: float = 0.0) -> Iterator[None]:
    """Let ``model.loss`` assign without computing features, predictions or losses, inside the ``with`` block.

    The dense head (of a two-stage detector, its region proposal network) gets outputs of the right shapes that are all
    zero, and second stages don't run.  So what is assigned is right for assigners that look at priors alone, and of no
    meaning for the others: ``ask_without_network`` tells which.

    Args:
        model: any detector.
        noise: standard deviation of the outputs.

    Raises:
        ValueError: the model has no dense head that turns features into outputs in one call, as DETR's line.
    """
    two_stage = hasattr(model, "rpn_head") and hasattr(model, "roi_head")
    head: Any = getattr(model, "rpn_head" if two_stage else "bbox_head", None)
    if not hasattr(model, "extract_feat") or not hasattr(head, "loss_by_feat") or not hasattr(head, "prior_generator"):
        raise ValueError(f"{type(model).__name__} has no dense head that could do without its network")
    shapes_of = _output_shapes(model, head)
    replaced: list[nn.Module] = []

    def replace(module: nn.Module, **methods: Callable[..., Any]) -> None:
        replaced.append(module)
        vars(module).update(methods)

    replace(model, extract_feat=lambda inputs, *_: inputs)
    replace(head, forward=lambda inputs: _like(shapes_of(inputs), inputs.device, noise))
    for name, loss in head.named_children():
        if name.startswith("loss_") and getattr(loss, "reduction", "none") != "none":  # FSAF's choose the level
            replace(loss, forward=functools.partial(_no_loss, loss.forward))
    if two_stage:
        vars(head)["predict_by_feat"] = lambda *args, **_: []
        replace(model.roi_head, loss=lambda *args, **_: {})
    try:
        yield
    finally:
        for module in replaced:
            for method in ("extract_feat", "forward", "predict_by_feat", "loss"):
                vars(module).pop(method, None)


def _no_loss(loss: Callable[..., Any], *args: Any, reduction_override: str | None = None, **kwargs: Any) -> Any:
    """0 for a loss, but each pair's own where the head asks for these: PAA's choose the positives."""
    if reduction_override == "none":
        return loss(*args, reduction_override=reduction_override, **kwargs)
    return torch.zeros(())


def ask_without_network(model: Any, dataset: Any) -> set[str]:
    """Places of the model's assigners that look at priors alone, as far as they can be asked ``without_network``.

    Those that are given nothing predicted, and decide the same when the network's outputs are noise: priors
    themselves may be predicted, as those of guided anchoring.

    Args:
        model: any detector.
        dataset: its first image with objects is tried.
    """
    for _, item in numbered_items(dataset, range(len(dataset))):
        if len(objects_of(item)):
            answers = []
            for noise in (0.0, 0.1):
                try:
                    with without_network(model, noise):
                        answers.append(assignments(model, copy.deepcopy(item))[2])
                except Exception:
                    return set()  # a head that is built otherwise; the network itself always does
            same = {record.where for record in answers[0] if not record.reads_predictions}
            for calm, noisy in zip(*answers):
                if calm.where != noisy.where or not torch.equal(calm.gt_index, noisy.gt_index):
                    same.discard(calm.where)
            return same
    return set()


def _output_shapes(model: Any, head: Any) -> Callable[[torch.Tensor], Any]:
    """Return a function that gives the head's outputs for an input, as tensors that have a shape and nothing else."""
    shadow = copy.deepcopy(model).to("meta")
    shadow_head: Any = shadow.get_submodule(next(name for name, module in model.named_modules() if module is head))
    known: dict[torch.Size, Any] = {}

    @torch.no_grad()
    def shapes_of(inputs: torch.Tensor) -> Any:
        if inputs.shape not in known:
            known[inputs.shape] = shadow_head(shadow.extract_feat(torch.empty(inputs.shape, device="meta")))
        return known[inputs.shape]

    return shapes_of


def _like(outputs: Any, device: torch.device, noise: float) -> Any:
    """Replace every tensor in nested lists and tuples by one of its shape: zeros, or noise."""
    if isinstance(outputs, torch.Tensor):
        zeros = torch.zeros(outputs.shape, dtype=outputs.dtype, device=device)
        return zeros.normal_(std=noise) if noise else zeros
    if isinstance(outputs, (list, tuple)):
        return type(outputs)(_like(output, device, noise) for output in outputs)
    return outputs
