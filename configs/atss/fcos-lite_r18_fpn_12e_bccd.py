_base_ = [
    "../_base_/models/fcos_r18_fpn.py",
    "../_base_/datasets/bccd.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(bbox_head=dict(num_classes=3), train_cfg=dict(assigner=dict(center_sampling=True)))
