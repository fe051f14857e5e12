# mmdet's anchors: 8 strides, 32 pixels on the first level.
_base_ = "../faster_rcnn/faster-rcnn_r18_fpn_12e_nuclei.py"

model = dict(rpn_head=dict(anchor_generator=dict(scales=[8])))
