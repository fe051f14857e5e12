# No head: the detector's own queries learn one to many beside.
_base_ = "./deformable-detr_r18_12e_nuclei.py"

model = dict(type="visdet_assigners.CoDeformableDETR", aux_branches=[dict(type="visdet_assigners.PrimaryOneToMany")])
