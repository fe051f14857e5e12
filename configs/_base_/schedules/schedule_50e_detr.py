# For one-to-one matching, which needs many steps: the configs take batches of 4 with it.
_base_ = "./schedule_12e.py"

max_epochs = 50
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))

# base_batch_size = (1 process) x (4 samples per process). Leave it: --auto-scale-lr reads it.
auto_scale_lr = dict(base_batch_size=4)
