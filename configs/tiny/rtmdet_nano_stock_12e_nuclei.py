# mmdet's levels: strides 8, 16 and 32.
_base_ = "../rtmdet/rtmdet_nano_12e_nuclei.py"

model = dict(
    backbone=dict(out_indices=(2, 3, 4)),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(anchor_generator=dict(strides=[8, 16, 32])),
)
