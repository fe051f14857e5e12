# K = 3: an ATSS head, a Faster R-CNN, and a RetinaNet head.
_base_ = "./co-deformable-detr-atss_r18_12e_nuclei.py"

model = dict(aux_branches=[{{_base_.atss_branch}}, {{_base_.rcnn_branch}}, {{_base_.retina_branch}}])
