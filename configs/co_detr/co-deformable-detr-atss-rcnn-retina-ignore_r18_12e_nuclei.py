# K = 3, and no head learns background where another has a positive.
_base_ = "./co-deformable-detr-atss-rcnn-retina_r18_12e_nuclei.py"

model = dict(collab=dict(conflicts="ignore"))
