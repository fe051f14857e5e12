# ATSS with one anchor at each point, its side 4 strides: the objects have 14 to 56 pixels.  The grid's other cells
# change the assigner, the coder, the anchors or the head of this one.
_base_ = [
    "../_base_/models/atss_r18_fpn.py",
    "../_base_/datasets/shapes-128x128.py",
    "../_base_/schedules/schedule_800it.py",
]

model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[32, 64, 128], num_outs=4),
    bbox_head=dict(
        num_classes=4,
        # Anchors around FCOS's points.
        anchor_generator=dict(octave_base_scale=4, strides=[8, 16, 32, 64], center_offset=0.5),
    ),
)
