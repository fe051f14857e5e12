# Anchors of the right size; each nucleus takes its nine best by NWD.
_base_ = "./retinanet_r18_fpn_right_12e_nuclei.py"

measure = dict(type="visdet_assigners.NWDOverlaps", constant=14.29)
model = dict(
    train_cfg=dict(
        assigner=dict(
            _delete_=True, type="visdet_assigners.RankingAssigner", topk=9, neg_iou_thr=0.5, iou_calculator=measure
        )
    )
)
