# Nine anchors at each point, of which the nearest nine of a level are candidates, as topk counts in mmdet.
_base_ = "./atss_r18-w16_fpn_800it_shapes-128x128.py"

model = dict(bbox_head=dict(anchor_generator=dict(scales_per_octave=3, ratios=[0.5, 1.0, 2.0])))
