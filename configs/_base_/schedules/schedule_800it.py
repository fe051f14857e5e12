# Iterations are counted, not epochs; brings the runtime with it, whose hooks and log it changes.
_base_ = "../default_runtime.py"

max_iters = 800
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=400)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="MultiStepLR", by_epoch=False, milestones=[640], gamma=0.1),
]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.001, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
)

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=max_iters), logger=dict(interval=50, log_metric_by_epoch=False)
)
log_processor = dict(by_epoch=False)

# base_batch_size = (1 process) x (8 samples per process). Leave it: --auto-scale-lr reads it.
auto_scale_lr = dict(enable=False, base_batch_size=8)
