# K = 0: the plain detector, which the collaborative ones are compared with.
_base_ = [
    "../_base_/models/deformable-detr_r18.py",
    "../_base_/datasets/shapes-128x128.py",
    "../_base_/default_runtime.py",
]

model = dict(
    num_queries=30,
    bbox_head=dict(num_classes=4),
    test_cfg=dict(max_per_img=30),
)

# Half-way, at 200 iterations, is where the gain is looked at.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=400, val_interval=100)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, milestones=[320], gamma=0.1)]
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=400),
    logger=dict(interval=50, log_metric_by_epoch=False),
    timer=dict(type="IterTimerHook"),
)
log_processor = dict(by_epoch=False)

# base_batch_size = (1 process) x (8 samples per process). Leave it: --auto-scale-lr reads it.
auto_scale_lr = dict(enable=False, base_batch_size=8)
