"""A small rotated RetinaNet on drawn shapes: a config for mmrotate, `make-shapes --rotated` makes its data."""

_base_ = ["mmrotate::rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py"]
custom_imports = dict(imports=["mmrotate.models", "mmrotate.datasets", "visdet_assigners.dropin"])
data_root = "data/shapes"
classes = ("circle", "rectangle", "triangle", "star")
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64),
    bbox_head=dict(num_classes=4, in_channels=64, feat_channels=64, stacked_convs=1),
)
loading = [
    dict(type="mmdet.LoadImageFromFile"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True, poly2mask=False),
    dict(type="ConvertMask2BoxType", box_type="rbox"),
    dict(type="mmdet.Resize", scale=(320, 240), keep_ratio=True),
    dict(type="mmdet.PackDetInputs"),
]
train_dataloader = dict(
    _delete_=True,
    batch_size=2,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="mmdet.CocoDataset",
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file="annotations/train.json",
        data_prefix=dict(img="images/train/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=loading,
    ),
)
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=3, val_interval=1000)
param_scheduler = []
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
