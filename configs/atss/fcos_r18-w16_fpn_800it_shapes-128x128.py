# FCOS as published: a point learns from what it lies in, on the level of its size.
_base_ = [
    "../_base_/models/fcos_r18_fpn.py",
    "../_base_/datasets/shapes-128x128.py",
    "../_base_/schedules/schedule_800it.py",
]

model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[32, 64, 128], num_outs=4),
    bbox_head=dict(num_classes=4, strides=[8, 16, 32, 64], square_scale=4),
    train_cfg=dict(
        assigner=dict(regress_ranges=[(-1, 64), (64, 128), (128, 256), (256, 1e8)], strides=[8, 16, 32, 64])
    ),
)
