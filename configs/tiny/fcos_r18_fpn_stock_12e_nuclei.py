# mmdet's rule: every point inside the box, without centre sampling, and the first level up to 64 pixels.
_base_ = "../atss/fcos-lite_r18_fpn_12e_nuclei.py"

model = dict(train_cfg=dict(assigner=dict(regress_ranges=((-1, 64), (64, 128), (128, 1e8)), center_sampling=False)))
