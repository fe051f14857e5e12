_base_ = [
    "../_base_/models/fcos_r18_fpn.py",
    "../_base_/models/stride4_r18.py",
    "../_base_/datasets/nuclei.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

# The first level takes objects whose borders are up to 16 pixels away; up to 101 nuclei are in a picture.
model = dict(
    backbone=_base_.fine_backbone,
    neck=_base_.fine_neck,
    bbox_head=dict(num_classes=1, strides=_base_.fine_strides),
    train_cfg=dict(
        assigner=dict(regress_ranges=((-1, 16), (16, 32), (32, 1e8)), center_sampling=True, strides=_base_.fine_strides)
    ),
    test_cfg=dict(nms_pre=1000, max_per_img=200),
)
