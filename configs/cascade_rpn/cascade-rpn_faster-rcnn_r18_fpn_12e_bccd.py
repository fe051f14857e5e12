_base_ = [
    "../_base_/models/cascade-rpn_faster-rcnn_r18_fpn.py",
    "../_base_/datasets/bccd.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
