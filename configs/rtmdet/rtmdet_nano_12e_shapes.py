_base_ = [
    "../_base_/models/rtmdet_nano.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(bbox_head=dict(num_classes=4))
