# K = 2: an ATSS head, and a Faster R-CNN.
_base_ = "./co-deformable-detr-atss_r18_12e_nuclei.py"

model = dict(aux_branches=[{{_base_.atss_branch}}, {{_base_.rcnn_branch}}])
