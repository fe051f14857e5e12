_base_ = [
    "../_base_/models/faster-rcnn_r18_fpn.py",
    "../_base_/models/stride4_r18.py",
    "../_base_/datasets/nuclei.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

# Anchors of 8 pixels on the first level; up to 101 nuclei are in a picture, hence more proposals, and room for a
# positive of each.
rpn_proposal = dict(nms_pre=1000, max_per_img=400)
model = dict(
    backbone=_base_.fine_backbone,
    neck=_base_.fine_neck,
    rpn_head=dict(anchor_generator=dict(scales=[2], strides=_base_.fine_strides)),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=_base_.fine_strides), bbox_head=dict(num_classes=1)),
    train_cfg=dict(rpn_proposal=rpn_proposal, rcnn=dict(sampler=dict(num=512))),
    test_cfg=dict(rpn=rpn_proposal, rcnn=dict(max_per_img=200)),
)
