_base_ = "mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py"

model = dict(train_cfg=dict(assigner=dict(type="visdet_assigners.UniformAssigner")))
