# K = 1: DINO with three scales, and an ATSS head.
_base_ = ["../dino/dino-3scale_r18_12e_bccd.py", "../_base_/models/co-detr_branches_r18.py"]

model = dict(
    type="visdet_assigners.CoDINO",
    aux_branches=[{{_base_.atss_branch}}],
    collab=dict(lambda1=1.0, lambda2=2.0, max_pos_queries=100, with_feat=False),
)
