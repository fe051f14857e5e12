# Sides below the first stride count as the second, and no nucleus is left without a positive.
_base_ = "../tood/tood_r18_fpn_24e_nuclei.py"

model = dict(train_cfg=dict(assigner=dict(side_floor=(4, 8), min_positives=1)))
