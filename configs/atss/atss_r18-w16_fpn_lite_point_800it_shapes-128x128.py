# Boxes are regressed from the point: its distances to the four borders, in strides.
_base_ = "./atss_r18-w16_fpn_lite_800it_shapes-128x128.py"

model = dict(bbox_head=dict(bbox_coder=dict(_delete_=True, type="TBLRBBoxCoder", normalizer=0.25)))
