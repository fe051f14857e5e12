_base_ = "mmdet::rpn/rpn_r50_fpn_1x_coco.py"

model = dict(train_cfg=dict(rpn=dict(assigner=dict(type="visdet_assigners.MaxIoUAssigner"))))
