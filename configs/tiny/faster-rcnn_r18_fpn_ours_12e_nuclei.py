# Anchors of the right size; NWD beside the IoU in the first stage, its constant by `visdet-assigners measure-constants`.
_base_ = "../faster_rcnn/faster-rcnn_r18_fpn_12e_nuclei.py"

measure = dict(type="visdet_assigners.NWDOverlaps", constant=14.29, union=True)
model = dict(train_cfg=dict(rpn=dict(assigner=dict(iou_calculator=measure, min_positives=1))))
