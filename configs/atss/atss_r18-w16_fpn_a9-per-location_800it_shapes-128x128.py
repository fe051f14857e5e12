# Nine anchors at each point, and all those of the nearest nine points of a level are candidates, as in the paper.
_base_ = "./atss_r18-w16_fpn_a9_800it_shapes-128x128.py"

model = dict(train_cfg=dict(assigner=dict(topk_per_location=True, num_anchors_per_location=9)))
