_base_ = "mmdet::ddod/ddod_r50_fpn_1x_coco.py"

model = dict(
    train_cfg=dict(
        assigner=dict(type="visdet_assigners.ATSSAssigner"), reg_assigner=dict(type="visdet_assigners.ATSSAssigner")
    )
)
