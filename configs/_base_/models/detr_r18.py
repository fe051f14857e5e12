# DETR for 2 cores: half the channels of ResNet-18, 64-channel transformer, stride 16 instead of 32.
layer_cfg = dict(
    self_attn_cfg=dict(embed_dims=64, num_heads=4, dropout=0.0, batch_first=True),
    ffn_cfg=dict(
        embed_dims=64, feedforward_channels=256, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type="ReLU", inplace=True)
    ),
)

model = dict(
    type="DETR",
    num_queries=50,
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
        base_channels=32,
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
        type="ChannelMapper", in_channels=[128], kernel_size=1, out_channels=64, act_cfg=None, norm_cfg=None, num_outs=1
    ),
    encoder=dict(num_layers=2, layer_cfg=layer_cfg),
    decoder=dict(
        num_layers=3, layer_cfg=dict(**layer_cfg, cross_attn_cfg=layer_cfg["self_attn_cfg"]), return_intermediate=True
    ),
    positional_encoding=dict(num_feats=32, normalize=True),
    bbox_head=dict(
        type="DETRHead",
        num_classes=80,
        embed_dims=64,
        loss_cls=dict(type="CrossEntropyLoss", bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="visdet_assigners.HungarianAssigner",
            match_costs=[
                dict(type="visdet_assigners.ClassificationCost", weight=1.0),
                dict(type="visdet_assigners.BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="visdet_assigners.IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=50),
)
