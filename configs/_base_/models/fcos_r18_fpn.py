# FCOS as published, with the later improvements of its head: its own rule, as an assigner.
_base_ = "./atss_r18_fpn.py"

model = dict(
    type="FCOS",
    bbox_head=dict(
        _delete_=True,
        type="visdet_assigners.AssignedFCOSHead",
        num_classes=80,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        strides=[8, 16, 32, 64, 128],
        norm_on_bbox=True,
        centerness_on_reg=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(assigner=dict(_delete_=True, type="visdet_assigners.ScaleRangeAssigner")),
)
