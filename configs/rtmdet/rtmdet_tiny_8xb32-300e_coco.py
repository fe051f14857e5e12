_base_ = "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"

model = dict(train_cfg=dict(assigner=dict(type="visdet_assigners.DynamicSoftLabelAssigner")))
