# The same with anchors of 2 strides, for objects of 6 to 25 pixels.
_base_ = "./co-detr_branches_r18.py"

atss_branch = dict(head=dict(anchor_generator=dict(octave_base_scale=2)))
retina_branch = dict(head=dict(anchor_generator=dict(octave_base_scale=2)))
rcnn_branch = dict(rpn=dict(anchor_generator=dict(scales=[2])))
