_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"

# Batches need a head that passes them, so the head changes with the assigner; its layers and losses are RetinaHead's.
model = dict(
    bbox_head=dict(type="visdet_assigners.StaticRetinaHead"),
    train_cfg=dict(assigner=dict(type="visdet_assigners.AscendMaxIoUAssigner")),
)
