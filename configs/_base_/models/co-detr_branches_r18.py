# The same for the small detectors, which have three scales of 64 channels.
_base_ = "./co-detr_branches_r50.py"

strides = [8, 16, 32, 64]
proposals = dict(nms_pre=500, max_per_img=200)

atss_branch = dict(head=dict(feat_channels=64, anchor_generator=dict(strides=strides)))
retina_branch = dict(head=dict(feat_channels=64, anchor_generator=dict(strides=strides)))
rcnn_branch = dict(
    proposal_cfg=proposals,
    rpn=dict(
        feat_channels=64,
        anchor_generator=dict(
            _delete_=True, type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0, 2.0], strides=strides
        ),
        train_cfg=dict(sampler=dict(num=128)),
        test_cfg=proposals,
    ),
    roi=dict(
        bbox_roi_extractor=dict(featmap_strides=strides, finest_scale=28),
        bbox_head=dict(fc_out_channels=128),
        train_cfg=dict(sampler=dict(num=128)),
    ),
)
