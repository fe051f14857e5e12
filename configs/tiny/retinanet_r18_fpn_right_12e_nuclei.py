# Anchors of 8 and 11 pixels on the first level.
_base_ = "../static_retinanet/static-retinanet_r18_fpn_12e_nuclei.py"

model = dict(bbox_head=dict(type="RetinaHead"), train_cfg=dict(assigner=dict(type="visdet_assigners.MaxIoUAssigner")))
