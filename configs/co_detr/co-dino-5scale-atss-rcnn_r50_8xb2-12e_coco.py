# K = 2 of table 3: DINO with five scales, an ATSS head and a Faster R-CNN, 12 epochs.  Paper: AP 51.2, plain 49.4.
_base_ = ["mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py", "../_base_/models/co-detr_branches_r50-5scale.py"]

num_levels = 5
# A list replaces the inherited one whole, so the costs are written out; their settings are the inherited ones.
model = dict(
    type="visdet_assigners.CoDINO",
    num_feature_levels=num_levels,
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[256, 512, 1024, 2048], num_outs=num_levels),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=num_levels))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=num_levels))),
    aux_branches=[{{_base_.atss_branch}}, {{_base_.rcnn_branch}}],
    # The published configs of Co-DINO add no feature to the queries.
    collab=dict(lambda1=1.0, lambda2=2.0, max_pos_queries=300, with_feat=False),
    train_cfg=dict(
        assigner=dict(
            type="visdet_assigners.HungarianAssigner",
            match_costs=[
                dict(type="visdet_assigners.FocalLossCost", weight=2.0),
                dict(type="visdet_assigners.BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="visdet_assigners.IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    ),
)
