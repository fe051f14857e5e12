_base_ = "mmdet::sabl/sabl-retinanet_r50-gn_fpn_1x_coco.py"

model = dict(train_cfg=dict(assigner=dict(type="visdet_assigners.ApproxMaxIoUAssigner")))
