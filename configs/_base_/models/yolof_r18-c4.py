# YOLOF for 320x240 pixels: one feature map of stride 16 instead of 32, anchors of 16 to 128 pixels.
model = dict(
    type="YOLOF",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type="ResNet",
        depth=18,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        style="pytorch",
        init_cfg=None,
    ),
    neck=dict(
        type="DilatedEncoder",
        in_channels=256,
        out_channels=128,
        block_mid_channels=64,
        num_residual_blocks=4,
        block_dilations=[1, 2, 3, 4],
    ),
    bbox_head=dict(
        type="YOLOFHead",
        num_classes=80,
        in_channels=128,
        num_reg_convs=2,
        reg_decoded_bbox=True,
        anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], scales=[1, 2, 4, 8], strides=[16]),
        bbox_coder=dict(
            type="DeltaXYWHBBoxCoder",
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
            add_ctr_clamp=True,
            ctr_clamp=16,
        ),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(type="visdet_assigners.UniformAssigner", pos_ignore_thr=0.15, neg_ignore_thr=0.7),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=500, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.6), max_per_img=100
    ),
)
