_base_ = [
    "../_base_/models/yolox_nano.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/schedule_24e.py",
    "../_base_/default_runtime.py",
]

model = dict(bbox_head=dict(num_classes=4))
