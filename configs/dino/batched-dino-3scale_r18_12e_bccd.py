_base_ = "./dino-3scale_r18_12e_bccd.py"

# All images and decoder layers of an iteration are matched at once; the losses are the same.
model = dict(bbox_head=dict(type="visdet_assigners.BatchedDINOHead"))
