_base_ = [
    "../_base_/models/rtmdet_nano.py",
    "../_base_/datasets/nuclei.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

# Nuclei have few pixels, so a level of stride 4 comes first; up to 101 are in a picture.
model = dict(
    backbone=dict(out_indices=(1, 2, 3, 4)),
    neck=dict(in_channels=[32, 64, 128, 256]),
    bbox_head=dict(num_classes=1, anchor_generator=dict(strides=[4, 8, 16, 32])),
    test_cfg=dict(nms_pre=1000, max_per_img=200),
)
