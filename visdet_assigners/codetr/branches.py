"""Auxiliary branches: heads with one-to-many assigners teach the encoder and lend their positives to the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from visdet_assigners.adapting.adapter import adapt_assigner
from visdet_assigners.codetr.positives import Positives, record_positives, record_samples
from visdet_assigners.registry import MODELS

Losses = dict[str, Any]


@MODELS.register_module()
class AuxDenseBranch(BaseModule):
    """One dense head of mmdet on the pyramid that the adapter makes of the encoder's memory.

    Args:
        head: config of any anchor head with a sampler (RetinaNet, ATSS, GFL, VFNet, YOLOF, PAA, ...), of YOLOX's,
            RTMDet's or FCOS's head, with its ``train_cfg``.  ``in_channels`` is the transformer's width, and the
            levels are the adapter's.  The paper takes one stacked convolution instead of four and GIoU (supplement B).
            ``train_cfg.assigner`` may be any assigner that can do with what a dense head has: priors, the sizes of
            the levels, scores and decoded boxes.  ATSSHead also needs positives inside their objects, for its
            centerness.
        num_classes: for a head that does not say; the detector passes its own.
        embed_dims: width of the pyramid, for a head that does not say its ``in_channels``; likewise.
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        head: Mapping[str, Any],
        num_classes: int | None = None,
        embed_dims: int | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.head = MMDET_MODELS.build(_with(head, num_classes=num_classes, in_channels=embed_dims))
        if not hasattr(self.head, "loss_by_feat"):
            raise TypeError(
                f"AuxDenseBranch: {type(self.head).__name__} is no dense head; use AuxRoIBranch for RoI heads"
            )

    def loss(self, maps: Sequence[Tensor], samples: Sequence[Any]) -> tuple[Losses, list[Positives]]:
        """Compute the head's losses.

        Args:
            maps: the pyramid, one (B, C, h, w) for each level.
            samples: B data samples with ``gt_instances``.

        Returns:
            The head's own losses, and the positives of each image that they were computed for.
        """
        with record_positives(self.head, samples) as recording, adapt_assigner(self.head, samples):
            losses = self.head.loss(tuple(maps), samples)
        return losses, recording.positives()

    @property
    def decides_by_place(self) -> Any:
        """The head that decides for each place of the pyramid."""
        return self.head

    def loss_by_place(self, maps: Sequence[Tensor], samples: Sequence[Any]) -> None:
        """Compute that head's loss; arguments as in ``loss``."""
        self.loss(maps, samples)


@MODELS.register_module()
class AuxRoIBranch(BaseModule):
    """A region proposal network and a RoI head on the same pyramid, as in Faster R-CNN.

    Args:
        rpn: config of an ``RPNHead`` with ``train_cfg`` and ``test_cfg``.
        roi: config of a ``StandardRoIHead`` or a relative that holds one sampler, with ``train_cfg`` and ``test_cfg``.
        proposal_cfg: how proposals are chosen in training: ``nms_pre``, ``max_per_img``, ``nms``, ``min_bbox_size``.
        add_gt: whether ground truths that the sampler added to the proposals (``add_gt_as_proposals``) become queries.
            The published code does so; the paper says nothing of it.
        num_classes: for a RoI head that does not say; the detector passes its own.
        embed_dims: width of the pyramid, for parts that do not say their channels; likewise.
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        rpn: Mapping[str, Any],
        roi: Mapping[str, Any],
        proposal_cfg: Mapping[str, Any],
        add_gt: bool = True,
        num_classes: int | None = None,
        embed_dims: int | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        extractor = _with(roi["bbox_roi_extractor"], out_channels=embed_dims)
        bbox_head = _with(roi["bbox_head"], num_classes=num_classes, in_channels=embed_dims)
        self.rpn = MMDET_MODELS.build(_with(rpn, in_channels=embed_dims))
        self.roi = MMDET_MODELS.build(dict(roi, bbox_roi_extractor=extractor, bbox_head=bbox_head))
        self.proposal_cfg = proposal_cfg
        self.add_gt = add_gt
        if not hasattr(getattr(self.roi, "bbox_sampler", None), "sample"):
            raise TypeError(
                f"AuxRoIBranch: {type(self.roi).__name__} holds no single sampler as bbox_sampler; use StandardRoIHead"
                " or a relative with one stage, and give it a train_cfg"
            )

    def loss(self, maps: Sequence[Tensor], samples: Sequence[Any]) -> tuple[Losses, list[Positives]]:
        """Compute the losses of both stages; arguments and results as in ``AuxDenseBranch.loss``.

        The region proposal network sees one class, so its losses are those of mmdet's two-stage detectors, under the
        names that they have there.  Proposals carry no gradient.  Under bfloat16 autocast the branch computes in
        float32: mmcv's NMS and RoIAlign know no bfloat16.
        """
        with _without_bfloat16(maps) as maps:
            return self._loss(maps, samples)

    @property
    def decides_by_place(self) -> Any:
        """The head that decides for each place of the pyramid; the RoI head decides for proposals."""
        return self.rpn

    def loss_by_place(self, maps: Sequence[Tensor], samples: Sequence[Any]) -> None:
        """Compute that head's loss; arguments as in ``loss``."""
        with _without_bfloat16(maps) as maps:
            self.rpn.loss(tuple(maps), [_one_class(sample) for sample in samples])

    def _loss(self, maps: Sequence[Tensor], samples: Sequence[Any]) -> tuple[Losses, list[Positives]]:
        losses, proposals = self.rpn.loss_and_predict(
            tuple(maps), [_one_class(sample) for sample in samples], proposal_cfg=self.proposal_cfg
        )
        losses = {name if "rpn" in name else f"rpn_{name}": value for name, value in losses.items()}
        with record_samples(self.roi.bbox_sampler, self.roi, samples, self.add_gt) as recording:
            losses.update(self.roi.loss(tuple(maps), proposals, samples))
        return losses, recording.positives()


@contextmanager
def _without_bfloat16(maps: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """The pyramid in float32 where it is in bfloat16, and autocast off then, inside the block."""
    if all(level.dtype != torch.bfloat16 for level in maps):
        yield maps
        return
    with torch.autocast(maps[0].device.type, enabled=False):
        yield [level.float() for level in maps]


def _with(config: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """Add what a config does not say."""
    return {name: value for name, value in defaults.items() if value is not None} | dict(config)


def _one_class(sample: Any) -> DetDataSample:
    """Return a sample with the same boxes, all of class 0."""
    twin = DetDataSample(metainfo=sample.metainfo)
    truths = sample.gt_instances
    labels = torch.zeros_like(truths.labels)
    twin.gt_instances = InstanceData(metainfo=truths.metainfo, bboxes=truths.bboxes, labels=labels)
    if "ignored_instances" in sample:
        twin.ignored_instances = sample.ignored_instances
    return twin
