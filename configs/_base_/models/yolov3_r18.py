# YOLOv3 for 320x240 pixels: ResNet-18 instead of Darknet-53, square anchors of 12 to 128 pixels.
model = dict(
    type="YOLOV3",
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
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        style="pytorch",
        init_cfg=None,
    ),
    neck=dict(type="YOLOV3Neck", num_scales=3, in_channels=[512, 256, 128], out_channels=[64, 64, 64]),
    bbox_head=dict(
        type="YOLOV3Head",
        num_classes=80,
        in_channels=[64, 64, 64],
        out_channels=[64, 64, 64],
        anchor_generator=dict(
            type="YOLOAnchorGenerator",
            base_sizes=[
                [(72, 72), (96, 96), (128, 128)],
                [(36, 36), (48, 48), (56, 56)],
                [(12, 12), (18, 18), (26, 26)],
            ],
            strides=[32, 16, 8],
        ),
        bbox_coder=dict(type="YOLOBBoxCoder"),
        featmap_strides=[32, 16, 8],
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0, reduction="sum"),
        loss_conf=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0, reduction="sum"),
        loss_xy=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=2.0, reduction="sum"),
        loss_wh=dict(type="MSELoss", loss_weight=2.0, reduction="sum"),
    ),
    train_cfg=dict(
        assigner=dict(type="visdet_assigners.GridAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0)
    ),
    test_cfg=dict(
        nms_pre=500,
        min_bbox_size=0,
        score_thr=0.05,
        conf_thr=0.005,
        nms=dict(type="nms", iou_threshold=0.45),
        max_per_img=100,
    ),
)
