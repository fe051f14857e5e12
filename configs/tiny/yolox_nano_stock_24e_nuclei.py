# mmdet's levels: strides 8, 16 and 32.
_base_ = "../yolox/yolox_nano_24e_nuclei.py"

model = dict(
    backbone=dict(out_indices=(2, 3, 4)),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(strides=(8, 16, 32)),
)
