# Anchors of the right size; NWD beside the IoU, its constant by `visdet-assigners measure-constants`.
_base_ = "./retinanet_r18_fpn_right_12e_nuclei.py"

measure = dict(type="visdet_assigners.NWDOverlaps", constant=14.29, union=True)
model = dict(train_cfg=dict(assigner=dict(iou_calculator=measure, min_positives=1)))
