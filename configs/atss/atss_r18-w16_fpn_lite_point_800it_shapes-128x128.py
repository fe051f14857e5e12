# Boxes are regressed from the point: the logarithms of its distances to the four borders.
_base_ = "./atss_r18-w16_fpn_lite_800it_shapes-128x128.py"

custom_imports = dict(imports=["visdet_assigners.heads"], allow_failed_imports=False)  # has the coder
model = dict(bbox_head=dict(bbox_coder=dict(_delete_=True, type="visdet_assigners.PointBBoxCoder")))
