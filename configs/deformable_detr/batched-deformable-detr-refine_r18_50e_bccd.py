_base_ = "./deformable-detr-refine_r18_50e_bccd.py"

# All images and decoder layers of an iteration are matched at once; the losses are the same.
model = dict(bbox_head=dict(type="visdet_assigners.BatchedDeformableDETRHead"))
