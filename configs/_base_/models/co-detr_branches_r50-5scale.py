# The same for detectors with five scales, which have a level of stride 4 too.
_base_ = "./co-detr_branches_r50.py"

strides = [4, 8, 16, 32, 64, 128]
atss_branch = dict(head=dict(anchor_generator=dict(strides=strides)))
rcnn_branch = dict(
    rpn=dict(anchor_generator=dict(strides=strides)),
    roi=dict(bbox_roi_extractor=dict(featmap_strides=strides, finest_scale=56)),
)
