_base_ = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"

# A list replaces the inherited one whole, so the costs are written out; their settings are the inherited ones.
model = dict(
    train_cfg=dict(
        assigner=dict(
            type="visdet_assigners.HungarianAssigner",
            match_costs=[
                dict(type="visdet_assigners.FocalLossCost", weight=2.0),
                dict(type="visdet_assigners.BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="visdet_assigners.IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    )
)
