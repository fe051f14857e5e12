# FCOS's rule with centre sampling, for anchors.
_base_ = "./atss_r18-w16_fpn_800it_shapes-128x128.py"

model = dict(
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type="visdet_assigners.ScaleRangeAssigner",
            regress_ranges=[(-1, 64), (64, 128), (128, 256), (256, 1e8)],
            center_sampling=True,
            strides=[8, 16, 32, 64],
        )
    )
)
