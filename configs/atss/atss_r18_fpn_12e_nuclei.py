_base_ = [
    "../_base_/models/atss_r18_fpn.py",
    "../_base_/models/stride4_r18.py",
    "../_base_/datasets/nuclei.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

# Anchors of 12 pixels on the first level; up to 101 nuclei are in a picture.
model = dict(
    backbone=_base_.fine_backbone,
    neck=_base_.fine_neck,
    bbox_head=dict(num_classes=1, anchor_generator=dict(octave_base_scale=3, strides=_base_.fine_strides)),
    test_cfg=dict(nms_pre=1000, max_per_img=200),
)
