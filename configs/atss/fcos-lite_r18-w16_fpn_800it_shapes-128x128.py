_base_ = "./fcos_r18-w16_fpn_800it_shapes-128x128.py"

model = dict(train_cfg=dict(assigner=dict(center_sampling=True)))
