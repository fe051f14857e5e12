# What tools/demo.sh trains: half the channels and a quarter of the pixels, so that minutes on a CPU are enough.
_base_ = [
    "../_base_/models/atss_r18_fpn.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/schedule_24e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(num_classes=4, anchor_generator=dict(octave_base_scale=4)),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (160, 120)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (160, 120)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# The scores of a detector after minutes: rightly low, and still worth drawing.
default_hooks = dict(logger=dict(interval=25), visualization=dict(score_thr=0.2))
