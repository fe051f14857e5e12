# K = 1, and the detector's own queries learn one to many beside.
_base_ = "./co-deformable-detr-atss_r18_12e_nuclei.py"

model = dict(aux_branches=[{{_base_.atss_branch}}, dict(type="visdet_assigners.PrimaryOneToMany")])
