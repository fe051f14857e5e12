#!/usr/bin/env python
"""Take a training step of visdet's detectors, with its own assigners and with ours, and compare the losses.

    PYTHONPATH=VISDET_REPOSITORY python tools/step_visdet.py

writes a table, in Markdown.  Each detector is built of a config as small as it goes, with random weights, and sees two
drawn images, one of which has an ignore region.  "own" are visdet's classes, "drop-in" are ours in their place, by
``visdet_assigners.dropin``, and "prefix" ours as ``type='visdet_assigners.NAME'``.  Losses are compared to the last
bit.  Exit status 1 where one differs or is not finite.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import visdet  # first, as in its own tools
from visdet.engine.structures import InstanceData
from visdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from visdet.registry import MODELS
from visdet.structures import DetDataSample

import visdet_assigners.dropin as dropin
from visdet_assigners.observe.tap import find_assigners
from visdet_assigners.registry import SCOPE, is_ours, typed_nodes

CLASSES, SIDE, WIDTH = 3, 192, 32
STRIDES = [8, 16, 32, 64, 128]
MAX_IOU = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
SIGMOID_FOCAL = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
DELTAS = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])


def trained(assigner: dict[str, Any], **others: Any) -> dict[str, Any]:
    """What a head is told for training."""
    return dict(assigner=dict(assigner), allowed_border=-1, pos_weight=-1, debug=False, **others)


def backbone(first: int = 1, count: int = 5) -> dict[str, Any]:
    """ResNet-18 and a narrow pyramid that begins at one of its levels."""
    channels = [64, 128, 256, 512]
    return dict(
        backbone=dict(type="ResNet", depth=18, num_stages=4, out_indices=(0, 1, 2, 3), style="pytorch"),
        neck=dict(
            type="FPN", in_channels=channels, out_channels=WIDTH, start_level=first, num_outs=count,
            add_extra_convs="on_output" if first else False,
        ),
    )  # fmt: skip


def one_stage(kind: str, head: dict[str, Any], train_cfg: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A detector of one stage."""
    head = dict(num_classes=CLASSES, in_channels=WIDTH, feat_channels=WIDTH, **head)
    return {**backbone(), **parts, "type": kind, "bbox_head": head, "train_cfg": train_cfg, "test_cfg": {}}


def octaves(**of_head: Any) -> dict[str, Any]:
    """What the heads of ATSS and GFL have in common."""
    generator = dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES)
    norm = dict(type="GN", num_groups=8)
    return dict(anchor_generator=generator, stacked_convs=1, norm_cfg=norm, loss_cls=SIGMOID_FOCAL, **of_head)


def retina(assigner: dict[str, Any]) -> dict[str, Any]:
    """RetinaNet."""
    generator = dict(
        type="AnchorGenerator", octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=STRIDES
    )
    head = dict(type="RetinaHead", stacked_convs=1, anchor_generator=generator, loss_cls=SIGMOID_FOCAL)
    return one_stage("RetinaNet", head, trained(assigner))


def atss(assigner: dict[str, Any]) -> dict[str, Any]:
    """ATSS, whose head calls as in mmdet 2."""
    head = octaves(type="ATSSHead", loss_bbox=dict(type="GIoULoss", loss_weight=2.0), bbox_coder=DELTAS)
    return one_stage("ATSS", head, trained(assigner))


def gfl(assigner: dict[str, Any]) -> dict[str, Any]:
    """GFL, likewise."""
    head = octaves(type="GFLHead", loss_bbox=dict(type="GIoULoss", loss_weight=2.0))
    head["loss_cls"] = dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0)
    return one_stage("GFL", head, trained(assigner))


def ssd(assigner: dict[str, Any]) -> dict[str, Any]:
    """SSD on a pyramid."""
    generator = dict(
        type="SSDAnchorGenerator", scale_major=False, input_size=SIDE, min_sizes=[19, 40, 70, 110, 150],
        max_sizes=[40, 70, 110, 150, 190], basesize_ratio_range=(0.1, 0.9), strides=STRIDES,
        ratios=[[2], [2, 3], [2, 3], [2], [2]],
    )  # fmt: skip
    head = dict(
        type="SSDHead", anchor_generator=generator, loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False)
    )  # fmt: skip
    made = one_stage("SSD", head, trained(assigner, smoothl1_beta=1.0, neg_pos_ratio=3))
    made["bbox_head"]["in_channels"] = [WIDTH] * 5
    return made


def rtmdet(assigner: dict[str, Any]) -> dict[str, Any]:
    """RTMDet, the smallest."""
    norm = dict(type="BN")
    act = dict(type="SiLU")
    head = dict(
        type="RTMDetSepBNHead", stacked_convs=1, norm_cfg=norm, act_cfg=act, exp_on_reg=True, with_objectness=False,
        anchor_generator=dict(type="MlvlPointGenerator", offset=0, strides=STRIDES[:3]),
        bbox_coder=dict(type="DistancePointBBoxCoder"), loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
    )  # fmt: skip
    sizes = dict(deepen_factor=0.167, widen_factor=0.25)
    csp = dict(type="CSPNeXt", arch="P5", expand_ratio=0.5, channel_attention=True, norm_cfg=norm, act_cfg=act, **sizes)
    neck = dict(
        type="CSPNeXtPAFPN", in_channels=[64, 128, 256], out_channels=WIDTH, num_csp_blocks=1, expand_ratio=0.5,
        norm_cfg=norm, act_cfg=act,
    )  # fmt: skip
    return one_stage("RTMDet", head, trained(assigner), backbone=csp, neck=neck)


def rpn(assigner: dict[str, Any]) -> dict[str, Any]:
    """A region proposal network alone."""
    generator = dict(type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])
    sampler = dict(type="RandomSampler", num=64, pos_fraction=0.5, add_gt_as_proposals=False)
    head = dict(
        type="RPNHead", anchor_generator=generator, bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    )  # fmt: skip
    made = one_stage("SingleStageDetector", head, trained(assigner, sampler=sampler), **backbone(0))
    made["bbox_head"]["num_classes"] = 1
    return made


@MODELS.register_module()
class RefiningBoxHead(Shared2FCBBoxHead):
    """visdet's box head, called as its CascadeRoIHead calls it: with mmdet 3's arguments, which its own don't take."""

    def refine_bboxes(self, sampling_results: Any, bbox_results: dict[str, Any], batch_img_metas: Any) -> Any:
        """Boxes of the next stage."""
        labels = bbox_results["rois"].new_zeros(len(bbox_results["rois"])).long()  # boxes are the same for all classes
        are_gts = [result.pos_is_gt for result in sampling_results]
        boxes = super().refine_bboxes(bbox_results["rois"], labels, bbox_results["bbox_pred"], are_gts, batch_img_metas)
        return [InstanceData(bboxes=own) for own in boxes]


def box_head(stds: float) -> dict[str, Any]:
    """The head of one stage."""
    return dict(
        type="RefiningBoxHead", in_channels=WIDTH, fc_out_channels=64, roi_feat_size=7, num_classes=CLASSES,
        bbox_coder=dict(DELTAS, target_stds=[stds, stds, stds * 2, stds * 2]),
        reg_class_agnostic=True, loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    )  # fmt: skip


def two_stages(assigner: dict[str, Any], stages: int = 1) -> dict[str, Any]:
    """Faster R-CNN, or Cascade R-CNN with several stages."""
    first = rpn(dict(type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3))
    sampler = dict(type="RandomSampler", num=64, pos_fraction=0.25, add_gt_as_proposals=True)
    heads, stages_cfg = [], []
    for stage in range(stages):
        threshold = 0.5 + 0.1 * stage
        own = dict(assigner, pos_iou_thr=threshold, neg_iou_thr=threshold, min_pos_iou=threshold)
        stages_cfg.append(trained(own, sampler=dict(sampler)))
        heads.append(box_head(0.1 / (stage + 1)))
    roi = dict(
        type="StandardRoIHead" if stages == 1 else "CascadeRoIHead", bbox_head=heads[0] if stages == 1 else heads,
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor", out_channels=WIDTH, featmap_strides=[4, 8, 16, 32],
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
        ),
    )  # fmt: skip
    if stages > 1:
        roi.update(num_stages=stages, stage_loss_weights=[1.0 / 2**stage for stage in range(stages)])
    proposals = dict(nms_pre=200, max_per_img=100, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)
    train_cfg = dict(rpn=first["train_cfg"], rpn_proposal=proposals, rcnn=stages_cfg[0] if stages == 1 else stages_cfg)
    return dict(
        type="FasterRCNN" if stages == 1 else "CascadeRCNN", **backbone(0), rpn_head=first["bbox_head"], roi_head=roi,
        train_cfg=train_cfg, test_cfg=dict(rpn=proposals, rcnn={}),
    )  # fmt: skip


STEPS: list[tuple[str, dict[str, Any], Callable[..., dict[str, Any]], bool]] = [
    ("RetinaNet", MAX_IOU, retina, True),
    ("RPN", dict(type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3), rpn, True),
    ("ATSS", dict(type="ATSSAssigner", topk=9), atss, True),
    ("GFL", dict(type="ATSSAssigner", topk=9), gfl, True),
    ("SSD", {**MAX_IOU, "neg_iou_thr": 0.5, "gt_max_assign_all": False}, ssd, True),
    ("RTMDet", dict(type="DynamicSoftLabelAssigner", topk=13), rtmdet, True),
    ("Faster R-CNN", dict(type="MaxIoUAssigner"), two_stages, True),
    ("Cascade R-CNN", dict(type="MaxIoUAssigner"), lambda own: two_stages(own, 3), True),
    ("RetinaNet", dict(type="CenterRegionAssigner", pos_scale=0.5, neg_scale=0.5), retina, False),
    ("ATSS", dict(type="ScaleRangeAssigner", center_sampling=True), atss, False),
    ("GFL", dict(type="ScaleRangeAssigner", center_sampling=True), gfl, False),
    ("GFL", MAX_IOU, gfl, False),
]
"""Detector, assigner, config, and whether visdet has that assigner for that head."""


def batch(one_class: bool) -> tuple[torch.Tensor, list[Any]]:
    """Two drawn images with four and two objects, the first with an ignore region."""
    generator = torch.Generator().manual_seed(1)
    images, samples = torch.rand(2, 3, SIDE, SIDE, generator=generator), []
    for number, count in enumerate((4, 2)):
        corner = torch.rand(count, 2, generator=generator) * SIDE / 2
        boxes = torch.cat([corner, corner + 20 + torch.rand(count, 2, generator=generator) * (SIDE / 2 - 20)], dim=1)
        labels = torch.zeros(count).long() if one_class else torch.randint(CLASSES, (count,), generator=generator)
        sample = DetDataSample()
        size = dict(
            img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE), batch_input_shape=(SIDE, SIDE)
        )
        sample.set_metainfo(dict(**size, scale_factor=(1.0, 1.0), img_id=number, img_path=f"{number}.png"))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        regions = torch.tensor([[SIDE / 2, SIDE / 2, SIDE - 1.0, SIDE - 1.0]])[: 1 - number]
        sample.ignored_instances = InstanceData(bboxes=regions, labels=torch.zeros(len(regions)).long())
        samples.append(sample)
    return images, samples


def flat(losses: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and value of every loss."""
    if isinstance(losses, torch.Tensor):
        yield name, losses.detach()
    for key, value in losses.items() if isinstance(losses, dict) else ():
        yield from flat(value, f"{name}.{key}".strip("."))
    for key, value in enumerate(losses) if isinstance(losses, (list, tuple)) else ():
        yield from flat(value, f"{name}[{key}]")


def step(config: dict[str, Any], ours: bool) -> dict[str, torch.Tensor]:
    """The losses of one training step, each assigner being ours or visdet's as is said."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(config))
    model.init_weights()
    model.train()
    found = [assigner for _, _, assigner in find_assigners(model)]
    if not found or any(is_ours(type(assigner)) != ours for assigner in found):
        raise RuntimeError(f"the assigners are {[type(assigner) for assigner in found]}")
    torch.manual_seed(0)
    return dict(flat(model.loss(*batch(one_class=config.get("bbox_head", {}).get("type") == "RPNHead"))))


def main() -> int:
    """Take all steps and print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    worst = 0
    print(f"visdet {visdet.__version__}, torch {torch.__version__}\n")
    print(
        "| detector | assigner | sum of losses, ours | visdet's own | drop-in | prefix |\n|---|---|---:|---:|---|---|"
    )
    for name, assigner, make, has_own in STEPS:
        config = make(assigner)
        dropin.restore()
        own = step(config, ours=False) if has_own else None
        prefixed = copy.deepcopy(config)
        for _, node in typed_nodes(prefixed, "model"):
            if str(node["type"]).endswith("Assigner"):
                node["type"] = f"{SCOPE}.{node['type']}"
        losses = {"prefix": step(prefixed, ours=True)}
        dropin.enable()
        losses["drop-in"] = step(config, ours=True)
        cells = [f"{float(sum(value.sum() for key, value in found.items() if 'loss' in key)):.6f}" if found else "none"
                 for found in (losses["drop-in"], own)]  # fmt: skip
        for way in ("drop-in", "prefix"):
            found, expected = losses[way], own or losses["prefix"]
            unlike = [key for key in expected if not torch.equal(found.get(key, expected[key] + 1), expected[key])]
            broken = [key for key, value in found.items() if not value.isfinite().all()]
            worst |= bool(unlike or broken or found.keys() != expected.keys())
            told = "equal" if own else "finite"
            cells.append(f"differ: {', '.join(unlike)}" if unlike else f"not finite: {broken}" if broken else told)
        print("|", " | ".join([name, f"`{assigner['type']}`", *cells]), "|", flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main())
