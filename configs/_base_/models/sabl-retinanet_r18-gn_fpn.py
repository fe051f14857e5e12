# Anchors of 3 strides instead of 4: the pictures have 320x240 pixels.
_base_ = "./atss_r18_fpn.py"

model = dict(
    type="RetinaNet",
    bbox_head=dict(
        _delete_=True,
        type="SABLRetinaHead",
        num_classes=80,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        approx_anchor_generator=dict(
            type="AnchorGenerator",
            octave_base_scale=3,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
        square_anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], scales=[3], strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type="BucketingBBoxCoder", num_buckets=14, scale_factor=3.0),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.5),
        loss_bbox_reg=dict(type="SmoothL1Loss", beta=1.0 / 9.0, loss_weight=1.5),
    ),
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type="visdet_assigners.ApproxMaxIoUAssigner",
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
        )
    ),
)
