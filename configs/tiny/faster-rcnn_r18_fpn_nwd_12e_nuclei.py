# mmdet's anchors, 32 pixels on the first level, and NWD beside the IoU in the first stage.
_base_ = "./faster-rcnn_r18_fpn_ours_12e_nuclei.py"

model = dict(rpn_head=dict(anchor_generator=dict(scales=[8])))
