# K = 2 of table 2: an ATSS head, and a Faster R-CNN.  Paper: AP 42.9, plain 37.1.
_base_ = "./co-deformable-detr-atss_r50_8xb2-12e_coco.py"

model = dict(aux_branches=[{{_base_.atss_branch}}, {{_base_.rcnn_branch}}])
