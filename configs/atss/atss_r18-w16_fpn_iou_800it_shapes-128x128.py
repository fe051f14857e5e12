# RetinaNet's thresholds, and "In GT Box": positives whose centre lies outside their object are ignored.
_base_ = "./atss_r18-w16_fpn_800it_shapes-128x128.py"

model = dict(
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type="visdet_assigners.MaxIoUAssigner",
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_outside_gt=True,
        )
    )
)
