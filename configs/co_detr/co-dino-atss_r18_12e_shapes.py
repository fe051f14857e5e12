# K = 1: DINO with three scales, and an ATSS head.
_base_ = [
    "../_base_/models/dino_r18.py",
    "../_base_/models/co-detr_branches_r18.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="visdet_assigners.CoDINO",
    bbox_head=dict(num_classes=4),
    aux_branches=[{{_base_.atss_branch}}],
    collab=dict(lambda1=1.0, lambda2=2.0, max_pos_queries=100, with_feat=False),
)
