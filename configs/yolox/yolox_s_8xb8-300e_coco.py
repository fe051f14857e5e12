_base_ = "mmdet::yolox/yolox_s_8xb8-300e_coco.py"

model = dict(train_cfg=dict(assigner=dict(type="visdet_assigners.SimOTAAssigner")))
