# mmdet's anchors: 8 strides, 32 pixels on the first level.  They serve ATSS in the first epoch alone.
_base_ = "../tood/tood_r18_fpn_24e_nuclei.py"

model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=8)))
