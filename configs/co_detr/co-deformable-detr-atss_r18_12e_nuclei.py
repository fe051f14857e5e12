# K = 1: an ATSS head beside the encoder, its positives as queries.
_base_ = ["./deformable-detr_r18_12e_nuclei.py", "../_base_/models/co-detr_branches_r18-small.py"]

model = dict(
    type="visdet_assigners.CoDeformableDETR",
    aux_branches=[{{_base_.atss_branch}}],
    collab=dict(lambda1=1.0, lambda2=2.0, max_pos_queries=200),
)
