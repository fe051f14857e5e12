"""RetinaNet's head with one assignment for the whole batch, in tensors whose shapes don't depend on the data.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002; the static shapes follow mmdet 2's heads
for Ascend chips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.structures.bbox import cat_boxes, get_box_tensor
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from visdet_assigners.assigners.ascend_max_iou import AscendMaxIoUAssigner
from visdet_assigners.registry import MODELS


def pad_images(per_image: Sequence[Tensor], multiple: int) -> Tensor:
    """Put tensors of several images into one, with zeros behind each, up to a multiple of ``multiple`` rows.

    Args:
        per_image: B tensors (M_i, ...); M_i may be 0.
        multiple: at least 1.

    Returns:
        (B, M, ...), M at least ``multiple``.

    Example:
        >>> pad_images([torch.ones(1, 4), torch.ones(3, 4)], 2).shape
        torch.Size([2, 4, 4])
    """
    padded = pad_sequence(list(per_image), batch_first=True)
    rows = padded.shape[1]
    missing = max(multiple, -(-rows // multiple) * multiple) - rows
    return pad(padded, (0, 0) * (padded.ndim - 2) + (0, missing))


@MODELS.register_module()
class StaticRetinaHead(RetinaHead):
    """``RetinaHead`` whose targets are computed for all images at once by ``AscendMaxIoUAssigner``.

    No loop over images or objects, no selection by a mask, no synchronisation with the device: every tensor keeps all
    anchors, and masks say which count.  Weights, losses and predictions are those of ``RetinaHead`` with
    ``MaxIoUAssigner``, so a checkpoint of one loads into the other.

    Args:
        *args: as in ``RetinaHead``.
        gt_multiple: ground truths are padded to a multiple of this, the only shape that is left to the data; a larger
            one makes fewer different shapes, for compilers that keep a program for each.
        **kwargs: as in ``RetinaHead``; ``train_cfg.assigner`` must be an ``AscendMaxIoUAssigner``, and
            ``train_cfg.sampler`` a ``PseudoSampler``, which keeps everything, or absent.

    Raises:
        ValueError: another assigner or sampler, or ``gt_multiple`` below 1.
    """

    def __init__(self, *args: Any, gt_multiple: int = 32, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if gt_multiple < 1:
            raise ValueError(f"StaticRetinaHead: gt_multiple is {gt_multiple}; it must be at least 1")
        self.gt_multiple = gt_multiple
        if not self.train_cfg:
            return
        if not isinstance(self.assigner, AscendMaxIoUAssigner):
            raise ValueError(
                f"StaticRetinaHead: the assigner is {type(self.assigner).__name__}; batches need "
                "train_cfg.assigner.type='visdet_assigners.AscendMaxIoUAssigner'"
            )
        if not isinstance(self.sampler, PseudoSampler):
            raise ValueError(
                f"StaticRetinaHead: the sampler is {type(self.sampler).__name__}, whose selection has no fixed shape; "
                "set train_cfg.sampler.type='PseudoSampler'"
            )

    @torch.no_grad()
    def get_targets(
        self,
        anchor_list: Sequence[Sequence[Any]],
        valid_flag_list: Sequence[Sequence[Tensor]],
        batch_gt_instances: Sequence[Any],
        batch_img_metas: Sequence[Mapping[str, Any]],
        batch_gt_instances_ignore: Sequence[Any] | None = None,
        unmap_outputs: bool = True,
        return_sampling_results: bool = False,
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], Tensor]:
        """Targets of B images with the same N anchors each.

        Args:
            anchor_list: for each image, L levels of anchors (N_l, 4); all images share the first one's.
            valid_flag_list: for each image, L levels of flags (N_l,), False in the padding of the image.
            batch_gt_instances: for each image ``bboxes`` (M_i, 4) xyxy and ``labels`` (M_i,); M_i may be 0.
            batch_img_metas: for each image ``img_shape``, read where ``train_cfg.allowed_border`` is not negative.
            batch_gt_instances_ignore: for each image ``bboxes`` of its ignore regions, or None.
            unmap_outputs: must be True: the targets are always those of all anchors.
            return_sampling_results: must be False: nothing is sampled.

        Returns:
            L labels (B, N_l), L label weights (B, N_l), L box targets (B, N_l, 4), L box weights (B, N_l, 4), and the
            number of positives that the losses are divided by, counting at least 1 in each image, as a tensor.

        Raises:
            NotImplementedError: one of the two flags differs from its default.
        """
        if not unmap_outputs or return_sampling_results:
            raise NotImplementedError("StaticRetinaHead gives targets of all anchors and no sampling results")
        level_sizes = [len(anchors) for anchors in anchor_list[0]]
        anchors = get_box_tensor(cat_boxes(anchor_list[0])).expand(len(anchor_list), -1, -1)  # (B, N, 4)
        valid = torch.stack([torch.cat(list(flags)) for flags in valid_flag_list]).bool()  # (B, N)
        border = self.train_cfg["allowed_border"]
        if border >= 0:
            valid = valid & inside(anchors, [meta["img_shape"][:2] for meta in batch_img_metas], border)

        gts = pad_images([get_box_tensor(gt.bboxes) for gt in batch_gt_instances], self.gt_multiple)  # (B, M, 4)
        gt_labels = pad_images([gt.labels for gt in batch_gt_instances], self.gt_multiple)  # (B, M)
        regions = None
        if batch_gt_instances_ignore is not None:
            regions = pad_images([get_box_tensor(region.bboxes) for region in batch_gt_instances_ignore], 1)
        result = self.assigner.assign(anchors, gts, regions, gt_labels, valid)
        positive = result.batch_pos_mask.bool()  # (B, N)
        has_objects = torch.tensor([[len(gt) > 0] for gt in batch_gt_instances], device=anchors.device)  # (B, 1)
        # Without objects all is background, also below a negative band that doesn't start at 0.
        negative = torch.where(has_objects, result.batch_neg_mask.bool(), result.batch_max_overlaps >= 0)

        # Anchors that match nothing regress to themselves: an encoding without NaN, to be blanked.
        matched = gts.gather(1, result.batch_anchor_gt_indes[..., None].expand(-1, -1, 4))  # (B, N, 4)
        matched = torch.where(positive[..., None], matched, anchors)
        if not self.reg_decoded_bbox:
            matched = self.bbox_coder.encode(anchors.reshape(-1, 4), matched.reshape(-1, 4)).reshape_as(anchors)
        box_targets = torch.where(positive[..., None], matched, 0.0)
        box_weights = positive[..., None].expand_as(box_targets).float()
        labels = torch.where(positive, result.batch_anchor_gt_labels, self.num_classes)
        pos_weight = self.train_cfg["pos_weight"]
        label_weights = positive * (pos_weight if pos_weight > 0 else 1.0) + negative.float()
        per_level = [
            list(values.split(level_sizes, dim=1)) for values in (labels, label_weights, box_targets, box_weights)
        ]
        return (*per_level, positive.sum(dim=1).clamp(min=1).sum())  # type: ignore[return-value]


def inside(anchors: Tensor, image_sizes: Sequence[Sequence[int]], border: float) -> Tensor:
    """Which anchors lie in their images, up to ``border`` pixels outside.

    Args:
        anchors: (B, N, 4) xyxy, pixels.
        image_sizes: B times (height, width).
        border: pixels.

    Returns:
        (B, N) bool.
    """
    sizes = torch.tensor([list(size) for size in image_sizes], device=anchors.device)  # (B, 2)
    limit = sizes.flip(1)[:, None] + border  # (B, 1, 2): x, y
    return ((anchors[..., :2] >= -border) & (anchors[..., 2:] < limit)).all(dim=-1)
