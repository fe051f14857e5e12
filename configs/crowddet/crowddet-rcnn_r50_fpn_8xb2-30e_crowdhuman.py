_base_ = "mmdet::crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py"

model = dict(
    train_cfg=dict(
        rpn=dict(assigner=dict(type="visdet_assigners.MaxIoUAssigner")),
        rcnn=dict(assigner=dict(type="visdet_assigners.MultiInstanceAssigner")),
    )
)
