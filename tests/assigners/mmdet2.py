"""mmdet 2's call of each of its assigners: the tensors that say what instances say, by its names and in its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmengine.structures import InstanceData
from torch import Tensor

from assigners.cases import CASES, level_sizes
from scenes import STRIDES, Objects, feature_sizes
from visdet_assigners.testing.feeds import meta

Made = Callable[[InstanceData, InstanceData, Tensor | None, Objects], dict[str, Any]]


def image_factor(pred: InstanceData, objects: Objects) -> Tensor:
    height, width = objects.image
    return pred.bboxes.new_tensor([width, height, width, height])


def shares(pred: InstanceData, objects: Objects) -> Tensor:
    """Predicted boxes as DETR predicts them: centre and size in shares of the image."""
    return bbox_xyxy_to_cxcywh(pred.bboxes) / image_factor(pred, objects)


def in_pixels(pred: InstanceData, objects: Objects) -> InstanceData:
    """What mmdet 3's DETRHead makes of these."""
    pred = pred.clone()
    pred.bboxes = bbox_cxcywh_to_xyxy(shares(pred, objects)) * image_factor(pred, objects)
    return pred


def rooted(pred: InstanceData, objects: Objects) -> InstanceData:
    """The root of the scores, which mmdet 2's class takes and mmdet 3's YOLOXHead."""
    pred = pred.clone()
    pred.scores = pred.scores.sqrt()
    return pred


def boxes_first(pred, gt, regions, objects):
    return dict(bboxes=pred.priors, gt_bboxes=gt.bboxes, gt_bboxes_ignore=regions, gt_labels=gt.labels)


def approxs(pred, gt, regions, objects):
    first = dict(approxs=pred.approxs.flatten(0, 1), squares=pred.priors, approxs_per_octave=pred.approxs.shape[1])
    return first | dict(gt_bboxes=gt.bboxes, gt_bboxes_ignore=regions, gt_labels=gt.labels)


def levels_second(pred, gt, regions, objects):
    first = dict(bboxes=pred.priors, num_level_bboxes=level_sizes(pred, objects))
    return first | dict(gt_bboxes=gt.bboxes, gt_bboxes_ignore=regions, gt_labels=gt.labels)


def atss(pred, gt, regions, objects):
    call = levels_second(pred, gt, regions, objects)
    return call | dict(cls_scores=pred.get("scores"), bbox_preds=pred.get("bboxes"))


def task_aligned(pred, gt, regions, objects):
    first = dict(pred_scores=pred.scores, decode_bboxes=pred.bboxes, anchors=pred.priors, gt_bboxes=gt.bboxes)
    return first | dict(gt_bboxes_ignore=regions, gt_labels=gt.labels, alpha=1, beta=6)


def sim_ota(pred, gt, regions, objects):
    first = dict(pred_scores=pred.scores, priors=pred.priors, decoded_bboxes=pred.bboxes, gt_bboxes=gt.bboxes)
    return first | dict(gt_labels=gt.labels, gt_bboxes_ignore=regions, eps=1e-7)


def hungarian(pred, gt, regions, objects):
    first = dict(bbox_pred=shares(pred, objects), cls_pred=pred.scores, gt_bboxes=gt.bboxes, gt_labels=gt.labels)
    img_meta = meta(objects)
    return first | dict(img_meta=img_meta | {"img_shape": (*img_meta["img_shape"], 3)}, gt_bboxes_ignore=None, eps=1e-7)


def mask_hungarian(pred, gt, regions, objects):
    first = dict(cls_pred=pred.scores, mask_pred=pred.masks, gt_labels=gt.labels, gt_mask=gt.masks)
    return first | dict(img_meta=meta(objects), gt_bboxes_ignore=None, eps=1e-7)


def grid(pred, gt, regions, objects):
    first = dict(bboxes=pred.priors, box_responsible_flags=pred.responsible_flags)
    return first | dict(gt_bboxes=gt.bboxes, gt_labels=gt.labels)


def uniform(pred, gt, regions, objects):
    first = dict(bbox_pred=pred.decoder_priors, anchor=pred.priors, gt_bboxes=gt.bboxes)
    return first | dict(gt_bboxes_ignore=regions, gt_labels=gt.labels)


def region(pred, gt, regions, objects):
    sizes = level_sizes(pred, objects)
    return dict(
        mlvl_anchors=list(pred.priors.split(sizes)),
        mlvl_valid_flags=list(pred.valid_flags.split(sizes)),
        gt_bboxes=gt.bboxes,
        img_meta=meta(objects),
        featmap_sizes=feature_sizes(objects.image, STRIDES),
        anchor_scale=8,
        anchor_strides=STRIDES,
        gt_bboxes_ignore=None,
        gt_labels=gt.labels,
        allowed_border=0,
    )


def point(pred, gt, regions, objects):
    return dict(points=pred.priors, gt_bboxes=gt.bboxes, gt_bboxes_ignore=regions, gt_labels=gt.labels)


MMDET2: dict[str, Made] = {
    "MaxIoUAssigner": boxes_first,
    "ApproxMaxIoUAssigner": approxs,
    "ATSSAssigner": atss,
    "TaskAlignedAssigner": task_aligned,
    "HungarianAssigner": hungarian,
    "MaskHungarianAssigner": mask_hungarian,
    "SimOTAAssigner": sim_ota,
    "GridAssigner": grid,
    "UniformAssigner": uniform,
    "RegionAssigner": region,
    "CenterRegionAssigner": boxes_first,
    "PointAssigner": point,
}
"""By the class; AscendMaxIoUAssigner's call is for a batch, see test_ascend_max_iou.py."""

IN_ITS_STYLE: dict[str, Made] = {
    "ScaleRangeAssigner": levels_second,
    "MultiInstanceAssigner": boxes_first,
    "RankingAssigner": boxes_first,
    "HierarchicalAssigner": boxes_first,
}
"""Classes that mmdet 2 did not have, called as its base class or its ATSSAssigner was."""

HEADS: dict[str, Callable[[InstanceData, Objects], InstanceData]] = {
    "HungarianAssigner": in_pixels,
    "SimOTAAssigner": rooted,
}
"""What mmdet 3's heads do with predictions that mmdet 2's class did itself."""

FORMS = {name: made for name in CASES if (made := (MMDET2 | IN_ITS_STYLE).get(name.split("-")[0])) is not None}
