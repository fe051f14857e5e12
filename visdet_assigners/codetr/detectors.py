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

Beyond the paper: a branch without a head (``primary``), heads that don't contradict each other (``ignoring``), and
factors that change while training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from mmdet.models.detectors import DABDETR, DINO, ConditionalDETR, DeformableDETR
from mmdet.models.layers import inverse_sigmoid
from torch import Tensor

from visdet_assigners.adapting.shadowing import shadow
from visdet_assigners.codetr.adapter import MultiScaleAdapter
from visdet_assigners.codetr.collaboration import (
    Auxiliary,
    Collaboration,
    build_branch,
    check_classes,
    check_head,
    times,
)
from visdet_assigners.codetr.ignoring import check_can_ignore, ignore_conflicts
from visdet_assigners.codetr.primary import PrimaryOneToMany, after_cross_attention, as_hidden_states
from visdet_assigners.codetr.queries import (
    PositiveQueries,
    PositiveQueryEncoder,
    pad_positives,
    query_losses,
    reference_boxes,
)
from visdet_assigners.registry import MODELS
from visdet_assigners.set_losses import truths_of


class CollaborativeMixin:
    """Adds auxiliary branches to a DETR; goes before mmdet's detector among the bases.

    Args:
        *args: as in the detector.
        aux_branches: configs of K branches, ``AuxDenseBranch``, ``AuxRoIBranch``, ``PrimaryOneToMany``, or a class of
            your own with a method ``loss(maps, samples)``; K = 0 is the plain detector.  Each is given the detector's
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
            self.auxiliary = self.build_auxiliary(aux_branches, aux_adapter or {})

    def build_auxiliary(self, aux_branches: Sequence[Mapping[str, Any]], adapter: Mapping[str, Any]) -> Auxiliary:
        """Build the branches, and what those with a head need: nothing that is switched off."""
        width, num_classes = self.embed_dims, self.bbox_head.num_classes
        defaults = dict(num_classes=num_classes, embed_dims=width)
        branches = [build_branch({**defaults, **branch}) for branch in aux_branches]
        for index, branch in enumerate(branches):
            check_classes(branch, num_classes, index)
        if self.collab.conflicts == "ignore":
            check_can_ignore(branches)
        with_heads = [branch for branch in branches if not isinstance(branch, PrimaryOneToMany)]
        encoders = [
            PositiveQueryEncoder(width, self.makes_query_pos, self.collab.with_feat)
            for _ in with_heads
            if self.collab.pos_queries
        ]
        return Auxiliary(MultiScaleAdapter(width, **adapter) if with_heads else None, branches, encoders)

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
        with ExitStack() as stack:
            on_queries = self.auxiliary is not None and self.auxiliary.on_queries
            states = stack.enter_context(after_cross_attention(self.decoder)) if on_queries else []
            head_inputs.update(self.forward_decoder(**decoder_inputs))
        losses = self.bbox_head.loss(**head_inputs, batch_data_samples=batch_data_samples)
        if self.auxiliary is not None and self.auxiliary.on_maps:
            shapes = [tuple(level.shape[-2:]) for level in features[self.encoder_levels]]
            losses.update(self.collaborative_losses(context, shapes, batch_data_samples))
        if on_queries:
            losses.update(self.primary_losses(states, head_inputs, batch_data_samples))
        return losses

    def start_queries(self, encoded: dict[str, Any], samples: Sequence[Any]) -> tuple[dict, dict]:
        """Prepare the main queries; the detector's own step."""
        return self.pre_decoder(**encoded)

    def collaborative_losses(
        self, context: dict[str, Any], shapes: Sequence[tuple[int, int]], samples: Sequence[Any]
    ) -> dict[str, Any]:
        """Compute the losses of the branches that have heads.

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
        factor = self.collab.factor("lambda2") * self.decoder.num_layers if self.collab.aux_losses else 0.0
        lambda1 = self.collab.factor("lambda1")
        branches = auxiliary.on_maps
        for index, branch in branches:
            check_head(branch, maps, index)
        losses = {}
        with ExitStack() as stack:
            if self.collab.conflicts == "ignore":
                stack.enter_context(ignore_conflicts([branch for _, branch in branches], maps, samples))
            for number, (index, branch) in enumerate(branches):
                head_losses, positives = branch.loss(maps, samples)
                losses.update({f"{name}{index}": times(value, factor, name) for name, value in head_losses.items()})
                if not self.collab.pos_queries:
                    continue
                queries = pad_positives(positives, sizes, self.collab.max_pos_queries)
                encoder_maps = maps[finer : finer + len(shapes)]
                content, position = auxiliary.encoders[number](queries, encoder_maps, sizes / padded)
                scores, boxes = self.decode_positives(queries, content, position, context)
                for name, value in query_losses(self.bbox_head, scores, boxes, queries, sizes).items():
                    losses[f"{name}_aux{index}"] = value * lambda1
        return losses

    def primary_losses(
        self, states: list[Tensor], head_inputs: Mapping[str, Any], samples: Sequence[Any]
    ) -> dict[str, Tensor]:
        """Compute the losses of the branches that read the detector's own queries.

        Args:
            states: of each layer, (B, Q, C) after its cross-attention; denoising queries come before the others.
            head_inputs: what the detector's head was given; ``references`` and DINO's ``dn_meta`` are read.
            samples: B samples.
        """
        noisy = (head_inputs.get("dn_meta") or {}).get("num_denoising_queries", 0)
        references = head_inputs["references"]
        if noisy:
            states = [state[:, noisy:] for state in states]
            references = [reference[:, noisy:] for reference in references]
        scores, boxes = self.bbox_head(as_hidden_states(self.decoder, states), references)
        truths = truths_of([sample.gt_instances for sample in samples], [sample.metainfo for sample in samples])
        lambda1, losses = self.collab.factor("lambda1"), {}
        for index, branch in self.auxiliary.on_queries:
            for name, value in branch.losses(self.bbox_head, scores, boxes, truths).items():
                losses[f"{name}_aux{index}"] = value * lambda1
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
