# ATSS on squares around the points.
_base_ = "./fcos-lite_r18_fpn_12e_bccd.py"

model = dict(train_cfg=dict(assigner=dict(_delete_=True, type="visdet_assigners.ATSSAssigner", topk=9)))
