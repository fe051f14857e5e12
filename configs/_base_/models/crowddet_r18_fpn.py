# CrowdDet for 320x240 pixels: the small Faster R-CNN with a head that predicts two objects for each proposal.
_base_ = "./faster-rcnn_r18_fpn.py"

model = dict(
    type="CrowdDet",
    roi_head=dict(
        type="MultiInstanceRoIHead",
        bbox_head=dict(
            _delete_=True,
            type="MultiInstanceBBoxHead",
            num_instance=2,
            with_refine=False,
            num_shared_fcs=2,
            in_channels=64,
            fc_out_channels=256,
            roi_feat_size=7,
            num_classes=1,
            bbox_coder=dict(
                type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]
            ),
            reg_class_agnostic=False,
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0, reduction="none"),
            loss_bbox=dict(type="SmoothL1Loss", loss_weight=1.0, reduction="none"),
        ),
    ),
    train_cfg=dict(
        rcnn=dict(
            assigner=dict(
                type="visdet_assigners.MultiInstanceAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.3
            ),
            sampler=dict(
                type="MultiInsRandomSampler", num=128, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False
            ),
        )
    ),
)
