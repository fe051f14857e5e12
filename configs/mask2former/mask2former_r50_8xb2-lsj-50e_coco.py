_base_ = "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py"

# mmdet writes the same three costs as one list for its HungarianAssigner.
model = dict(
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type="visdet_assigners.MaskHungarianAssigner",
            cls_cost=dict(type="visdet_assigners.ClassificationCost", weight=2.0),
            mask_cost=dict(type="visdet_assigners.CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
            dice_cost=dict(type="visdet_assigners.DiceCost", weight=5.0, pred_act=True, eps=1.0),
        )
    )
)
