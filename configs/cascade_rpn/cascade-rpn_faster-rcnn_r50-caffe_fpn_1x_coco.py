_base_ = "mmdet::cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py"

model = dict(
    train_cfg=dict(
        # A list replaces the list of the base whole: each stage is repeated with the assigner's type changed.
        rpn=[
            dict(stage, assigner=dict(stage.assigner, type=f"visdet_assigners.{stage.assigner.type}"))
            for stage in _base_.model.train_cfg.rpn
        ],
        rcnn=dict(assigner=dict(type="visdet_assigners.MaxIoUAssigner")),
    )
)
