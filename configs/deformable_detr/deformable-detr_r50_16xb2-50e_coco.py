_base_ = "mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py"

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
