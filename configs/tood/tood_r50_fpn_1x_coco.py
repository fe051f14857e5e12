_base_ = "mmdet::tood/tood_r50_fpn_1x_coco.py"

model = dict(
    train_cfg=dict(
        initial_assigner=dict(type="visdet_assigners.ATSSAssigner"),
        assigner=dict(type="visdet_assigners.TaskAlignedAssigner"),
    )
)
