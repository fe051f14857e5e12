_base_ = "mmdet::yolo/yolov3_d53_8xb8-ms-608-273e_coco.py"

model = dict(train_cfg=dict(assigner=dict(type="visdet_assigners.GridAssigner")))
