# mmdet's anchors: 8 strides, 32 pixels on the first level.
_base_ = "../atss/atss_r18_fpn_12e_nuclei.py"

model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=8)))
