_base_ = "./faster-rcnn_r18_fpn.py"

stage = dict(
    type="StageCascadeRPNHead",
    in_channels=64,
    feat_channels=64,
    reg_decoded_bbox=True,
    loss_bbox=dict(type="IoULoss", linear=True, loss_weight=7.0),
)
rpn_proposal = dict(nms=dict(iou_threshold=0.8))

model = dict(
    rpn_head=dict(
        _delete_=True,
        type="CascadeRPNHead",
        num_stages=2,
        stages=[
            dict(
                **stage,
                # One square anchor at each location; the second stage starts from the boxes of this one.
                anchor_generator=dict(type="AnchorGenerator", scales=[4], ratios=[1.0], strides=[8, 16, 32, 64]),
                adapt_cfg=dict(type="dilation", dilation=3),
                bridged_feature=True,
                with_cls=False,
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder", target_means=(0.0, 0.0, 0.0, 0.0), target_stds=(0.1, 0.1, 0.5, 0.5)
                ),
            ),
            dict(
                **stage,
                anchor_generator=dict(type="AnchorGenerator", scales=[4], ratios=[1.0], strides=[8, 16, 32, 64]),
                adapt_cfg=dict(type="offset"),
                bridged_feature=False,
                with_cls=True,
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder", target_means=(0.0, 0.0, 0.0, 0.0), target_stds=(0.05, 0.05, 0.1, 0.1)
                ),
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=0.7),
            ),
        ],
    ),
    roi_head=dict(bbox_head=dict(bbox_coder=dict(target_stds=[0.04, 0.04, 0.08, 0.08]))),
    train_cfg=dict(
        rpn=[
            dict(
                assigner=dict(type="visdet_assigners.RegionAssigner", center_ratio=0.2, ignore_ratio=0.5),
                allowed_border=-1,
                pos_weight=-1,
                debug=False,
            ),
            dict(
                assigner=dict(
                    type="visdet_assigners.MaxIoUAssigner",
                    pos_iou_thr=0.7,
                    neg_iou_thr=0.7,
                    min_pos_iou=0.3,
                    ignore_iof_thr=-1,
                ),
                sampler=dict(type="RandomSampler", num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
                allowed_border=-1,
                pos_weight=-1,
                debug=False,
            ),
        ],
        rpn_proposal=rpn_proposal,
        rcnn=dict(assigner=dict(pos_iou_thr=0.65, neg_iou_thr=0.65, min_pos_iou=0.65)),
    ),
    test_cfg=dict(rpn=rpn_proposal, rcnn=dict(score_thr=0.05)),
)
