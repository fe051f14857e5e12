_base_ = "mmdet::fsaf/fsaf_r50_fpn_1x_coco.py"

model = dict(train_cfg=dict(assigner=dict(type="visdet_assigners.CenterRegionAssigner")))
