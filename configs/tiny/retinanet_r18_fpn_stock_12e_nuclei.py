# mmdet's anchors: 4 strides and three sizes an octave, 16 to 25 pixels on the first level.
_base_ = "./retinanet_r18_fpn_right_12e_nuclei.py"

model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=4, scales_per_octave=3)))
