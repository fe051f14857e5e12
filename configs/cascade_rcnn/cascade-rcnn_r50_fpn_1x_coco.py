_base_ = "mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py"

model = dict(
    train_cfg=dict(
        rpn=dict(assigner=dict(type="visdet_assigners.MaxIoUAssigner")),
        # A list replaces the list of the base whole: each stage is repeated with the assigner's type changed.
        rcnn=[
            dict(stage, assigner=dict(stage.assigner, type="visdet_assigners.MaxIoUAssigner"))
            for stage in _base_.model.train_cfg.rcnn
        ],
    )
)
