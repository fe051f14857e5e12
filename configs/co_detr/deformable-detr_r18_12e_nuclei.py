# K = 0: the plain detector, which the collaborative ones are compared with.
_base_ = [
    "../_base_/models/deformable-detr_r18.py",
    "../_base_/datasets/nuclei.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

# Twice as many queries: up to 101 nuclei are in a picture.
model = dict(num_queries=200, bbox_head=dict(num_classes=1), test_cfg=dict(max_per_img=200))
train_cfg = dict(val_interval=3)
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
# Batches of 4 instead of 8 give twice the steps for the same work.
train_dataloader = dict(batch_size=4)

# base_batch_size = (1 process) x (4 samples per process). Leave it: --auto-scale-lr reads it.
auto_scale_lr = dict(base_batch_size=4)
