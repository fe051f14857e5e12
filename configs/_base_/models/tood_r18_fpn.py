_base_ = "./atss_r18_fpn.py"

model = dict(
    type="TOOD",
    bbox_head=dict(
        _delete_=True,
        type="TOODHead",
        num_classes=80,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        anchor_type="anchor_free",
        anchor_generator=dict(
            type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32, 64, 128]
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]),
        initial_loss_cls=dict(
            type="FocalLoss", use_sigmoid=True, activated=True, gamma=2.0, alpha=0.25, loss_weight=1.0
        ),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, activated=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        # A static assignment until the predictions mean something; the original takes 4 of 12 epochs on COCO for it.
        initial_epoch=1,
        initial_assigner=dict(type="visdet_assigners.ATSSAssigner", topk=9),
        assigner=dict(_delete_=True, type="visdet_assigners.TaskAlignedAssigner", topk=13),
        alpha=1,
        beta=6,
    ),
)
