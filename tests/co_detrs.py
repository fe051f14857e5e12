"""Small collaborative DETRs from mmdet's own configs, for the tests of Co-DETR."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import ConfigDict

import visdet_assigners
from detectors import batch, build, stock_config

assert visdet_assigners.__version__  # the import registers what the configs below name

STRIDES = [8, 16, 32, 64, 128]
# The detectors of the package, and the configs of mmdet that they extend.
KINDS = {
    "deformable": ("CoDeformableDETR", "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py"),
    "refined": ("CoDeformableDETR", "deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py"),
    "two_stage": ("CoDeformableDETR", "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py"),
    "dino": ("CoDINO", "dino/dino-4scale_r50_8xb2-12e_coco.py"),
    "dab": ("CoDABDETR", "dab_detr/dab-detr_r50_8xb2-50e_coco.py"),
    "conditional": ("CoConditionalDETR", "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py"),
}
SINGLE_SCALE = ("dab", "conditional")
SIZES = [(96, 128), (64, 100)]
BOXES = [[[10.0, 10.0, 60.0, 60.0], [50.0, 20.0, 90.0, 70.0], [5.0, 5.0, 20.0, 22.0]], [[30.0, 5.0, 80.0, 50.0]]]

_CODER = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])
_ANCHORS = dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES)
_FOCAL = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
_GIOU = dict(type="GIoULoss", loss_weight=2.0)
_CENTERNESS = dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0)
_ATSS = dict(type="visdet_assigners.ATSSAssigner", topk=9)
_MAX_IOU = dict(type="visdet_assigners.MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
_NMS = dict(nms_pre=100, max_per_img=50, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)


def _train_cfg(assigner: dict[str, Any], **more: Any) -> dict[str, Any]:
    return dict(assigner=assigner, allowed_border=-1, pos_weight=-1, debug=False, **more)


HEADS: dict[str, dict[str, Any]] = {
    "atss": dict(
        type="ATSSHead", stacked_convs=1, feat_channels=64, anchor_generator=_ANCHORS, bbox_coder=_CODER,
        loss_cls=_FOCAL, loss_bbox=_GIOU, loss_centerness=_CENTERNESS, train_cfg=_train_cfg(_ATSS),
    ),
    "retina": dict(
        type="RetinaHead", stacked_convs=1, feat_channels=64,
        anchor_generator={**_ANCHORS, "octave_base_scale": 4, "scales_per_octave": 3}, bbox_coder=_CODER,
        loss_cls=_FOCAL, loss_bbox=dict(type="L1Loss"), train_cfg=_train_cfg(_MAX_IOU),
    ),
    "gfl": dict(
        type="GFLHead", stacked_convs=1, feat_channels=64, anchor_generator=_ANCHORS, reg_max=8,
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0), loss_dfl=dict(type="DistributionFocalLoss"),
        loss_bbox=_GIOU, train_cfg=_train_cfg(_ATSS),
    ),
    "paa": dict(
        type="PAAHead", stacked_convs=1, feat_channels=64, reg_decoded_bbox=True, score_voting=False, topk=9,
        anchor_generator=_ANCHORS, bbox_coder=_CODER, loss_cls=_FOCAL, loss_bbox=_GIOU, loss_centerness=_CENTERNESS,
        train_cfg=_train_cfg({**_MAX_IOU, "pos_iou_thr": 0.1, "neg_iou_thr": 0.1}),
    ),
    "fcos": dict(
        type="FCOSHead", stacked_convs=1, feat_channels=64, strides=STRIDES, loss_cls=_FOCAL, loss_bbox=_GIOU,
        loss_centerness=_CENTERNESS, norm_cfg=None,
    ),
}  # fmt: skip
FASTER_RCNN: dict[str, Any] = dict(
    type="AuxRoIBranch",
    proposal_cfg=_NMS,
    rpn=dict(
        type="RPNHead",
        feat_channels=64,
        anchor_generator=dict(type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0, 2.0], strides=STRIDES),
        bbox_coder=_CODER,
        loss_cls=_CENTERNESS,
        loss_bbox=dict(type="L1Loss"),
        train_cfg=_train_cfg(
            {**_MAX_IOU, "pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3},
            sampler=dict(type="RandomSampler", num=64, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
        ),
        test_cfg=_NMS,
    ),
    roi=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
            featmap_strides=STRIDES,
            finest_scale=28,
        ),
        bbox_head=dict(
            type="Shared2FCBBoxHead",
            fc_out_channels=64,
            roi_feat_size=7,
            reg_class_agnostic=False,
            bbox_coder=_CODER,
            reg_decoded_bbox=True,
            loss_cls=dict(type="CrossEntropyLoss"),
            loss_bbox=_GIOU,
        ),
        train_cfg=_train_cfg(
            {**_MAX_IOU, "neg_iou_thr": 0.5, "min_pos_iou": 0.5, "match_low_quality": False},
            sampler=dict(type="RandomSampler", num=64, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
        ),
        test_cfg=dict(),
    ),
)


def dense(name: str, **changes: Any) -> dict[str, Any]:
    """Return the branch of a dense head."""
    return dict(type="AuxDenseBranch", head={**HEADS[name], **changes})


BRANCHES = [dense("atss"), FASTER_RCNN, dense("retina")]


def co_config(kind: str, branches: list[dict[str, Any]], **collab: Any) -> ConfigDict:
    """Return the config of a collaborative detector with one encoder layer and two decoder layers."""
    cfg = plain_config(kind)
    cfg.type = f"visdet_assigners.{KINDS[kind][0]}"
    cfg.update(aux_branches=branches, collab=collab)
    if kind in SINGLE_SCALE:
        cfg.aux_adapter = dict(finer=2, coarser=2)
    return cfg


def plain_config(kind: str) -> ConfigDict:
    """Return the config of mmdet's own detector, of the same size."""
    cfg = stock_config(KINDS[kind][1], queries=20)
    cfg.encoder.num_layers, cfg.decoder.num_layers = 1, 2
    return cfg


def build_co(kind: str, branches: list[dict[str, Any]], **collab: Any) -> Any:
    """Build ``co_config``."""
    return build(co_config(kind, branches, **collab))


def images(boxes: list[list[list[float]]] | None = None, sizes: list[tuple[int, int]] | None = None) -> Any:
    """A batch of two images of different sizes, padded to the first one's; the objects' boxes may be given."""
    sizes = sizes or SIZES
    inputs, samples = batch(boxes or BOXES, shape=sizes[0])
    for index, (sample, (height, width)) in enumerate(zip(samples, sizes)):
        sample.set_metainfo(dict(img_shape=(height, width)))
        inputs[index, :, height:] = 0
        inputs[index, :, :, width:] = 0
    return inputs, samples


def losses_of(model: Any, data: Any) -> dict[str, torch.Tensor]:
    """Compute losses from a fixed random state; lists are summed."""
    torch.manual_seed(1)
    return {name: sum(value) if isinstance(value, list) else value for name, value in model.loss(*data).items()}
