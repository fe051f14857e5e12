# DDQ for 2 cores.  Its assigners keep mmdet's names: that of the dense queries stands in the head's code, where no
# config reaches it, so the drop-in replaces both.
_base_ = "./dino_r18.py"

custom_imports = dict(imports=["visdet_assigners.dropin"], allow_failed_imports=False)

model = dict(
    type="DDQDETR",
    dense_topk_ratio=1.5,
    dqs_cfg=dict(type="nms", iou_threshold=0.8),
    bbox_head=dict(type="DDQDETRHead", aux_num_pos=4),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="FocalLossCost", weight=2.0),
                dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    ),
)
