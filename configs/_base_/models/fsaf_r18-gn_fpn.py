_base_ = "./atss_r18_fpn.py"

model = dict(
    type="FSAF",
    bbox_head=dict(
        _delete_=True,
        type="FSAFHead",
        num_classes=80,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        reg_decoded_bbox=True,
        # One box of the size of a cell at each location: what the assigner compares with the cores of the objects.
        anchor_generator=dict(
            type="AnchorGenerator", ratios=[1.0], octave_base_scale=1, scales_per_octave=1, strides=[8, 16, 32, 64, 128]
        ),
        bbox_coder=dict(type="TBLRBBoxCoder", normalizer=4.0),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0, reduction="none"),
        loss_bbox=dict(type="IoULoss", eps=1e-6, loss_weight=1.0, reduction="none"),
    ),
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type="visdet_assigners.CenterRegionAssigner",
            pos_scale=0.2,
            neg_scale=0.2,
            min_pos_iof=0.01,
        )
    ),
)
