"""Co-DETR: collaborative hybrid assignments training.  Zong et al., ICCV 2023, arXiv:2211.12860v6.

One-to-one matching leaves a DETR few positives.  While training, heads with one-to-many assigners stand on the
encoder's memory, and their positive boxes go through the decoder as further queries that need no matching.  Only
``loss`` is changed: prediction is the plain detector's, and ``strip_auxiliary`` leaves nothing else.

Where the paper and the code published with it differ, or are silent, this is what is done here:

- fewer positives than queries are padded with masked queries, never with negatives (the paper's words; the published
  code appends random negatives, or masks rows whole, which gives NaN);
- the references of positive queries have the dimension of the main queries' references: points for a one-stage
  Deformable DETR, whose first layer predicts absolute sizes, boxes for two-stage detectors, DINO and DAB-DETR;
- each branch has a decoder pass of its own, so the main pass is bit for bit the plain detector's;
- the feature of a positive is sampled at its centre and not detached; its box is;
- images without objects and branches without positives give zero losses that are connected to every parameter, so
  distributed training needs no ``find_unused_parameters``;
- lambda2 times the number of decoder layers (eq. 6) is multiplied here, once, not by hand into every loss weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmdet.models.detectors import DABDETR, DINO, ConditionalDETR, DeformableDETR
from mmdet.models.layers import inverse_sigmoid
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from visdet_assigners.adapting.shadowing import shadow
from visdet_assigners.codetr.adapter import MultiScaleAdapter
from visdet_assigners.codetr.queries import (
    PositiveQueries,
    PositiveQueryEncoder,
    pad_positives,
    query_losses,
    reference_boxes,
)
from visdet_assigners.registry import MODELS, SCOPE


@dataclass(frozen=True)
class Collaboration:
    """The knobs of collaborative training.

    Attributes:
        lambda1: factor of the positive queries' losses (paper: 1; table 13).
        lambda2: factor of the auxiliary heads' losses, times the number of decoder layers (paper: 2, so 12 for 6).
        aux_losses: False leaves the heads' losses at 0, with their positives still used: row 3 of table 9.
        pos_queries: False leaves the positive queries out: row 2 of table 9.
        max_pos_queries: most queries of a branch and image; of more positives a random subset is taken (paper: 300).
        with_feat: whether a query also gets the encoder's feature at the centre of its box.
    """

    lambda1: float = 1.0
    lambda2: float = 2.0
    aux_losses: bool = True
    pos_queries: bool = True
    max_pos_queries: int = 300
    with_feat: bool = True

    def __post_init__(self) -> None:
        if self.lambda1 < 0 or self.lambda2 < 0:
            raise ValueError(f"collab: lambda1 and lambda2 can't be negative, got {self.lambda1} and {self.lambda2}")
        if self.max_pos_queries < 1:
            raise ValueError(f"collab: max_pos_queries must be at least 1, got {self.max_pos_queries}")


class Auxiliary(BaseModule):
    """All that is there for training alone, under one name, so that it can be left behind."""

    def __init__(self, adapter: MultiScaleAdapter, branches: Sequence[Any], encoders: Sequence[Any]) -> None:
        super().__init__()
        self.adapter = adapter
        self.branches = ModuleList(branches)
        self.encoders = ModuleList(encoders)


class CollaborativeMixin:
    """Adds auxiliary branches to a DETR; goes before mmdet's detector among the bases.

    Args:
        *args: as in the detector.
        aux_branches: configs of K branches, ``AuxDenseBranch``, ``AuxRoIBranch``, or a class of your own with a method
            ``loss(maps, samples)``; K = 0 is the plain detector.  Each is given the detector's
            ``num_classes`` and ``embed_dims``, so heads need not repeat them.
        collab: the fields of ``Collaboration`` that are to differ from their defaults.
        aux_adapter: arguments of ``MultiScaleAdapter`` beside the width.
        **kwargs: as in the detector.

    Raises:
        ValueError: a branch has other classes than the detector's head, or, once it is used, other levels than the
            adapter or other channels than the transformer.
    """

    plain: type
    """The detector of mmdet that is left when the auxiliary modules are taken away."""

    encoder_levels = slice(None)
    """Which levels of the neck the encoder reads."""

    makes_query_pos = False
    """Whether the positional query is an input of the decoder, beside the reference."""

    # What the detector among the bases has.
    extract_feat: Any
    pre_transformer: Any
    forward_encoder: Any
    pre_decoder: Any
    forward_decoder: Any
    decoder: Any
    bbox_head: Any
    embed_dims: int

    def __init__(
        self,
        *args: Any,
        aux_branches: Sequence[Mapping[str, Any]] = (),
        collab: Mapping[str, Any] | None = None,
        aux_adapter: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.collab = Collaboration(**(collab or {}))
        self.auxiliary: Any = None
        if aux_branches:
            width = self.embed_dims
            defaults = dict(num_classes=self.bbox_head.num_classes, embed_dims=width)
            branches = [_build_branch({**defaults, **branch}) for branch in aux_branches]
            for index, branch in enumerate(branches):
                _check_classes(branch, self.bbox_head.num_classes, index)
            encoders = [
                PositiveQueryEncoder(width, self.makes_query_pos, self.collab.with_feat)
                for _ in branches
                if self.collab.pos_queries
            ]
            self.auxiliary = Auxiliary(MultiScaleAdapter(width, **(aux_adapter or {})), branches, encoders)

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[Any]) -> dict[str, Any]:
        """Compute the plain detector's losses and, under names of their own, those of each branch k.

        The losses of a head keep their names with k behind (``loss_cls0``, ``loss_rpn_cls1``); those of its positive
        queries are ``loss_cls_aux0``, ``loss_bbox_aux0``, ``loss_iou_aux0``, and ``d0.loss_cls_aux0`` ... for layers
        before the last: the published names, but for the RPN's, which has none there.

        Args:
            batch_inputs: (B, 3, H, W).
            batch_data_samples: B samples with ``gt_instances``.
        """
        features = self.extract_feat(batch_inputs)
        encoder_inputs, decoder_inputs = self.pre_transformer(features, batch_data_samples)
        encoded = self.forward_encoder(**encoder_inputs)
        context = dict(decoder_inputs, memory=encoded["memory"])
        queries, head_inputs = self.start_queries(encoded, batch_data_samples)
        decoder_inputs.update(queries)
        head_inputs.update(self.forward_decoder(**decoder_inputs))
        losses = self.bbox_head.loss(**head_inputs, batch_data_samples=batch_data_samples)
        if self.auxiliary is not None:
            shapes = [tuple(level.shape[-2:]) for level in features[self.encoder_levels]]
            losses.update(self.collaborative_losses(context, shapes, batch_data_samples))
        return losses

    def start_queries(self, encoded: dict[str, Any], samples: Sequence[Any]) -> tuple[dict, dict]:
        """Prepare the main queries; the detector's own step."""
        return self.pre_decoder(**encoded)

    def collaborative_losses(
        self, context: dict[str, Any], shapes: Sequence[tuple[int, int]], samples: Sequence[Any]
    ) -> dict[str, Any]:
        """Compute the losses of all branches.

        Args:
            context: what the decoder is given beside queries: ``memory`` (B, N, C) and so on.
            shapes: height and width of the encoder's levels.
            samples: B samples.
        """
        auxiliary, memory = self.auxiliary, context["memory"]
        maps = auxiliary.adapter(memory, shapes)
        finer = len(auxiliary.adapter.up)
        sizes = memory.new_tensor([sample.img_shape[1::-1] for sample in samples], dtype=torch.float32)  # (B, 2)
        padded = sizes.new_tensor(samples[0].batch_input_shape[::-1])
        factor = self.collab.lambda2 * self.decoder.num_layers if self.collab.aux_losses else 0.0
        losses = {}
        for index, branch in enumerate(auxiliary.branches):
            _check_head(branch, maps, index)
            head_losses, positives = branch.loss(maps, samples)
            losses.update({f"{name}{index}": _times(value, factor, name) for name, value in head_losses.items()})
            if not self.collab.pos_queries:
                continue
            queries = pad_positives(positives, sizes, self.collab.max_pos_queries)
            encoder_maps = maps[finer : finer + len(shapes)]
            content, position = auxiliary.encoders[index](queries, encoder_maps, sizes / padded)
            scores, boxes = self.decode_positives(queries, content, position, context)
            for name, value in query_losses(self.bbox_head, scores, boxes, queries, sizes).items():
                losses[f"{name}_aux{index}"] = value * self.collab.lambda1
        return losses

    def decode_positives(
        self, queries: PositiveQueries, content: Tensor, position: Tensor | None, context: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Send one branch's queries through the decoder and the head.

        Args:
            queries: the padded positives of B images, M each.
            content: (B, M, C).
            position: (B, M, C) or None.
            context: as in ``collaborative_losses``.

        Returns:
            Scores (L, B, M, classes) and boxes (L, B, M, 4) of each layer.
        """
        raise NotImplementedError

    def attention_mask(self, queries: PositiveQueries) -> Tensor:
        """(B * heads, M, M) bool, as torch's attention takes it."""
        return queries.blocked.repeat_interleave(self.decoder.layers[0].self_attn.num_heads, dim=0)


def _build_branch(config: Mapping[str, Any]) -> Any:
    """Build a branch; one of this package needs no prefix, others are looked up as mmengine does."""
    kind = config["type"]
    return MODELS.build(dict(config, type=f"{SCOPE}.{kind}" if kind in MODELS.module_dict else kind))


def _times(value: Any, factor: float, name: str) -> Any:
    """Scale a loss, or a list of losses; accuracies and other figures stay."""
    if "loss" not in name:
        return value
    return [one * factor for one in value] if isinstance(value, (list, tuple)) else value * factor


def _check_classes(branch: Any, expected: int, index: int) -> None:
    """Raise where a head of a branch has other classes: labels would be its background, or out of its bounds."""
    for name in ("head", "roi.bbox_head", "roi.mask_head"):
        head: Any = branch
        for part in name.split("."):
            head = getattr(head, part, None)
        for one in head if isinstance(head, ModuleList) else [head]:
            number = getattr(one, "num_classes", expected)
            if number != expected and not getattr(one, "class_agnostic", False):
                raise ValueError(
                    f"aux_branches[{index}].{name}: {type(one).__name__} has num_classes={number}, the detector's "
                    f"bbox_head {expected}; leave it out, and the branch takes the detector's"
                )


def _check_head(branch: Any, maps: Sequence[Tensor], index: int) -> None:
    """Raise where a head's levels or channels are not the pyramid's; mmdet's own error would name neither."""
    head = getattr(branch, "head", getattr(branch, "rpn", None))
    levels = getattr(getattr(head, "prior_generator", None), "num_levels", len(maps))
    channels = getattr(head, "in_channels", maps[0].shape[1])
    if levels != len(maps):
        raise ValueError(
            f"aux_branches[{index}]: {type(head).__name__} has {levels} levels of priors, the adapter gives "
            f"{len(maps)}; set the strides of the head, or `coarser` and `finer` of aux_adapter"
        )
    if channels != maps[0].shape[1]:
        raise ValueError(
            f"aux_branches[{index}]: {type(head).__name__} has in_channels={channels}, "
            f"the transformer is {maps[0].shape[1]} wide; set in_channels to that"
        )


@MODELS.register_module()
class CoDeformableDETR(CollaborativeMixin, DeformableDETR):
    """Deformable DETR, one-stage or two-stage, with collaborative training."""

    plain = DeformableDETR
    makes_query_pos = True

    def decode_positives(  # noqa: D102
        self, queries: PositiveQueries, content: Tensor, position: Tensor | None, context: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        reference = reference_boxes(queries)[..., : 4 if self.as_two_stage else 2]
        arguments = dict(context)
        states, references = self.decoder(
            query=content,
            query_pos=position,
            value=arguments.pop("memory"),
            key_padding_mask=arguments.pop("memory_mask"),
            reference_points=reference,
            reg_branches=self.bbox_head.reg_branches if self.with_box_refine else None,
            self_attn_mask=self.attention_mask(queries),
            **arguments,
        )
        return self.bbox_head(states, [reference, *references])


@MODELS.register_module()
class CoDINO(CollaborativeMixin, DINO):
    """DINO with collaborative training; the decoder makes the positional query of the reference box."""

    plain = DINO

    def start_queries(self, encoded: dict[str, Any], samples: Sequence[Any]) -> tuple[dict, dict]:  # noqa: D102
        return self.pre_decoder(**encoded, batch_data_samples=samples)

    def decode_positives(  # noqa: D102
        self, queries: PositiveQueries, content: Tensor, position: Tensor | None, context: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        decoded = self.forward_decoder(
            query=content,
            reference_points=reference_boxes(queries),
            dn_mask=self.attention_mask(queries),
            **context,
        )
        return self.bbox_head(**decoded)


@MODELS.register_module()
class CoDABDETR(CollaborativeMixin, DABDETR):
    """DAB-DETR with collaborative training: the positional query is the box itself, before the sigmoid."""

    plain = DABDETR
    encoder_levels = slice(-1, None)

    def decode_positives(  # noqa: D102
        self, queries: PositiveQueries, content: Tensor, position: Tensor | None, context: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        states, references = self.decoder(
            query=content,
            key=context["memory"],
            query_pos=inverse_sigmoid(reference_boxes(queries)),
            key_pos=context["memory_pos"],
            key_padding_mask=context["memory_mask"],
            reg_branches=self.bbox_head.fc_reg,
            self_attn_masks=self.attention_mask(queries),
        )
        return self.bbox_head(states, references)


@MODELS.register_module()
class CoConditionalDETR(CollaborativeMixin, ConditionalDETR):
    """Conditional DETR with collaborative training.

    The decoder makes its reference points of the positional query by a layer of its own, so a positive's box reaches it
    through the query encoder alone.
    """

    plain = ConditionalDETR
    encoder_levels = slice(-1, None)
    makes_query_pos = True

    def decode_positives(  # noqa: D102
        self, queries: PositiveQueries, content: Tensor, position: Tensor | None, context: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        mask = self.attention_mask(queries)
        with ExitStack() as stack:  # mmdet's decoder hands no mask on to its layers
            for layer in self.decoder.layers:
                stack.enter_context(shadow(layer, "forward", partial(_masked, mask)))
            states, references = self.decoder(
                query=content,
                key=context["memory"],
                query_pos=position,
                key_pos=context["memory_pos"],
                key_padding_mask=context["memory_mask"],
            )
        return self.bbox_head(states, references)


def _masked(mask: Tensor, forward: Any, *args: Any, **kwargs: Any) -> Any:
    return forward(*args, self_attn_masks=mask, **kwargs)
