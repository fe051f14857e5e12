_base_ = "./atss_r18_fpn.py"

model = dict(
    type="DDOD",
    bbox_head=dict(
        _delete_=True,
        type="DDODHead",
        num_classes=80,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        use_dcn=False,
        anchor_generator=dict(
            type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32, 64, 128]
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        loss_iou=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(
        # The assigner of the classes, and that of the boxes.
        assigner=dict(type="visdet_assigners.ATSSAssigner", topk=9, alpha=0.8),
        reg_assigner=dict(type="visdet_assigners.ATSSAssigner", topk=9, alpha=0.5),
    ),
)
